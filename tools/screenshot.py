"""Take the pictures of the README: the live page over the bundled example program, light, dark and on a phone; a report.

PYTHONPATH=src python tools/screenshot.py [--seconds 24] [--out docs/images]

Needs Playwright and a Chromium: one on the PATH is taken, else Playwright's own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "examples/service.py"
LEAKING = "examples/leaks/service.py"
PICTURES: Final[tuple[tuple[str, int, int, Literal["light", "dark"]], ...]] = (
    ("live.png", 1280, 800, "light"),
    ("live-dark.png", 1280, 800, "dark"),
    ("live-phone.png", 390, 844, "light"),
)


def environment() -> dict[str, str]:
    """A picture for everybody shows no path of this machine: the interpreter is found by its name."""
    path = f"{Path(sys.executable).resolve().parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path}


def start(seconds: float) -> tuple[subprocess.Popen[str], str]:
    """Start the example under watch and answer the launcher and the address of its page."""
    watch = [
        sys.executable,
        "-m",
        "heapsmith",
        "run",
        "--live",
        "127.0.0.1:0",
        "--limit",
        "160MiB",
        "--warn-at",
        "72MiB",
    ]
    program = ["python3", PROGRAM, "--seconds", f"{seconds:g}"]
    launcher = subprocess.Popen(
        [*watch, "--", *program], stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    )
    assert launcher.stderr is not None
    for line in launcher.stderr:
        if found := re.search(r"http://\S+", line):
            return launcher, found[0]
    raise SystemExit(f"screenshot: the page did not come up (exit code {launcher.wait()})")


def take(browser: Browser, url: str, seconds: float, out: Path) -> None:
    """Look on for the given time in every picture's size, then take all of them."""
    pages = [
        (
            out / name,
            browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1.5
            ).new_page(),
        )
        for name, width, height, scheme in PICTURES
    ]
    for _, page in pages:
        page.goto(url)
        page.wait_for_selector("body:not(.loading)")
    pages[0][1].wait_for_timeout(1000 * seconds)
    for path, page in pages:
        page.screenshot(path=path)
        print(path)


def take_report(browser: Browser, out: Path) -> None:
    """Record the leaking service of the tutorial, and take the first screen of its report."""
    with tempfile.TemporaryDirectory() as folder:
        trace, page = Path(folder) / "before.heap", Path(folder) / "before.html"
        heapsmith = [sys.executable, "-m", "heapsmith"]
        record = [*heapsmith, "record", "-o", str(trace), "--stacks", "all", "--", "python", LEAKING]
        for words in (record, [*heapsmith, "report", str(trace), "-o", str(page)]):
            subprocess.run(words, check=True, cwd=ROOT, env=environment(), capture_output=True)
        tab = browser.new_page(viewport={"width": 1280, "height": 1100}, device_scale_factor=1.5)
        tab.goto(page.as_uri())
        tab.wait_for_timeout(1500)
        tab.screenshot(path=out / "report.png")
        print(out / "report.png")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=24.0, help="how long to look on before the pictures")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    launcher, url = start(options.seconds + 30)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            take(browser, url, options.seconds, options.out)
            take_report(browser, options.out)
            browser.close()
    finally:
        launcher.send_signal(signal.SIGINT)
        try:
            launcher.wait(5)
        except subprocess.TimeoutExpired:
            launcher.kill()


if __name__ == "__main__":
    main()

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from page.browsing import Open, tile, wait_until

Start = Callable[..., tuple[subprocess.Popen[str], str]]

GROWING = """
import sys, threading, time
kept = []
def work(name):
    open(f"/proc/self/task/{threading.get_native_id()}/comm", "w").write(name)
    for _ in range(160):
        kept.append(bytearray(1 << 19))
        time.sleep(0.05)
threads = [threading.Thread(target=work, args=[f"digger-{i}"]) for i in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
sys.exit(3)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``heapsmith run --live`` and answer the launcher and the address of its page."""
    started: list[subprocess.Popen[str]] = []

    def start_(*command: str, options: tuple[str, ...] = ()) -> tuple[subprocess.Popen[str], str]:
        log = tmp_path / f"launcher-{len(started)}.log"
        with log.open("w") as stderr:
            words = [
                sys.executable,
                "-m",
                "heapsmith",
                "run",
                "--live",
                "127.0.0.1:0",
                *options,
                "--",
                *command,
            ]
            launcher = subprocess.Popen(words, stderr=stderr, stdout=subprocess.PIPE, text=True)
        started.append(launcher)
        found: list[str] = []

        def announced() -> bool:
            found[:] = re.findall(r"http://[0-9.:]+/", log.read_text())
            assert launcher.poll() is None, log.read_text()
            return bool(found)

        wait_until(announced, "the page is announced")
        return launcher, found[0]

    yield start_
    for launcher in started:
        launcher.send_signal(signal.SIGINT)
        try:
            launcher.wait(10)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
        if launcher.stdout:
            launcher.stdout.close()


def python() -> str:
    return str(Path(sys.executable).resolve())


def test_threads_of_a_python_program_are_named_and_its_exit_code_stays_on_the_page(
    start: Start, open_page: Open
) -> None:
    _, url = start(python(), "-c", GROWING)
    page = open_page(url)
    expect(page.locator("#thread option", has_text="digger-1")).to_have_count(1)
    expect(page.locator(".tile[data-name='Live'] strong")).to_contain_text("MiB")
    expect(page.locator("#state")).to_have_text("exited with 3", timeout=30_000)
    assert float(tile(page, "Peak").removesuffix(" MiB")) >= 160
    assert page.locator("#table tbody tr").count() > 10


def test_a_killed_program_leaves_its_last_values_and_the_signal(start: Start, open_page: Open) -> None:
    _, url = start(python(), "-c", "kept = bytearray(50 << 20); print(1); import time; time.sleep(99)")
    page = open_page(url)
    expect(page.locator(".tile[data-name='Live'] strong")).to_contain_text("MiB")
    pid = int(page.locator("#pid").inner_text().removeprefix("pid "))
    os.kill(pid, signal.SIGKILL)
    expect(page.locator("#state")).to_have_text("killed by SIGKILL")
    assert float(tile(page, "Live").removesuffix(" MiB")) >= 50


def test_a_pipeline_is_a_tree(start: Start, open_page: Open) -> None:
    _, url = start("sh", "-c", "sleep 20 | cat; true")
    page = open_page(url)
    expect(page.locator("#processes .list button", has_text="sleep")).to_have_count(1)
    expect(page.locator("#processes .list button", has_text="cat")).to_have_count(1)
    expect(page.locator("#name")).to_have_text("sh")


def test_a_limit_set_in_the_page_holds_in_the_program(start: Start, open_page: Open) -> None:
    program = """
import time
kept = []
try:
    while True:
        kept.append(bytearray(1 << 20))
        time.sleep(0.02)
except MemoryError:
    reached = len(kept)
    kept.clear()
    print("refused at", reached)
"""
    launcher, url = start(python(), "-c", program)
    page = open_page(url)
    page.get_by_role("button", name="Set the limit").click()
    page.get_by_role("textbox", name="Limit").fill("64MiB")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#state")).to_have_text("exited with 0", timeout=30_000)
    assert int(tile(page, "Failures")) >= 1
    expect(page.locator("#events")).to_contain_text("refused: over the limit")
    assert launcher.stdout is not None
    assert "refused at" in launcher.stdout.readline()


def test_the_program_does_not_notice_that_the_process_of_its_page_was_killed(
    start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "done"
    program = f"import time; time.sleep(2); kept = bytes(99_999); open({str(out)!r}, 'w').write('well')"
    launcher, _ = start(python(), "-c", program)
    launcher.kill()
    wait_until(out.exists, "the program has ended by itself")
    assert out.read_text() == "well"

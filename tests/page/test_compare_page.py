"""The page of a comparison fits a phone, whatever the settings are called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from heapsmith.cli import main

LONG = "glibc:mmap_threshold=1GiB,trim_threshold=1GiB,top_pad=1MiB,hugetlb=1"


def test_long_names_of_settings_leave_the_page_as_wide_as_the_phone(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "x.html"
    program = [sys.executable, "-I", "-S", "-c", "import time; kept = bytes(8 << 20); time.sleep(0.1)"]
    words = ["compare", "-a", "system", "-a", LONG, "--runs", "2", "-o", str(path), "--", *program]
    assert main(words) == 0
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(path.as_uri())
    page.wait_for_selector("canvas")
    page.wait_for_timeout(500)  # the figures take their sizes after they have been drawn
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.close()

"""What the tests of the page share: how a page is opened, and waiting for something to hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from playwright.sync_api import Page


class Open(Protocol):
    def __call__(
        self,
        url: str,
        *,
        width: int = 1280,
        height: int = 800,
        dark: bool = False,
        expect_errors: bool = False,
    ) -> Page: ...


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def tile(page: Page, name: str) -> str:
    return page.locator(f".tile[data-name='{name}'] strong").inner_text()

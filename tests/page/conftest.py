"""A browser, and pages that fail their test when they complain or ask anybody but this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from believable import Machine
from heapsmith.show.page import PageServer, serve
from page.browsing import Open

OUT = Path(__file__).parents[2] / "out" / "page"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Open]:
    complaints: list[str] = []
    pages: list[Page] = []

    def hear(message: ConsoleMessage) -> None:
        # Bokeh says this of a picture that has no data yet.
        if message.type in ("error", "warning") and "could not set initial ranges" not in message.text:
            complaints.append(message.text)

    def see(asked: Request) -> None:
        if not asked.url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:")):
            complaints.append(f"asked for {asked.url}")

    def open_(
        url: str, *, width: int = 1280, height: int = 800, dark: bool = False, expect_errors: bool = False
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        page = context.new_page()
        page.set_default_timeout(20_000)
        if not expect_errors:
            page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", see)
        page.goto(url)
        page.wait_for_selector("body:not(.loading)")
        pages.append(page)
        return page

    yield open_
    OUT.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9_]+", "-", request.node.name, flags=re.IGNORECASE).strip("-")
    for number, page in enumerate(pages, 1):
        if not page.is_closed():
            page.screenshot(path=OUT / f"{name}-{number}.png")
        page.context.close()
    assert complaints == []


@pytest.fixture
def serve_machine() -> Iterator[Callable[[Machine], PageServer]]:
    servers: list[PageServer] = []

    def serve_(machine: Machine) -> PageServer:
        server = serve(machine, "127.0.0.1", 0, on_ready=lambda _: None, interval_s=0.25)
        servers.append(server)
        return server

    yield serve_
    for server in servers:
        server.stop()

"""The page of a report works from the disk alone, and answers to clicks."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser

from heapsmith.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "trace"))

from telling_traces import write_service

DRAWN = "document.getElementById('line').toDataURL()"


def test_a_page_opens_offline_and_shows_peak_moment_search_and_inverted_view(
    browser: Browser, tmp_path: Path
) -> None:
    page_path = tmp_path / "x.html"
    assert main(["report", str(write_service(tmp_path / "x.heap")), "-o", str(page_path)]) == 0
    asked: list[str] = []
    problems: list[str] = []
    context = browser.new_context(viewport={"width": 420, "height": 800}, offline=True)
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(page_path.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert asked == [page_path.as_uri()]
    total = page.locator("#graph-total")
    assert total.inner_text().startswith("24.")
    page.fill("#search", "load_all")
    assert "found 24.0 MiB" in total.inner_text()
    page.click("[data-mode=exit]")
    assert "found 0 B" in total.inner_text()
    page.check("#inverted")
    page.fill("#search", "remember")
    assert "found 977 KiB" in total.inner_text()
    page.click("#line", position={"x": 200, "y": 60})
    assert total.inner_text().startswith("at ")
    page.fill("#search", "")
    page.click("[data-mode=peak]")
    page.uncheck("#inverted")
    page.focus("#flame")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    below = page.locator("#hover").inner_text()
    assert "% of all" in below
    page.keyboard.press("Enter")
    assert page.locator("#whole").is_visible()
    page.keyboard.press("ArrowUp")
    assert page.locator("#hover").inner_text() != below
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.locator("#whole").is_hidden()
    page.focus("#line")
    page.keyboard.press("ArrowLeft")
    assert total.inner_text().startswith("at ")
    whole = page.evaluate(DRAWN)
    page.keyboard.press("+")
    page.keyboard.press("+")
    near = page.evaluate(DRAWN)
    page.keyboard.press("Shift+ArrowLeft")
    moved = page.evaluate(DRAWN)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert len({whole, near, moved}) == 3
    assert page.evaluate(DRAWN) == whole
    page.keyboard.press("+")
    page.keyboard.press("Escape")
    assert page.evaluate(DRAWN) == whole
    page.fill("#filter", "join_lines")
    assert page.locator("#sites tbody tr").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert problems == []
    context.close()


def found_kib(total: str) -> float:
    return float(total.partition("found ")[2].partition(" KiB")[0])


def test_dragging_over_the_line_shows_what_was_added_in_that_stretch(
    browser: Browser, tmp_path: Path
) -> None:
    page_path = tmp_path / "x.html"
    assert main(["report", str(write_service(tmp_path / "x.heap")), "-o", str(page_path)]) == 0
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.goto(page_path.as_uri())
    page.wait_for_selector("html[data-ready]")
    page.fill("#search", "remember")
    page.click("[data-mode=added]")
    whole = page.locator("#graph-total").inner_text()
    assert whole.startswith("more at ") and 0.95 * 977 < found_kib(whole) <= 977
    box = page.locator("#line").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 90)
    page.mouse.up()
    part = page.locator("#graph-total").inner_text()
    assert part.startswith("more at ") and 0.2 * 977 < found_kib(part) < 0.4 * 977
    page.dblclick("#line", position={"x": 300, "y": 60})
    page.click("[data-mode=added]")
    assert page.locator("#graph-total").inner_text() == whole
    context.close()

# ruff: noqa: E501 (what a program prints, and C that is compiled, is quoted whole)
from __future__ import annotations

import io
import os
import re
import shutil
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from heapsmith.errors import HeapsmithError
from heapsmith.osmem import Model, parse_script, play
from heapsmith.osmem.axis import Axis
from heapsmith.osmem.scenarios import random_lines
from heapsmith.osmem.story import tell
from heapsmith.show.osmem.drawing import HeapDrawing
from heapsmith.show.osmem.heap_picture import draw_heap
from heapsmith.show.osmem.shapes import Label, marks_of
from heapsmith.show.osmem.shapes import Path as Line
from heapsmith.show.osmem.sheet import axis_for

MOVE = "p = malloc 1000\nq = malloc 500\nr = malloc 2000\nfree q\ns = malloc 300\np = realloc p 2400\nm = malloc 200000\nfree m"
CHROMIUM = shutil.which("chromium") or os.environ.get("CHROMIUM")


def words(drawing: HeapDrawing, step: int) -> list[str]:
    scene = drawing.scenes[step - 1]
    picture = draw_heap(scene, axis_for(drawing.scenes, 900), 131072)
    return [shape.text for shape in marks_of(picture.shapes) if isinstance(shape, Label)]


@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=200), st.floats(200, 2000))
@settings(deadline=None)
def test_the_axis_keeps_the_order_of_addresses_and_shows_every_piece(
    addresses: set[int], width: float
) -> None:
    axis = Axis(addresses, width)
    places = [axis.place(address) for address in sorted(addresses)]
    assert all(right - left >= 2.99 for left, right in pairwise(places))
    for start, end in pairwise(sorted(addresses)):
        spans = list(axis.spans(start, end))
        assert all(0 <= span.start < span.end <= width + 1e-6 for span in spans)
        assert sum(span.end - span.start for span in spans) == pytest.approx(
            axis.place(end) - axis.place(start)
        )
        to_scale = (end - start) * axis.units_per_byte
        if (start, end) not in axis.torn and to_scale > 3:
            assert axis.place(end) - axis.place(start) == pytest.approx(to_scale)


def test_why_a_block_moved_is_said_and_shown() -> None:
    drawing = HeapDrawing(MOVE)
    scene = drawing.scenes[5]
    assert scene.headline == "p moved: s is in the way"
    assert scene.sentences[0] == (
        "p cannot grow where it is: it has room for 1,000 bytes, needs 2,400, and s, right behind it, is in use."
    )
    assert {"in the way", "p was here", "1,000 B copied", "split"} <= set(words(drawing, 6))


@pytest.mark.parametrize(
    ("script", "headline", "shown"),
    [
        ("p = malloc 10", "first use of the heap: p gets its beginning", "brk: + 131,072 B"),
        ("p = malloc 10\nfree p", "p is freed: its block stays, ready for reuse", "freed"),
        (
            "p = malloc 10\np = realloc p 100",
            "p grew in place: it swallowed the free block behind it",
            "merged",
        ),
        (
            "p = malloc 131040\nq = malloc 900",
            "nothing fits: the heap grows, and q is appended",
            "brk: + 928 B",
        ),
        (
            "p = malloc 100000\nq = malloc 40000",
            "nothing fits: the last free block grows until q fits",
            "brk: + 8,976 B",
        ),
        ("p = malloc 131040\np = realloc p 131044", "p stays where it is", "p"),
        ("p = malloc 150000", "p is large: it gets a mapping of its own", "150,000 B"),
        ("p = malloc 150000\nfree p", "p is freed: its mapping goes back to the system", "unmapped"),
        ("p = malloc 150000\np = realloc p 10", "p moved: a mapped block always does", "10 B copied"),
        ("p = malloc 0", "the answer is NULL", "the heap is empty"),
        ("p = malloc 18446744073709551615", "no memory: the answer is NULL", "the heap is empty"),
        ("p = malloc 10\nfree p\nq = realloc p 5", "the answer is NULL", "free"),
        ("free NULL", "nothing to free", "the heap is empty"),
    ],
)
def test_every_kind_of_step_has_words_and_marks_of_its_own(script: str, headline: str, shown: str) -> None:
    drawing = HeapDrawing(script)
    assert drawing.scenes[-1].headline == headline
    assert drawing.scenes[-1].sentences
    assert shown in words(drawing, len(drawing.scenes))


def test_a_name_that_is_given_away_no_longer_names_its_old_block() -> None:
    scene = HeapDrawing("a = malloc 100\na = malloc 200").scenes[-1]
    assert [scene.name_of(block) for block in scene.step.heap[:2]] == ["#1", "a"]


def test_joining_on_free_is_not_told_as_joining_before_a_search() -> None:
    drawing = HeapDrawing("a = malloc 100\nb = malloc 8\nfree a\nfree b", Model(coalesce="on-free"))
    assert (
        drawing.scenes[-1].sentences[-1]
        == "The block that was freed was joined with its free neighbours at once."
    )


def test_a_block_that_stays_is_drawn_at_the_same_place_in_every_step() -> None:
    drawing = HeapDrawing(MOVE)
    axis = axis_for(drawing.scenes, 900)
    places: set[float] = set()
    for scene in drawing.scenes[2:]:
        picture = draw_heap(scene, axis, 131072)
        places |= {
            shape.x for shape in marks_of(picture.shapes) if isinstance(shape, Label) and shape.text == "r"
        }
    assert len(places) == 1


def test_a_long_random_run_can_be_told_and_drawn() -> None:
    text = "\n".join(random_lines(11, 120, 24))
    scenes = tell(play(parse_script(text), Model()))
    axis = axis_for(scenes, 860)
    for scene in scenes:
        picture = draw_heap(scene, axis, 1 << 18)
        for shape in marks_of(picture.shapes):
            if isinstance(shape, Line):
                assert all(-8 <= x <= 868 for x, _ in shape.points)
        assert scene.headline
        assert scene.sentences


def test_the_svg_is_well_formed_and_needs_nothing_else() -> None:
    svg = HeapDrawing(MOVE).svg()
    root = ElementTree.fromstring(svg)
    assert float(root.attrib["width"]) > 900
    assert "prefers-color-scheme:dark" in svg
    assert re.findall(r'(?:href|src)="(?!#)', svg) == []


def test_the_png_has_the_size_of_the_sheet_and_more_than_a_ground() -> None:
    drawing = HeapDrawing(MOVE, steps=(6, 6))
    image = Image.open(io.BytesIO(drawing.png()))
    assert image.width == 2032
    colours = image.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert {(0x56, 0xA5, 0xD8), (0xB3, 0x47, 0x00), (0x00, 0x73, 0x4F)} <= {colour for _, colour in colours}


def test_a_sheet_too_long_for_pixels_says_what_to_do() -> None:
    with pytest.raises(HeapsmithError, match="--steps"):
        HeapDrawing("\n".join(random_lines(1, 300, 24))).png()


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    page = HeapDrawing(MOVE).html()
    assert "@title@" not in page
    assert re.findall(r"(?:src|href)=[\"'](?!#)", page) == []
    assert [url for url in re.findall(r"https?://[^\"' <]+", page) if "w3.org" not in url] == []


def test_a_script_cannot_put_markup_into_the_page() -> None:
    page = HeapDrawing("p = malloc 10 # <script>alert(1)</script>").html()
    assert "<script>alert" not in page


def test_a_notebook_shows_the_player_in_a_frame_of_its_own() -> None:
    shown = HeapDrawing(MOVE)._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "<script>" not in shown


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(HeapsmithError, match="nothing to draw"):
        HeapDrawing("# only a remark")


@pytest.fixture
def page(tmp_path: Path):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine to open the page with")
    path = tmp_path / "heap.html"
    HeapDrawing(MOVE).save(path)
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 375, "height": 780}, color_scheme="dark")
        faults: list[object] = []
        tab.on("pageerror", lambda fault: faults.append(fault))
        tab.goto(path.as_uri())
        yield tab
        browser.close()
        assert faults == []


def visible_step(page: Page) -> list[str]:
    return page.eval_on_selector_all(
        ".step", "all => all.filter(s => s.offsetParent).map(s => s.dataset.step)"
    )


def test_the_player_steps_by_key_button_list_and_slider(page: Page) -> None:
    assert visible_step(page) == ["1"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert visible_step(page) == ["3"]
    page.keyboard.press("ArrowLeft")
    assert visible_step(page) == ["2"]
    page.keyboard.press("End")
    assert visible_step(page) == ["8"]
    assert page.locator("#forward").is_disabled()
    page.click("#back")
    assert visible_step(page) == ["7"]
    page.click(".script a[data-step='6']")
    assert visible_step(page) == ["6"]
    page.fill("#slider", "4")
    assert visible_step(page) == ["4"]
    assert page.locator("#where").inner_text() == "step 4 of 8"


def test_the_player_fits_a_phone_and_can_change_its_light(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark

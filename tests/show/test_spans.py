"""The picture of a forged heap's spans: strips, fullest first, largest class first, what is free last."""

from __future__ import annotations

import msgspec
from rich.console import Console

from believable import empty
from heapsmith.run.history import History
from heapsmith.run.values import SpanClass
from heapsmith.show.text import render_process
from heapsmith.show.view import ALL_THREADS, compute_view

SPANS = [
    SpanClass("blocks", 48, 4, 4 * 16384, 900, [0, 1, 0, 0, 0, 0, 0, 0, 0, 3]),
    SpanClass("blocks", 1024, 10, 10 * 32768, 200, [0, 0, 0, 0, 0, 5, 0, 0, 0, 5]),
    SpanClass("dirty", None, 2, 1 << 20, 0, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
]


def test_spans_are_strips_from_full_to_empty_and_what_is_free_comes_last() -> None:
    process = msgspec.structs.replace(
        empty(),
        spans=SPANS,
        committed_bytes=4 << 20,
        external_fragmentation_ratio=0.25,
        free_cached_bytes=1 << 20,
    )
    history = History()
    history.add([process])
    view = compute_view(history, process, process, ALL_THREADS, None, "")
    assert [strip.name for strip in view.strips] == ["1.00 KiB", "48 B", "free, warm"]
    fullest, emptiest = view.strips[1].pieces
    assert (fullest[0], fullest[1]) == (0.75, 9)
    assert (emptiest[0], emptiest[1]) == (0.25, 1)
    assert "3 of 4 spans are 90 to 100 % full" in fullest[2]
    assert view.strips[0].share == 0.3125
    tiles = {tile.name: tile for tile in view.tiles}
    assert tiles["Committed"].value == "4.00 MiB"
    assert tiles["Free in heap"].note == "25.0 % fragmented"


def test_a_heap_that_tells_nothing_has_neither_strips_nor_tiles() -> None:
    process = empty()
    history = History()
    history.add([process])
    view = compute_view(history, process, process, ALL_THREADS, None, "")
    assert view.strips == []
    assert "Committed" not in {tile.name for tile in view.tiles}


def test_the_terminal_shows_the_same_table() -> None:
    console = Console(width=110, record=True, file=None)
    with console.capture() as captured:
        console.print(render_process(msgspec.structs.replace(empty(), spans=SPANS)))
    said = captured.get()
    assert "full to empty" in said
    assert "free, warm" in said

"""The library against the model: the same script on both, and everything compared that either can show."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from heapsmith.osmem.blocks import HEADER_BYTES, HEAP_START, Layout
from heapsmith.osmem.driver import Kept, calls_of, run_native
from heapsmith.osmem.libraries import built_library
from heapsmith.osmem.model import Model
from heapsmith.osmem.script import Played, parse_script, play
from heapsmith.osmem.trace_text import format_trace

TOUCHED_BYTES = 1 << 20


def pattern(operation: int, count: int) -> bytes:
    """What the driver writes into the payload that an operation answered."""
    i = np.arange(min(count, TOUCHED_BYTES), dtype=np.uint64)
    return ((operation + 1) * 37 + i * 11 + (i >> np.uint64(8)) * 3).astype(np.uint8).tobytes()


def expected_contents(played: Sequence[Played]) -> dict[int, Kept]:
    """What each realloc of a live block has to keep, by the model."""
    requested: dict[int, int] = {}
    kept: dict[int, Kept] = {}
    for index, one in enumerate(played):
        step = one.step
        old = requested.get(one.source, 0)
        if step.function == "os_realloc" and step.pointer and old:
            content = pattern(one.source, min(old, step.arguments[1]))
            kept[index] = Kept(len(content), zlib.adler32(content))
        if step.function == "os_free" or (
            step.function == "os_realloc" and (step.pointer or not step.arguments[1])
        ):
            requested.pop(one.source, None)
        if step.pointer:
            requested[index] = (
                step.arguments[0] * step.arguments[1] if step.function == "os_calloc" else step.arguments[-1]
            )
    return kept


def assert_library_and_model_agree(text: str, layout: Layout) -> None:
    """Compare traces, addresses, contents and the blocks that are on the heap at the end."""
    model = Model(layout)
    played = play(parse_script(text), model)
    model.check()
    run = run_native(built_library(layout), calls_of(played), header_bytes=HEADER_BYTES[layout])
    trace = format_trace(run.steps, heap_start=run.heap_start, return_code=run.return_code)
    assert trace == format_trace([one.step for one in played]), text
    assert run.findings == {}, text
    assert run.kept == expected_contents(played), text
    blocks = [(address - run.heap_start, size, status) for address, size, status in run.heap]
    status = {"free": 0, "allocated": 1}
    assert blocks == [(b.address - HEAP_START, b.size_bytes, status[b.status]) for b in model.heap], text

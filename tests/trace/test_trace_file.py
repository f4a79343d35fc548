"""A trace file gives back what was written, and whatever lies before the first damage."""

from __future__ import annotations

import resource
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told_lives import make_random, write_made

from heapsmith.errors import TraceError
from heapsmith.trace import (
    BORN,
    DIED,
    IS_BORN,
    IS_DIED,
    NO_OBJECT,
    UNKNOWN_OBJECT,
    Drops,
    End,
    EventBatch,
    FrameSymbols,
    Manifest,
    Mark,
    ModuleRecord,
    Operation,
    OperationFlag,
    ProcessEnd,
    ProcessStart,
    Symbol,
    ThreadRecord,
    TraceWriter,
    open_trace,
)
from heapsmith.trace.columns import decode_column, encode_column
from heapsmith.trace.layout import FRAME, MEMORY_SAMPLE, STACK

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = Manifest(command=["demo"], started_unix_ns=1, heapsmith="0.1.0", tick_ns=1)
START = ProcessStart(pid=7, ppid=1, name="demo", command=["demo"], started_ns=0)


@given(
    st.lists(
        st.integers(0, 2**64 - 1) | st.integers(0, 300) | st.sampled_from([252, 253, 65535, 65536]),
        max_size=60,
    )
)
def test_a_column_comes_back_as_it_was(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    data = b"before" + encode_column(array) + b"behind"
    decoded, offset = decode_column(memoryview(data), 6)
    assert decoded.tolist() == values
    assert data[offset:] == b"behind"


@st.composite
def event_columns(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Draw a batch that keeps the rules: who dies has been born and not yet died."""
    operations: list[int] = []
    died: list[int] = []
    live: list[int] = []
    born = 0
    for _ in range(draw(st.integers(1, 40))):
        operation = draw(st.sampled_from(list(Operation)))
        dying = NO_OBJECT
        if operation in DIED:
            dying = (
                live.pop(draw(st.integers(0, len(live) - 1)))
                if live and draw(st.booleans())
                else UNKNOWN_OBJECT
            )
        if operation in BORN:
            live.append(born)
            born += 1
        operations.append(operation | draw(st.sampled_from([0, OperationFlag.PYTHON])))
        died.append(dying)
    count = len(operations)
    is_born = IS_BORN[np.array(operations, np.uint8)]
    sizes = (
        np.array(draw(st.lists(st.integers(0, 2**40), min_size=count, max_size=count)), np.uint64) * is_born
    )
    slacks = (
        np.array(draw(st.lists(st.integers(0, 300), min_size=count, max_size=count)), np.uint64) * is_born
    )
    gaps = draw(st.lists(st.integers(0, 2**33), min_size=count, max_size=count))
    return {
        "operation": np.array(operations, np.uint8),
        "thread": np.array(draw(st.lists(st.integers(0, 2000), min_size=count, max_size=count)), np.uint32),
        "time_ns": np.cumsum(np.array(gaps, np.int64)),
        "size_bytes": sizes,
        "usable_bytes": sizes + slacks,
        "died": np.array(died, np.int64),
        "alignment": np.array(draw(st.lists(st.integers(0, 40), min_size=count, max_size=count)), np.uint8)
        * is_born,
        "stack": np.array(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), np.uint32)
        * is_born,
    }


@settings(max_examples=60)
@given(event_columns())
def test_events_come_back_as_they_were(columns: dict[str, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.heap")
        with TraceWriter(path, MANIFEST) as writer:
            process = writer.add_process(START)
            writer.write_events(process, **columns)
            writer.write_events(process, **columns | {"died": np.full_like(columns["died"], UNKNOWN_OBJECT)})
        first, second = open_trace(path).batches()
    is_died = IS_DIED[columns["operation"]]
    for name, values in columns.items():
        assert getattr(first, name).tolist() == values.tolist(), name
    births = int(IS_BORN[columns["operation"]].sum())
    assert first.born[first.born != NO_OBJECT].tolist() == list(range(births))
    assert second.born[second.born != NO_OBJECT].tolist() == list(range(births, 2 * births))
    assert second.first_event == len(first)
    assert set(second.died[is_died]) <= {UNKNOWN_OBJECT}
    assert set(second.died[~is_died]) <= {NO_OBJECT}


def write_demo(path: Path) -> None:
    with TraceWriter(path, MANIFEST) as writer:
        process = writer.add_process(START)
        writer.write_threads(process, [ThreadRecord(index=0, tid=7, name="demo")])
        writer.write_modules([ModuleRecord(path="/bin/demo", build_id="ab12")])
        writer.write_strings(["grow", "demo.py"])
        frames = np.zeros(2, FRAME)
        frames[0] = 1, 0, 0x1234, 0
        frames[1] = 2, 0, 1, 12
        assert writer.write_frames(frames) == 1
        stacks = np.zeros(2, STACK)
        stacks[0] = 0, 2
        stacks[1] = 1, 1
        assert writer.write_stacks(stacks) == 1
        for batch in range(3):
            count = 1000
            operation = np.tile(np.array([Operation.ALLOCATE, Operation.FREE], np.uint8), count // 2)
            died = np.full(count, NO_OBJECT)
            died[1::2] = batch * count // 2 + np.arange(count // 2)
            sizes = np.where(operation == Operation.ALLOCATE, 100 + np.arange(count) % 7, 0).astype(np.uint64)
            writer.write_events(
                process,
                operation=operation,
                thread=np.zeros(count, np.uint32),
                time_ns=batch * 10_000 + np.arange(count),
                size_bytes=sizes,
                usable_bytes=sizes + (8 - sizes % 8) * (sizes > 0),
                died=died,
                stack=np.where(operation == Operation.ALLOCATE, 2, 0).astype(np.uint32),
            )
        samples = np.zeros(1, MEMORY_SAMPLE)
        samples[0] = 5, 4096, 4096, 1
        writer.write_memory(process, samples)
        writer.write_drops(process, Drops(events=3, since_ns=1, until_ns=2, reason="full ring"))
        writer.write_marks(process, [Mark(time_ns=9, name="here")])
        writer.write_symbols([FrameSymbols(1, [Symbol("main", "demo.c", 3)])])
        writer.end_process(process, ProcessEnd(ended_ns=30_000, exit_code=0))
        writer.write_end(End(ended_ns=30_000, events=3000))


def check_demo(path: Path) -> None:
    trace = open_trace(path)
    assert trace.damage is None
    assert trace.end == End(ended_ns=30_000, events=3000)
    assert trace.events == 3000
    assert trace.dropped_events == 3
    (process,) = trace.processes
    assert process.start == START
    assert process.end == ProcessEnd(ended_ns=30_000, exit_code=0)
    assert process.threads[0].name == "demo"
    assert process.marks == [Mark(time_ns=9, name="here")]
    assert process.memory["resident_bytes"].tolist() == [4096]
    assert trace.frames_of(2) == [1, 2]
    assert trace.modules[int(trace.frames[1]["a"])].build_id == "ab12"
    assert trace.strings[trace.frames[2]["a"]] == "grow"
    assert trace.symbols[1] == [Symbol("main", "demo.c", 3)]
    assert sum(int(batch.size_bytes.sum()) for batch in trace.batches()) == 154_491


def test_a_whole_trace_comes_back(tmp_path: Path) -> None:
    write_demo(tmp_path / "x.heap")
    check_demo(tmp_path / "x.heap")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.heap")), ids=lambda path: path.stem)
def test_files_of_every_version_stay_readable(path: Path) -> None:
    check_demo(path)


def read_all(path: Path) -> list[EventBatch]:
    return list(open_trace(path).batches())


def test_a_file_cut_anywhere_yields_what_is_before_the_cut(tmp_path: Path) -> None:
    whole = tmp_path / "x.heap"
    write_demo(whole)
    data = whole.read_bytes()
    cut = tmp_path / "cut.heap"
    events_before = 0
    for length in range(0, len(data), 7):
        cut.write_bytes(data[:length])
        try:
            trace = open_trace(cut)
        except TraceError as error:
            assert length < 400, error
            continue
        events = sum(len(batch) for batch in trace.batches())
        assert events == trace.events >= events_before
        assert trace.end is None
        if trace.damage is not None:
            assert trace.damage.offset_bytes + trace.damage.lost_bytes == length
        events_before = events
    assert events_before == 3000


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_damaged_byte_is_never_silent(
    tmp_path_factory: pytest.TempPathFactory, place: float, bits: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.heap"
    write_demo(path)
    data = bytearray(path.read_bytes())
    offset = int(place * len(data))
    data[offset] ^= bits
    path.write_bytes(data)
    try:
        trace = open_trace(path)
    except TraceError:
        return
    if offset in range(12, 16):  # flags that no version uses yet
        return
    assert trace.damage is not None
    assert trace.damage.offset_bytes <= offset
    assert sum(len(batch) for batch in trace.batches()) == trace.events
    if trace.damage.lost_events is not None:
        assert trace.events + trace.damage.lost_events <= 3000


def test_what_is_no_trace_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.heap"
    for content in (b"", b"hello", b"\x93HEAP\r\n\x1a", b"\x93HEAP\r\n\x1a" + struct.pack("<II", 99, 0)):
        path.write_bytes(content)
        with pytest.raises(TraceError, match=r"x\.heap"):
            open_trace(path)
    with pytest.raises(TraceError, match="No such file"):
        open_trace(tmp_path / "none.heap")


def test_a_batch_that_finds_no_room_is_written_as_far_as_there_is_room(tmp_path: Path) -> None:
    made = make_random(1, count=20_000)
    whole = write_made(tmp_path / "whole.heap", [made], batch=20_000)
    (expected,) = open_trace(whole).batches()
    room = whole.stat().st_size * 2 // 3
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError):
            write_made(tmp_path / "cut.heap", [made], batch=20_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    trace = open_trace(tmp_path / "cut.heap")
    assert trace.damage is None
    assert trace.events > 10_000
    at = 0
    for batch in trace.batches():
        for name in ("operation", "thread", "time_ns", "size_bytes", "usable_bytes", "died", "born", "stack"):
            assert (getattr(batch, name) == getattr(expected, name)[at : at + len(batch)]).all(), name
        at += len(batch)
    assert at == trace.events

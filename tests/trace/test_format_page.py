"""The page about the format is enough to write a reader: the one it prints reads what ours reads."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from told_lives import make_random, write_made

from heapsmith.trace import IS_BORN, IS_DIED, Operation, open_trace
from heapsmith.trace.layout import CHUNK_HEADER, FILE_HEADER, Kind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "trace-format.md"
GOLDEN = Path(__file__).parent / "golden" / "version-1.heap"


def printed_reader() -> dict[str, Any]:
    """Run the page's example, which imports only json, struct, zlib and zstandard."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert set(re.findall(r"^import (.*)$", code, re.MULTILINE)) == {"json, struct, zlib", "zstandard"}
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def ours(path: Path) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for batch in open_trace(path).batches():
        for i in range(len(batch)):
            code = int(batch.operation[i])
            event: dict[str, Any] = {
                "time_ns": int(batch.time_ns[i]),
                "operation": code,
                "thread": int(batch.thread[i]),
            }
            if IS_DIED[code]:
                event["died"] = int(batch.died[i]) if batch.died[i] >= 0 else None
            if IS_BORN[code]:
                event |= {
                    "born": int(batch.born[i]),
                    "size": int(batch.size_bytes[i]),
                    "usable": int(batch.usable_bytes[i]),
                    "alignment": int(batch.alignment[i]),
                    "stack": int(batch.stack[i]),
                }
            found.append((batch.process, event))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_reader_that_the_page_prints_reads_what_ours_reads(tmp_path: Path, seed: int) -> None:
    processes = [make_random(seed), make_random(seed + 50, pid=8)]
    path = write_made(tmp_path / "x.heap", processes, batch=70)
    theirs = list(printed_reader()["read"](path))
    assert theirs == ours(path)
    assert len(theirs) == 600


def test_the_printed_reader_reads_the_golden_file() -> None:
    assert list(printed_reader()["read"](GOLDEN)) == ours(GOLDEN)


def test_tables_of_frames_and_stacks_are_columns_as_the_page_says() -> None:
    names = printed_reader()
    trace = open_trace(GOLDEN)
    seen = set()
    for kind, _, payload in names["chunks"](GOLDEN.read_bytes()):
        seen.add(kind)
        if kind in (7, 8):
            table, columns, at = (trace.frames, 4, 0) if kind == 7 else (trace.stacks, 2, 0)
            for column in range(columns):
                values, at = names["column"](payload, at)
                assert [0, *values] == table[table.dtype.names[column]].tolist()
            assert at == len(payload)
        if kind == 10:
            assert list(struct.iter_unpack("<4Q", payload)) == [
                tuple(row) for row in trace.processes[0].memory.tolist()
            ]
        if kind == 13:
            assert json.loads(payload) == [[1, [["main", "demo.c", 3]]]]
    assert seen == set(Kind) - {Kind.NOTES}  # younger than the file


def test_the_page_tells_the_layout_that_the_code_has() -> None:
    text = PAGE.read_text()
    header = text[text.index("## A chunk") : text.index("## Kinds")]
    for name in CHUNK_HEADER.names or ():
        dtype, offset = CHUNK_HEADER.fields[name][:2]
        assert re.search(rf"\| {offset} \| {dtype.itemsize} \| `{name}` \|", header), name
    assert FILE_HEADER.itemsize == 16
    for kind in Kind:
        assert re.search(rf"\| {kind.value} \| {kind.name.lower().replace('_', ' ')} \|", text), kind
    table = text[text.index("| operation | what | death | birth |") :]
    for operation in Operation:
        row = next(line for line in table.splitlines() if line.startswith(f"| {operation.value} |"))
        cells = [cell.strip() for cell in row.split("|")]
        assert (cells[3] == "yes", cells[4] == "yes") == (
            bool(IS_DIED[operation]),
            bool(IS_BORN[operation]),
        ), row

"""The JSON documents: one on standard output and nothing else, with the keys that were promised."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

Heapsmith = Callable[..., subprocess.CompletedProcess[str]]

SPREAD: Final = {"median": 1.0, "low": 1.0, "high": 1.0}
SIZE_CLASS: Final = dict.fromkeys(
    ("class_bytes", "allocations", "frees", "live_blocks", "live_bytes", "live_bytes_peak")
)
PROCESS: Final = dict.fromkeys(
    (
        *("pid", "ppid", "name", "command", "allocator", "exit", "live_bytes", "live_bytes_peak"),
        *("live_bytes_peak_error_bound", "live_blocks", "requested_live_bytes", "mapped_bytes"),
        *("mapped_bytes_peak", "limit_bytes", "warn_at_bytes", "allocations", "frees", "remote_frees"),
        *("failures", "last_failed_bytes", "resident_bytes", "resident_bytes_peak"),
    )
)
WHOLE: Final = PROCESS | {
    "size_classes": [SIZE_CLASS],
    "threads": [{"tid": 1, "name": "", "alive": True, "size_classes": [SIZE_CLASS]}],
}
INFO: Final = WHOLE | dict.fromkeys(
    (
        *("max_total_heap_size", "current_allocated_heap_size", "peak_allocated_heap_size", "limit_source"),
        *("limit_effect", "available_bytes", "largest_block_bytes", "committed_bytes", "reserved_bytes"),
        *("metadata_bytes", "free_cached_bytes", "python", "exact"),
    )
)
PLACE: Final = dict.fromkeys(
    ("stack", "allocations", "allocated_bytes", "live_bytes_at_peak", "live_bytes_at_exit")
)
RECORDED: Final = dict.fromkeys(
    (
        *("pid", "name", "duration_s", "allocations", "frees", "allocated_bytes", "live_bytes_peak"),
        *("live_bytes_peak_at_s", "live_bytes_at_exit", "temporary_allocations"),
    )
)
TRIED: Final = {
    "schema": "",
    "results": [
        {"allocator": "", "runs": 1, "failed": None}
        | dict.fromkeys(("time_s", "resident_bytes_peak", "page_faults"), SPREAD)
    ],
    "recommendation": "",
}
CASE: Final = {"name": "", "allocator": "", "time_ratio": 1.0, "resident_ratio": 1.0} | dict.fromkeys(
    ("time_s", "resident_bytes_peak"), SPREAD
)
RUN: Final = {
    "schema": "",
    "command": [],
    "exit": {"code": 0, "signal": None},
    "processes": [WHOLE | {"exit": {"code": 0, "signal": None, "oom_killed": False}}],
}
DOCUMENTS: Final[dict[str, Any]] = {
    "run --json - --no-summary -- sort /dev/null": RUN,
    "ps --json": [PROCESS],
    "info PID --json": INFO,
    "info PID --set warn-at=1GiB --json": INFO,
    "report TRACE --format json": {"schema": "", "events": 1, "dropped_events": 0, "processes": [RECORDED]},
    "compare --json -a system -a small --runs 1 -- true": TRIED,
    "replay TRACE --allocator system --json": TRIED,
    "check --json alignment": {
        "schema": "",
        "allocator": "",
        "checks": [{"name": "", "verdict": "", "detail": ""}],
    },
    "bench --json startup --runs 1 --allocator small": {
        "schema": "",
        "machine": {},
        "suites": [{"name": "", "cases": [CASE]}],
    },
    "allocators --json": [{"name": "", "version": None, "path": None, "fields": {}, "knobs": []}],
}
"""Command and shape: what is there, and what the first of a list has."""


@pytest.fixture(scope="module")
def words_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A watched process that waits, and a small recording."""
    heapsmith = [sys.executable, "-m", "heapsmith"]
    trace = tmp_path_factory.mktemp("documents") / "a.heap"
    recorded = [*heapsmith, "record", "-o", str(trace), "--", sys.executable, "-c", ""]
    subprocess.run(recorded, check=True, capture_output=True)
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    watched = [*heapsmith, "run", "--no-summary", "--", sys.executable, "-c", code]
    with subprocess.Popen(watched, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None and program.stdout is not None
        yield {"PID": program.stdout.readline().strip(), "TRACE": str(trace)}
        program.stdin.close()


def missing(document: Any, shape: Any, where: str = "") -> list[str]:
    """Name what the shape has and the document has not."""
    if isinstance(shape, list):
        if not isinstance(document, list) or (shape and not document):
            return [f"{where} is no list, or empty"]
        return missing(document[0], shape[0], f"{where}[0]") if shape else []
    if isinstance(shape, dict):
        if not isinstance(document, dict):
            return [f"{where} is no object"]
        return [
            problem
            for key, inner in shape.items()
            for problem in (
                missing(document[key], inner, f"{where}.{key}") if key in document else [f"{where}.{key}"]
            )
        ]
    return []


@pytest.mark.parametrize("line", DOCUMENTS)
def test_a_document_has_the_promised_keys_and_stands_alone(
    heapsmith: Heapsmith, words_for: dict[str, str], line: str
) -> None:
    done = heapsmith(*(words_for.get(word, word) for word in line.split()))
    assert done.returncode == 0, done.stderr
    assert missing(json.loads(done.stdout), DOCUMENTS[line]) == []


def test_recorded_places_have_the_innermost_frame_first(heapsmith: Heapsmith, tmp_path: Path) -> None:
    trace = tmp_path / "a.heap"
    code = "def inner(): return bytearray(3 << 20)\ndef outer(): return inner()\nkept = outer()"
    heapsmith("record", "-o", str(trace), "--stacks", "all", "--", sys.executable, "-c", code)
    document = json.loads(heapsmith("report", str(trace), "--json").stdout)
    places = document["processes"][0]["places"]
    assert missing(places, [PLACE]) == []
    largest = max(places, key=lambda place: place["live_bytes_at_peak"])
    named = [frame.split(" ")[0] for frame in largest["stack"] if frame.startswith(("inner ", "outer "))]
    assert named == ["inner", "outer"]

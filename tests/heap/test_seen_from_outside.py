"""A forged heap is seen from outside without being asked: what it holds, what it took, and how full its spans are."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heapsmith.lab.subjects import resolve_subject

PRESETS = ["default", "small", "pow2", "low-latency", "hardened"]
_SOURCE = Path(__file__).parent / "native" / "holds.c"
_BLOCKS, _BYTES = 5000, 700


@pytest.fixture(scope="module")
def holds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler on this machine")
    program = tmp_path_factory.mktemp("holds") / "holds"
    words = [compiler, "-O1", "-fno-builtin", "-pthread", str(_SOURCE), "-o", str(program)]
    subprocess.run(words, check=True)
    return program


@contextlib.contextmanager
def running(program: Path, preset: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "LD_PRELOAD": str(resolve_subject(preset).library)}
    with subprocess.Popen(
        [str(program), *map(str, words)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.communicate(timeout=30)
    assert process.returncode == 0


def heapsmith(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heapsmith", *words], capture_output=True, text=True, check=False
    )


def info(pid: int) -> dict[str, Any]:
    return json.loads(heapsmith("info", str(pid), "--json").stdout)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_program_preloaded_by_hand_is_seen_with_live_bytes_classes_and_gauges(
    holds: Path, preset: str
) -> None:
    with running(holds, preset, _BLOCKS, _BYTES, 0) as process:
        seen = info(process.pid)
    asked_bytes = _BLOCKS * _BYTES
    bound_bytes = seen["live_bytes_error_bound"]
    assert bound_bytes < 1 << 20
    usable_bytes = 1024 if preset == "pow2" else 704
    room_bytes = bound_bytes + _BLOCKS * 64 + (1 << 20)
    assert asked_bytes - bound_bytes <= seen["live_bytes"] <= _BLOCKS * usable_bytes + room_bytes
    [row] = [row for row in seen["size_classes"] if row["live_blocks"] >= _BLOCKS * 9 // 10]
    assert abs(row["live_blocks"] - _BLOCKS) <= max(64, bound_bytes // _BYTES)
    assert row["class_bytes"] >= _BYTES
    assert seen["committed_bytes"] >= asked_bytes
    assert seen["reserved_bytes"] >= seen["committed_bytes"]
    assert 0 < seen["metadata_bytes"] < seen["committed_bytes"]
    assert seen["free_cached_bytes"] is not None
    assert 0 <= seen["external_fragmentation_ratio"] <= 1
    assert "live_bytes" not in seen["exact"] or bound_bytes == 0
    assert any("counts by the batch" in note for note in seen["notes"])


def test_blocks_of_ended_threads_stay_seen_and_what_threads_freed_does_not(holds: Path) -> None:
    with running(holds, "default", _BLOCKS, _BYTES, 4) as process:
        seen = info(process.pid)
    [row] = [row for row in seen["size_classes"] if row["live_blocks"] > _BLOCKS]
    # Threads that have ended hold nothing back: these are exact.
    assert row["live_blocks"] == 4 * _BLOCKS
    assert seen["threads_started"] == 5
    assert {thread["name"] for thread in seen["threads"] if not thread["alive"]} == {"ended threads"}


def test_a_forked_child_is_seen_as_itself_with_what_it_inherited(holds: Path) -> None:
    with running(holds, "default", _BLOCKS, _BYTES, 0, "fork") as process:
        # The child answers first; it and its parent wait in turn.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        [child] = [int(word) for word in children]
        seen = info(child)
        listed = {row["pid"] for row in json.loads(heapsmith("ps", "--json").stdout)}
    assert {process.pid, child} <= listed
    assert seen["live_blocks"] >= 2 * _BLOCKS - 64
    assert "inherited at fork" in {thread["name"] for thread in seen["threads"]}


def test_spans_are_shown_by_class_and_by_how_full_they_are(tmp_path: Path, holds: Path) -> None:
    program = (
        "import time\n"
        "keep = [bytes(1000) for _ in range(40000)]\n"
        "time.sleep(.3)\n"
        "del keep[::2]\n"
        "time.sleep(.3)\n"
        "more = [bytes(1 << 20) for _ in range(8)]\n"
    )
    words = ["run", "--allocator", "default", "--no-summary", "--json", str(tmp_path / "run.json"), "--"]
    environment = {**os.environ, "PYTHONMALLOC": "malloc"}
    subprocess.run(
        [sys.executable, "-m", "heapsmith", *words, sys.executable, "-S", "-c", program],
        check=True,
        env=environment,
    )
    [process] = json.loads((tmp_path / "run.json").read_text())["processes"]
    assert process["live_bytes_error_bound"] == 0
    assert "live_bytes" in process["exact"]
    assert process["committed_bytes"] > 0
    # At the end Python has let go of its objects; rows are there all the same, and add up.
    for row in process["spans"]:
        assert sum(row["spans_by_occupancy"]) == row["spans"]
        assert row["kind"] in ("blocks", "large", "dirty", "purged")
    assert sum(row["span_bytes"] for row in process["spans"]) <= process["reserved_bytes"]
    with running(holds, "default", 20000, 2000, 0) as held:
        seen = info(held.pid)
    [row] = [row for row in seen["spans"] if row["class_bytes"] == 2048]
    # A program that fills its heap in one go and rests is shown as it was at the last look.
    assert 0.2 * 20000 < row["used_blocks"] <= 20000
    assert row["spans_by_occupancy"][-1] > 0.9 * row["spans"]
    shown = heapsmith("info", str(os.getpid()))
    assert shown.returncode == 2  # this one is not watched


def test_a_limit_from_outside_holds_in_a_program_preloaded_by_hand(holds: Path) -> None:
    with running(holds, "default", 10, _BYTES, 0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = list[str]()
        for wish in (None, "limit=16MiB", "limit=none"):
            if wish is not None:
                heapsmith("info", str(process.pid), "--set", wish)
            process.stdin.write("more\n")
            process.stdin.flush()
            answers.append(process.stdout.readline().strip())
        seen = info(process.pid)
    assert answers == ["had", "refused", "had"]
    assert seen["refused"] == 1
    assert seen["last_failed_bytes"] == 64 << 20


def test_a_library_that_is_only_loaded_shows_nothing() -> None:
    program = (
        "import ctypes, os, sys\n"
        "ctypes.CDLL(sys.argv[1])\n"
        "print([os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if int(n) > 900])\n"
    )
    library = str(resolve_subject("default").library)
    result = subprocess.run(
        [sys.executable, "-c", program, library], capture_output=True, text=True, check=True
    )
    assert "heapsmith" not in result.stdout

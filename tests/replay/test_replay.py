"""A replay makes the recorded calls, in the recorded order as far as it matters, and counts only what is the heap's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapsmith.errors import HeapsmithError, TraceError
from heapsmith.lab.replay.plan import Part, Plan, make_plan
from heapsmith.lab.replay.player import Played, as_replay, play
from heapsmith.lab.replay.speed import Speed, read_speed
from heapsmith.native import library
from heapsmith.peers.candidate import Candidate, read_candidate
from heapsmith.trace import Manifest, Operation, open_trace
from made_traces import Event, make_events, write_trace


def compute_live(events: list[Event]) -> tuple[int, int]:
    """Follow the live bytes in the plainest way: their peak, and what is left."""
    sizes: dict[int, int] = {}
    born = live = peak = 0
    for operation, _, size, dead, _ in events:
        if dead >= 0:
            live -= sizes.pop(dead)
        if operation != Operation.FREE:
            sizes[born] = size
            born += 1
            live += size
            peak = max(peak, live)
    return peak, live


def play_on(plan: Plan, candidate: Candidate | None = None) -> Played:
    played = play(as_replay(plan), candidate or read_candidate("glibc"), dict(os.environ), 20)
    assert played.failed is None
    return played


def find_peak(plan: Plan, *words: str) -> int:
    """Find the most that a player is resident with, in bytes: it has played, and waits for its answer to be read."""
    command = [library("heapsmith_replay"), plan.path, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, pipesize=4096) as player:
        assert player.stdout is not None
        player.stdout.read(1)
        status = Path(f"/proc/{player.pid}/status").read_text()
        player.stdout.read()
    assert player.returncode == 0
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    threads=st.integers(1, 6),
    count=st.integers(2500, 6000),
    batch=st.integers(100, 5000),
)
def test_every_call_is_made_whoever_frees_what(
    tmp_path_factory: pytest.TempPathFactory, seed: int, threads: int, count: int, batch: int
) -> None:
    events = make_events(count, seed=seed, threads=threads)
    path = write_trace(tmp_path_factory.mktemp("t") / "x.heap", events, batch=batch)
    with make_plan(open_trace(path)) as plan:
        played = play_on(plan)
    assert plan.operations == len(events)
    assert plan.threads == len({event[1] for event in events})
    assert plan.live_bytes_peak == compute_live(events)[0]
    assert played.refused == 0


def test_resident_bytes_are_those_of_the_blocks(tmp_path: Path) -> None:
    mebibytes = 24
    blocks = mebibytes * 256
    events: list[Event] = [(Operation.ALLOCATE, 0, 4096 - 16, -1, 0)] * blocks
    events += [(Operation.FREE, 0, 0, number, 0) for number in range(blocks)]
    with make_plan(open_trace(write_trace(tmp_path / "x.heap", events))) as plan:
        course = play_on(plan).course
    assert course is not None
    peak = int(course.resident_bytes.max())
    assert mebibytes * 2**20 <= peak <= 1.02 * mebibytes * 2**20 + 2**18
    # Half way up, half of it is there: the course follows the events.
    half = int(np.interp(blocks / 2, course.orders, course.resident_bytes))
    assert half == pytest.approx(peak / 2, rel=0.05)


def test_a_block_that_another_thread_frees_is_waited_for(tmp_path: Path) -> None:
    # Thread 1 frees what thread 0 allocates, as soon as the trace says; places are used again and again.
    events: list[Event] = []
    for number in range(40_000):
        events.append((Operation.ALLOCATE, number % 2, 64, -1, 0))
        events.append((Operation.FREE, 1 - number % 2, 0, number, 0))
    with make_plan(open_trace(write_trace(tmp_path / "x.heap", events, batch=8192))) as plan:
        played = play_on(plan)
    assert plan.live_bytes_peak == 64
    assert played.course is not None
    assert played.course.resident_bytes.max() < 8 * 2**20


def test_threads_end_when_they_did(tmp_path: Path) -> None:
    # 60 threads one after another; were they all alive at once, each would have an arena of its own.
    events: list[Event] = []
    born = 0
    for thread in range(1, 61):
        events.append((Operation.THREAD_START, thread, 0, -1, 0))
        for _ in range(200):
            events.append((Operation.ALLOCATE, thread, 1000, -1, 0))
            events.append((Operation.FREE, thread, 0, born, 0))
            born += 1
        events.append((Operation.THREAD_END, thread, 0, -1, 0))
    with make_plan(open_trace(write_trace(tmp_path / "x.heap", events))) as plan:
        played = play_on(plan)
    assert plan.threads == 60
    assert played.course is not None
    assert played.course.resident_bytes[-1] < 2**20


@pytest.mark.parametrize(("speed", "least_s"), [("1x", 0.5), ("2x", 0.25), ("100ms", 0.3)])
def test_a_paced_replay_takes_its_time(tmp_path: Path, speed: str, least_s: float) -> None:
    events = make_events(3000, threads=3)
    times = [i * 66_000 for i in range(1500)] + [400_000_000 + i * 66_000 for i in range(1500)]
    path = write_trace(tmp_path / "x.heap", events, times_ns=times)
    with make_plan(open_trace(path), speed=read_speed(speed)) as plan:
        replay = as_replay(plan)
        began = time.monotonic()
        played = play(replay, read_candidate("glibc"), dict(os.environ), 20)
    assert played.failed is None
    assert least_s * 0.95 < played.wall_s <= time.monotonic() - began
    assert played.course is not None
    # Who rests looks at the memory meanwhile.
    assert np.diff(played.course.times_s).max() < 0.2


def test_a_part_begins_with_what_lived_before(tmp_path: Path) -> None:
    events = make_events(4000)
    path = write_trace(tmp_path / "x.heap", events, batch=700)
    with make_plan(open_trace(path), part=Part(0, 2000)) as first:
        assert first.operations == 2000
        assert first.live_bytes_peak == compute_live(events[:2000])[0]
    peak_before, live_then = compute_live(events[:2500])
    with make_plan(open_trace(path), part=Part(2500)) as second:
        played = play_on(second)
    assert live_then <= second.live_bytes_peak <= max(peak_before, compute_live(events)[0])
    assert 1500 < second.operations < 1500 + 700
    assert second.live_bytes[-1] == pytest.approx(compute_live(events)[1], rel=0.02)
    assert played.refused == 0


def test_what_cannot_be_replayed_is_refused_in_one_line(tmp_path: Path) -> None:
    sampled = Manifest(command=["x"], started_unix_ns=0, heapsmith="0", sample_every_bytes=4096)
    path = write_trace(tmp_path / "sampled.heap", make_events(3000), manifest=sampled)
    with pytest.raises(TraceError, match="only samples"):
        make_plan(open_trace(path))
    path = write_trace(tmp_path / "short.heap", make_events(100))
    with pytest.raises(TraceError, match="too short"):
        make_plan(open_trace(path))
    path = write_trace(tmp_path / "unsized.heap", [(Operation.ALLOCATE, 0, 0, -1, 0)] * 3000)
    with pytest.raises(TraceError, match="no sizes"):
        make_plan(open_trace(path))
    with pytest.raises(TraceError, match="no process 7"):
        make_plan(open_trace(path), pid=7)
    for text in ("fast", "0x", "-1", ""):
        with pytest.raises(HeapsmithError, match="no pace"):
            read_speed(text)
    assert read_speed("1x") == Speed(factor=1)


def test_the_verb_prints_one_document(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "x.heap", make_events(5000, threads=2))
    words = [sys.executable, "-m", "heapsmith", "replay", str(path), "-a", "glibc", "-a", "glibc:arena_max=1"]
    done = subprocess.run(
        [*words, "--runs", "1", "--json", "-o", str(tmp_path / "x.html")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["schema"] == "heapsmith.replay/1"
    assert [result["allocator"] for result in document["results"]] == ["glibc", "glibc:arena_max=1"]
    first = document["results"][0]
    assert first["runs"] == 1
    assert first["resident_bytes_peak"]["median"] > document["requested_live_bytes_peak"] > 0
    assert first["cpu_s_per_call"]["median"] > 0
    assert first["failed"] is None
    assert "requested live" in (tmp_path / "x.html").read_text()


def test_a_plan_larger_than_memory_is_played_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    for number in range(400_000):
        events += [(Operation.ALLOCATE, 0, 64, -1, 0), (Operation.FREE, 0, 0, number, 0)]
    trace = open_trace(write_trace(tmp_path / "x.heap", events, batch=20_000))
    monkeypatch.setattr("heapsmith.lab.replay.plan.available_bytes", lambda: 1 << 20)
    with make_plan(trace, folder=tmp_path) as plan:
        plan_bytes = plan.path.stat().st_size
        monkeypatch.setattr("heapsmith.lab.replay.player.available_bytes", lambda: plan_bytes)
        streamed = play_on(plan)
        monkeypatch.setattr("heapsmith.lab.replay.player.available_bytes", lambda: 4 * plan_bytes)
        whole = play_on(plan)
        whole_bytes, streamed_bytes = (find_peak(plan, *words) for words in ([], ["--stream"]))
    assert (streamed.streamed, whole.streamed) == (True, False)
    assert streamed_bytes < whole_bytes - plan_bytes // 2


def test_a_library_that_kills_its_program_is_out_with_its_signal(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text("#include <stdlib.h>\nvoid *malloc(size_t n) { (void)n; abort(); }\n")
    broken = tmp_path / "libbad.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", broken, source], check=True)
    path = write_trace(tmp_path / "x.heap", make_events(3000))
    with make_plan(open_trace(path)) as plan:
        bad = Candidate("bad", "bad", library=str(broken))
        played = play(as_replay(plan), bad, dict(os.environ), 20)
    assert "SIGABRT" in (played.failed or "")

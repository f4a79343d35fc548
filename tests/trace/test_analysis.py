"""One pass over the events gives what a slow and simple reading of them gives."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import told_lives
from hypothesis import given, settings
from hypothesis import strategies as st
from told_lives import MICROSECOND, MadeProcess, make_random, write_made

from heapsmith.trace import IS_BORN, IS_DIED, Operation, Trace, open_trace
from heapsmith.trace.analysis import DOUBLINGS, analyse, analyse_process, choose_moments
from heapsmith.trace.event_pass import EventPass
from heapsmith.trace.layout import OPERATION_MASK
from heapsmith.trace.process_figures import ProcessFigures

STACKS = 2


def simulate(trace: Trace, process: int, moments: list[int]) -> dict[str, object]:
    """Read the events one at a time, with a dictionary for what is live."""
    live: dict[int, tuple[int, int, int, int, int, bool, bool]] = {}
    heap = peak = peak_at = usable = remote = temporary = unknown = 0
    held: Counter[tuple[int, bool]] = Counter()
    at_peak: Counter[tuple[int, bool]] = Counter()
    allocations: Counter[tuple[int, bool]] = Counter()
    lifetimes: Counter[int] = Counter()
    own_peak: dict[tuple[int, bool], int] = defaultdict(int)
    last: dict[int, int] = {}
    snapshots: list[dict[tuple[int, bool], int]] = []
    for batch in trace.batches(process):
        for i in range(len(batch)):
            time, flags, thread = int(batch.time_ns[i]), int(batch.operation[i]), int(batch.thread[i])
            while len(snapshots) < len(moments) and time >= moments[len(snapshots)]:
                snapshots.append({key: value for key, value in held.items() if value})
            operation = flags & OPERATION_MASK
            number = int(batch.died[i])
            if IS_DIED[flags] and number in live:
                size, use, key, born_at, owner, mapped, _ = live.pop(number)
                held[key, mapped] -= size
                if not mapped:
                    heap, usable = heap - size, usable - use
                    remote += owner != thread
                    lifetimes[(time - born_at).bit_length()] += 1
                    if operation == Operation.FREE and owner == thread and last.get(thread) == number:
                        temporary += 1
            elif IS_DIED[flags] and operation != Operation.UNMAP:
                unknown += 1
            if IS_BORN[flags]:
                size, use = int(batch.size_bytes[i]), int(batch.usable_bytes[i])
                key, mapped = int(batch.stack[i]), operation == Operation.MAP
                live[int(batch.born[i])] = size, use, key, time, thread, mapped, False
                held[key, mapped] += size
                allocations[key, mapped] += 1
                own_peak[key, mapped] = max(own_peak[key, mapped], held[key, mapped])
                if not mapped:
                    last[thread] = int(batch.born[i])
                    heap, usable = heap + size, usable + use
                    if heap > peak:
                        peak, peak_at, at_peak = heap, time, held.copy()
    while len(snapshots) < len(moments):
        snapshots.append({key: value for key, value in held.items() if value})
    return {
        "peak": peak, "peak_at_s": peak_at * 1e-9, "heap": heap, "usable": usable, "remote": remote, "temporary": temporary,
        "unknown": unknown, "held": {key: value for key, value in held.items() if value},
        "at_peak": {key: value for key, value in at_peak.items() if value}, "allocations": dict(allocations),
        "lifetimes": dict(lifetimes), "own_peak": dict(own_peak), "snapshots": snapshots,
    }  # fmt: skip


def by_stack(figures: ProcessFigures, column: str) -> dict[tuple[int, bool], float]:
    places = figures.places
    assert places is not None
    rows = zip(places.stack.tolist(), places.mapped.tolist(), getattr(places, column).tolist(), strict=True)
    return {(stack, mapped): value for stack, mapped, value in rows if value}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 7, 50, 1000]), count=st.integers(1, 400))
def test_every_figure_is_that_of_a_simple_reading(seed: int, batch: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_made(Path(folder, "x.heap"), [make_random(seed, count)], batch=batch)
        trace = open_trace(path)
        moments = choose_moments(trace, 9)
        figures = analyse_process(trace, 0, moments_ns=moments, bins=17)
        simple = simulate(trace, 0, moments)
    assert figures.live_bytes_peak == simple["peak"]
    if simple["peak"]:
        assert figures.live_bytes_peak_at_s == pytest.approx(simple["peak_at_s"])
    assert figures.live_bytes_at_exit == simple["heap"]
    assert figures.usable_live_bytes_at_exit == simple["usable"]
    assert figures.remote_frees == simple["remote"]
    assert figures.temporary_allocations == simple["temporary"]
    assert figures.unknown_frees == simple["unknown"]
    assert figures.contradictions == 0
    assert figures.unreadable == ""
    assert by_stack(figures, "live_bytes_at_exit") == simple["held"]
    assert by_stack(figures, "live_bytes_at_peak") == simple["at_peak"]
    assert by_stack(figures, "allocations") == simple["allocations"]
    own_peak = simple["own_peak"]
    assert isinstance(own_peak, dict)
    assert by_stack(figures, "live_bytes_peak") == {key: value for key, value in own_peak.items() if value}
    assert figures.lifetimes is not None
    blocks = figures.lifetimes.blocks_by_time
    assert {int(i): int(blocks[i]) for i in np.flatnonzero(blocks)} == simple["lifetimes"]
    assert figures.time_line is not None
    assert figures.time_line.live_bytes_highest.max(initial=0) == simple["peak"]
    assert figures.time_line.live_bytes[-1] == simple["heap"]
    assert figures.time_line.allocations.sum() == figures.allocations
    assert sum(row.live_bytes_at_peak for row in figures.size_classes) == simple["peak"]
    assert sum(row.live_bytes_at_exit for row in figures.size_classes) == simple["heap"]
    assert sum(thread.live_bytes_at_exit for thread in figures.threads) == simple["heap"]
    snapshots = simple["snapshots"]
    assert isinstance(snapshots, list)
    assert figures.moments is not None and figures.places is not None
    for moment, wanted in enumerate(snapshots):
        held = figures.moments.at(moment, len(figures.places))
        rows = zip(figures.places.stack.tolist(), figures.places.mapped.tolist(), held.tolist(), strict=True)
        assert {(stack, mapped): value for stack, mapped, value in rows if value} == wanted


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([3, 50, 1000]))
def test_the_table_of_objects_holds_each_birth_once_with_its_death(seed: int, batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trace = open_trace(write_made(Path(folder, "x.heap"), [make_random(seed)], batch=batch))
        born, died = {}, {}
        for events in trace.batches():
            for i in range(len(events)):
                if events.died[i] >= 0:
                    died[int(events.died[i])] = int(events.time_ns[i]), int(events.thread[i])
                if events.born[i] >= 0:
                    born[int(events.born[i])] = (
                        int(events.time_ns[i]),
                        int(events.size_bytes[i]),
                        int(events.stack[i]),
                    )
        found = {}
        for objects in trace.objects():
            for i in range(len(objects)):
                number = int(objects.number[i])
                assert number not in found
                found[number] = int(objects.born_ns[i]), int(objects.size_bytes[i]), int(objects.stack[i])
                assert (int(objects.died_ns[i]), int(objects.died_thread[i])) == died.get(number, (-1, -1))
        assert found == born


def test_a_block_freed_before_its_thread_allocates_again_is_temporary(tmp_path: Path) -> None:
    made = MadeProcess()
    for _ in range(5):
        made.free(made.allocate(10))
    kept = made.allocate(10)
    made.allocate(10)
    made.free(kept)
    elsewhere = made.allocate(10, thread=0)
    made.free(elsewhere, thread=1)
    ((figures,),) = analyse([open_trace(write_made(tmp_path / "x.heap", [made]))])
    assert figures.temporary_allocations == 5
    assert figures.remote_frees == 1


def test_a_reallocation_is_never_temporary_and_never_counts_twice(tmp_path: Path) -> None:
    made = MadeProcess()
    number = made.allocate(1000)
    for size in (2000, 4000, 8000):
        number = made.allocate(size, operation=Operation.REALLOCATE_MOVED, died=number)
    made.free(number)
    ((figures,),) = analyse([open_trace(write_made(tmp_path / "x.heap", [made]))])
    assert figures.live_bytes_peak == 8000
    assert figures.temporary_allocations == 1  # the last one, freed at once
    assert figures.live_bytes_at_exit == 0


@pytest.mark.parametrize("keep_stackless", [False, True])
def test_estimates_of_a_sample_are_unbiased_and_their_intervals_hold_the_truth(
    tmp_path: Path, keep_stackless: bool
) -> None:
    """Both kinds of samples: only sampled allocations are there, or all of them with stacks on a sample."""
    random = np.random.default_rng(5)
    mean = 4096
    inside_allocated = inside_live = 0
    estimates = []
    for attempt in range(40):
        made = MadeProcess()
        true_allocated = true_live = 0
        made.allocate(mean * 100, stack=2)  # always in the sample
        for _ in range(1500):
            size = int(random.choice([64, 900, 5000]))
            true_allocated += size
            sampled = random.random() < 1 - np.exp(-size / mean)
            dies = random.random() < 0.6
            true_live += 0 if dies else size
            if sampled or keep_stackless:
                number = made.allocate(size, stack=1 if sampled else 0)
                if dies:
                    made.free(number)
        path = write_made(
            tmp_path / f"{attempt}.heap", [made], batch=10_000, manifest={"sample_every_bytes": mean}
        )
        ((figures,),) = analyse([open_trace(path)])
        assert figures.places is not None
        row = int(np.flatnonzero(figures.places.stack == 1)[0])
        allocated = float(figures.places.allocated_bytes[row])
        estimates.append(allocated / true_allocated)
        inside_allocated += abs(allocated - true_allocated) <= figures.places.allocated_bytes_error[row]
        live = float(figures.places.live_bytes_at_exit[row])
        inside_live += abs(live - true_live) <= figures.places.live_bytes_at_exit_error[row]
        if keep_stackless:
            assert figures.allocated_bytes == true_allocated + mean * 100  # totals are exact
    assert np.mean(estimates) == pytest.approx(1.0, abs=0.02)
    assert inside_allocated >= 34
    assert inside_live >= 34


def test_a_pool_of_processes_and_a_cluster_answer_what_one_pass_answers(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    paths = [
        write_made(tmp_path / f"{seed}.heap", [make_random(seed), make_random(seed + 100, pid=8)])
        for seed in range(2)
    ]
    traces = [open_trace(path) for path in paths]
    alone = analyse(traces)
    with ProcessPoolExecutor(1) as pool:
        pooled = analyse(traces, executor=pool)
    with distributed.Client(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as client:
        clustered = analyse(traces, executor=client.get_executor())
    for other in (pooled, clustered):
        for mine, theirs in zip(alone, other, strict=True):
            for one, two in zip(mine, theirs, strict=True):
                assert (one.pid, one.live_bytes_peak, one.allocated_bytes) == (
                    two.pid,
                    two.live_bytes_peak,
                    two.allocated_bytes,
                )
                assert by_stack(one, "live_bytes_at_peak") == by_stack(two, "live_bytes_at_peak")


def test_a_live_table_is_as_large_as_what_lives_not_as_what_has_lived(tmp_path: Path) -> None:
    """A storm of a million short-lived blocks needs room for few."""
    from heapsmith.trace.writer import TraceWriter

    path = tmp_path / "storm.heap"
    blocks = 25_000
    manifest = told_lives.Manifest(command=["storm"], started_unix_ns=0, heapsmith="0", tick_ns=MICROSECOND)
    with TraceWriter(path, manifest) as writer:
        process = writer.add_process(
            told_lives.ProcessStart(pid=1, ppid=0, name="storm", command=["storm"], started_ns=0)
        )
        operation = np.tile(np.array([Operation.ALLOCATE, Operation.FREE], np.uint8), blocks)
        sizes = np.where(operation == Operation.ALLOCATE, 64, 0).astype(np.uint64)
        for batch in range(20):
            died = np.full(2 * blocks, -1)
            died[1::2] = batch * blocks + np.arange(blocks)
            writer.write_events(
                process, operation=operation, thread=np.zeros(2 * blocks, np.uint32),
                time_ns=np.arange(2 * blocks) * MICROSECOND + batch * 2 * blocks * MICROSECOND, size_bytes=sizes,
                usable_bytes=sizes, died=died,
            )  # fmt: skip
    trace = open_trace(path)
    state = EventPass(trace, trace.processes[0], [], DOUBLINGS, 100)
    figures = state.run(None)
    assert figures.allocations == 20 * blocks
    assert len(state.slots) <= 2 * blocks
    assert len(state.pages) <= 2 * blocks // 512 + 8

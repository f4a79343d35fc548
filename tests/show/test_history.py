from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import believable
from believable import Machine
from heapsmith.run.history import Baseline, Curve, FromNowOn, History, key_of
from heapsmith.run.values import Exit, Process, SizeClass, Thread

DONE = Exit(0, None, False)


def poll(time_s: float, live_bytes: int, allocations: int = 0) -> Process:
    row = SizeClass(24, allocations, 0, 0, 0, live_bytes, live_bytes, live_bytes)
    return msgspec.structs.replace(
        believable.empty(), time_s=time_s, live_bytes=live_bytes, allocations=allocations, size_classes=[row]
    )


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=900), st.integers(20, 64))
def test_a_curve_never_outgrows_its_points_and_keeps_every_peak_and_the_last_of_each_counter(
    lives: list[int], points: int
) -> None:
    curve = Curve(points)
    for place, live in enumerate(lives):
        curve.add(poll(place + 1.0, live, allocations=10 * (place + 1)))
        assert len(curve) <= points
    assert curve.column("live_bytes").max() == max(lives)
    assert curve.column("live_bytes")[-1] == lives[-1]
    assert curve.class_live_bytes.max() == np.float32(max(lives))
    assert curve.times_s[-1] == len(lives)
    assert np.all(np.diff(curve.times_s) > 0)
    assert curve.column("allocations").tolist() == [10 * time_s for time_s in curve.times_s]
    assert curve.rates("allocations") == pytest.approx(10.0)


def test_the_newest_points_are_never_merged() -> None:
    curve = Curve(200)
    for second in range(10_000):
        curve.add(poll(float(second), second))
    assert np.diff(curve.times_s)[-10:].tolist() == [1.0] * 10


def test_unknown_stays_unknown_through_merging_and_is_no_zero() -> None:
    curve = Curve(20)
    for second in range(100):
        curve.add(poll(float(second), 1))
    assert all(math.isnan(value) for value in curve.column("resident_bytes"))


def test_a_curve_ends_with_its_process() -> None:
    curve = Curve()
    curve.add(poll(1.0, 5))
    curve.add(msgspec.structs.replace(poll(2.0, 6), exit=DONE))
    curve.add(msgspec.structs.replace(poll(3.0, 7), exit=DONE))
    assert curve.times_s.tolist() == [1.0, 2.0]


def test_a_size_class_that_comes_later_was_empty_before() -> None:
    curve = Curve()
    curve.add(poll(1.0, 5))
    late = msgspec.structs.replace(
        poll(2.0, 9),
        size_classes=[SizeClass(None, 1, 0, 0, 1, 9, 9, 9), SizeClass(8, 1, 0, 0, 1, 7, 7, 7)],
    )
    curve.add(late)
    assert curve.class_bytes == (8, 24, None)
    assert curve.class_live_bytes.tolist() == [[0, 5, 0], [7, 0, 9]]


def test_thousands_of_short_processes_keep_a_bounded_number_of_curves_and_the_running_one() -> None:
    history = History(points=40, curves=50)
    running = poll(1.0, 5)
    ended: list[Process] = []
    for pid in range(100, 1100):
        young = msgspec.structs.replace(poll(0.1, 3), pid=pid)
        running = msgspec.structs.replace(running, time_s=running.time_s + 1)
        history.add([running, *ended, young])
        ended = [*ended, msgspec.structs.replace(young, exit=DONE)][-200:]
    assert len(history._curves) <= 50  # pyright: ignore[reportPrivateUsage]
    assert len(history.curve(key_of(running))) == 40 or len(history.curve(key_of(running))) > 25


def grown(process: Process, **changes: object) -> Process:
    return msgspec.structs.replace(process, **changes)


def test_counting_from_a_baseline_gives_differences_that_add_up() -> None:
    before, after = believable.process(30), believable.process(40)
    since = Baseline(before).since(after)
    assert since.allocations == after.allocations - before.allocations
    assert since.live_bytes == after.live_bytes - before.live_bytes
    assert sum(row.allocations for row in since.size_classes) == since.allocations
    assert sum(thread.allocations for thread in since.threads) == since.allocations
    assert since.resident_bytes == after.resident_bytes


def test_at_the_baseline_itself_all_counters_and_peaks_are_zero() -> None:
    process = believable.process(30)
    since = Baseline(process).since(process)
    counted = (since.allocations, since.frees, since.live_bytes, since.live_bytes_peak, since.live_blocks)
    assert counted == (0, 0, 0, 0, 0)
    for row in (*since.size_classes, *(row for thread in since.threads for row in thread.size_classes)):
        assert (row.allocations, row.frees, row.live_bytes, row.live_bytes_peak) == (0, 0, 0, 0)


def test_a_new_high_since_the_baseline_is_exact_and_otherwise_the_highest_poll_counts() -> None:
    start = grown(poll(1.0, 100), live_bytes_peak=1000)
    baseline = Baseline(start)
    baseline.observe(grown(poll(2.0, 400), live_bytes_peak=1000))
    now = grown(poll(3.0, 50), live_bytes_peak=1000)
    assert baseline.since(now).live_bytes_peak == 300
    assert baseline.since(grown(now, live_bytes_peak=5000)).live_bytes_peak == 4900


def test_a_thread_that_ends_after_the_baseline_does_not_count_its_past_again() -> None:
    def thread(tid: int | None, allocations: int) -> Thread:
        row = SizeClass(24, allocations, 0, 0, allocations, 24 * allocations, 24 * allocations, 0)
        return Thread(tid, "", tid is not None, allocations, 0, 0, allocations, 24 * allocations, [row])

    base = believable.empty()
    before = grown(base, allocations=110, threads=[thread(7, 100), thread(None, 10)])
    after = grown(base, time_s=5.0, allocations=113, threads=[thread(None, 113)])
    since = Baseline(before).since(after)
    assert [(t.tid, t.allocations, t.size_classes[0].allocations) for t in since.threads] == [(None, 3, 3)]


def test_a_thread_id_that_is_used_again_counts_as_a_new_thread() -> None:
    def thread(tid: int | None, allocations: int) -> Thread:
        return Thread(tid, "", tid is not None, allocations, 0, 0, 0, 0, [])

    base = believable.empty()
    before = grown(base, threads=[thread(7, 100), thread(None, 10)])
    after = grown(base, time_s=5.0, threads=[thread(7, 4), thread(None, 115)])
    since = Baseline(before).since(after)
    assert [(t.tid, t.allocations) for t in since.threads] == [(7, 4), (None, 5)]


def test_from_now_on_leaves_out_what_was_over_and_keeps_what_ends_later() -> None:
    machine = Machine([{"pid": 1, "ended": DONE}, {"pid": 2}], time_s=5)
    source = FromNowOn(machine)
    assert [process.pid for process in source.poll()] == [2]
    machine.end(2, DONE)
    assert [process.pid for process in source.poll()] == [2]
    source.set_limit(2, 99)
    assert source.poll()[0].limit_bytes == 99

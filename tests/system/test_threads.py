"""Threads that come and go by the thousand: nothing is lost, and the peak is within its stated bound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from heapsmith.units import KiB, MiB
from watched import Watched

RUNTIME_BYTES_PER_THREAD = 2048
"""What the C and C++ libraries allocate to start a thread, generously."""


def assert_peak_is_within_its_bound(empty: Watched, full: Watched, threads: int) -> None:
    """The true peak is at least the program's own and what the runtime holds all the time."""
    process, told = full.first, full.told()
    at_least = told["live_bytes_peak"] + empty.first.live_bytes
    assert at_least <= process.live_bytes_peak + process.live_bytes_peak_error_bound
    assert process.live_bytes_peak <= at_least + 16 * KiB + threads * RUNTIME_BYTES_PER_THREAD


@pytest.mark.parametrize(
    ("scenario", "threads"),
    [
        ("silent_holder", 1),
        ("just_over_by_two", 2),
        ("crossing", 1),
        ("crossing", 2),
        ("crossing", 8),
        ("short_lived", 10_000),
        ("together", 300),
        ("late_destructors", 20),
    ],
)
def test_what_threads_do_adds_up(
    watch: Callable[..., Watched], compiled: Callable[..., Path], scenario: str, threads: int
) -> None:
    program = compiled("threads.cc")
    empty, full = watch([program]), watch([program, scenario, str(threads)])
    assert full.code == 0, full.errors
    told, process = full.told(), full.first
    # The libraries allocate for each thread, and free it all but for what they keep.
    assert process.allocations >= told["allocations"]
    assert process.allocations - process.frees == process.live_blocks
    assert 0 <= process.live_bytes - told["live_bytes"] <= 256 * KiB + threads * RUNTIME_BYTES_PER_THREAD
    assert process.lost == 0
    assert sum(row.live_bytes for row in process.size_classes) == process.live_bytes
    assert sum(thread.allocations for thread in process.threads) == process.allocations
    assert all(row.live_blocks >= 0 for thread in process.threads for row in thread.size_classes)
    assert_peak_is_within_its_bound(empty, full, threads)


@pytest.mark.parametrize("scenario", ["silent_holder", "just_over_by_two"])
def test_the_bound_of_the_peak_is_small_for_few_threads(
    watch: Callable[..., Watched], compiled: Callable[..., Path], scenario: str
) -> None:
    full = watch([compiled("threads.cc"), scenario])
    assert full.first.live_bytes_peak_error_bound <= 3 * 32 * KiB


def test_hundreds_of_threads_have_a_row_each(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    full = watch([compiled("threads.cc"), "together", "300"])
    assert full.first.threads_started == 301


def test_frees_of_other_threads_blocks_are_estimated_as_such(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    handed_over = 40_000
    full = watch([compiled("threads.cc"), "handed_over", str(handed_over)])
    # Two thirds of the second thread's frees: a share that only a sample can tell.
    assert abs(full.first.remote_frees - handed_over) <= 0.15 * handed_over
    assert "remote_frees" not in full.first.exact


@pytest.mark.parametrize("block_bytes", [100, 5_000, 100_000, 3 * MiB])
def test_a_limit_holds_with_eight_threads(
    watch: Callable[..., Watched], compiled: Callable[..., Path], block_bytes: int
) -> None:
    limit = 24 * MiB
    full = watch([compiled("threads.cc"), "greedy", str(block_bytes)], limit=limit)
    assert full.code == 0, full.errors
    told, process = full.told(), full.first
    threads_bound = 9 * 32 * KiB
    assert told["live_bytes"] <= limit + threads_bound
    assert told["live_bytes"] >= limit - 8 * block_bytes - threads_bound - MiB
    assert process.refused == told["refused"] >= 400
    assert process.limit_bytes == limit
    assert any(event.kind == "refused" for event in process.events)

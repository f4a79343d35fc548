"""The counters agree with the program's own count of its calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from heapsmith.run.values import Process
from heapsmith.wire.classes import CLASS_BYTES, FINE_LIMIT_BYTES, compute_class_index
from watched import Watched

COUNTERS = ("allocations", "frees", "reallocations", "failures", "live_blocks", "live_bytes")


def live_by_class(process: Process) -> Counter[int | None]:
    return Counter({row.class_bytes: row.live_blocks for row in process.size_classes})


def assert_counts_agree(empty: Watched, full: Watched) -> None:
    assert (empty.code, full.code) == (0, 0), full.errors
    told, before, after = full.told(), empty.first, full.first
    counted = {name: getattr(after, name) - getattr(before, name) for name in COUNTERS}
    assert counted == {name: told[name] for name in COUNTERS}
    expected = Counter[int | None]()
    for usable_bytes, blocks in told["usable"].items():
        expected[CLASS_BYTES[compute_class_index(int(usable_bytes))]] += blocks
    classes = live_by_class(after)
    classes.subtract(live_by_class(before))
    assert +classes == +expected
    assert sum(row.live_bytes for row in after.size_classes) == after.live_bytes
    assert sum(row.allocations for row in after.size_classes) == after.allocations
    # What was asked for is estimated: within the slack that a block of its class can have.
    estimate = after.requested_live_bytes - before.requested_live_bytes
    largest_slack = sum(
        n * (24 if int(usable) <= FINE_LIMIT_BYTES else 4096) for usable, n in told["usable"].items()
    )
    assert abs(estimate - told["requested_live_bytes"]) <= largest_slack


@pytest.mark.parametrize(
    "scenario", ["simple", "empty_blocks", "reallocations", "aligned", "texts", "large", "failures"]
)
def test_every_call_of_the_c_library_is_counted_once(
    watch: Callable[..., Watched], compiled: Callable[..., Path], scenario: str
) -> None:
    program = compiled("calls.c")
    empty, full = watch([program]), watch([program, scenario])
    assert empty.first.allocations == 0
    assert_counts_agree(empty, full)
    assert full.first.live_bytes_peak == full.told()["live_bytes_peak"]
    assert full.first.live_bytes_peak_error_bound == 0


def test_every_operator_of_cpp_is_counted_once(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    program = compiled("news.cc")
    empty, full = watch([program]), watch([program, "operators"])
    assert_counts_agree(empty, full)
    # The runtime allocates its reserve for exceptions before main.
    assert full.first.live_bytes_peak == full.told()["live_bytes_peak"] + empty.first.live_bytes


@pytest.mark.parametrize("with_handler", [False, True])
def test_a_failed_operator_new_is_one_failure_for_each_time_it_asks(
    watch: Callable[..., Watched], compiled: Callable[..., Path], with_handler: bool
) -> None:
    environment = {"WITH_HANDLER": "1"} if with_handler else {}
    program = compiled("news.cc")
    full = watch([program, "failing"], environment=environment)
    assert full.code == 0, full.errors
    assert full.first.failures == full.told()["failures"]
    assert full.first.last_failed_bytes == 1 << 62

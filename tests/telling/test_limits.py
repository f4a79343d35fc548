"""The tightest bound on a heap: resource limits, every kind of cgroup tree, the machine; from outside and from inside."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapsmith.here import calls
from heapsmith.native import library
from heapsmith.run.fleet import Fleet
from heapsmith.run.limits import (
    Bound,
    LimitEffect,
    LimitSource,
    Machine,
    compute_auto_limit,
    compute_tightest,
    largest_request_bytes,
    memory_groups,
    read_bounds,
)
from heapsmith.units import GiB, KiB, MiB

from .conftest import behind_watch


def make_machine(tmp_path: Path, cgroup: str, files: dict[str, str | int], total: int = 16 * GiB) -> Machine:
    """A /proc and a /sys/fs/cgroup of our own; process 1 lives there."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "1").mkdir(parents=True)
    (proc / "1" / "status").write_text("Name:\tx\nVmSize:\t  200000 kB\nVmData:\t 50000 kB\nVmRSS:\t 4 kB\n")
    (proc / "1" / "cgroup").write_text(cgroup)
    (proc / "meminfo").write_text(
        f"MemTotal: {total // 1024} kB\nMemAvailable: {total // 2048} kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
    )
    cgroups.mkdir()
    for name, content in files.items():
        path = cgroups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return Machine(proc, cgroups)


def group_bounds(machine: Machine) -> list[Bound]:
    return [b for b in read_bounds(1, machine) if b.source in (LimitSource.CGROUP1, LimitSource.CGROUP2)]


def test_version_2_binds_by_itself_and_by_every_ancestor(tmp_path: Path) -> None:
    machine = make_machine(
        tmp_path,
        "0::/pod/app\n",
        {
            "pod/app/memory.max": "max",
            "pod/app/memory.high": 300 * MiB,
            "pod/app/memory.current": 100 * MiB,
            "pod/memory.max": 400 * MiB,
            "pod/memory.current": 250 * MiB,
            "pod/memory.stat": f"anon 1\ninactive_file {50 * MiB}",
        },
    )
    found = {(b.effect, b.limit_bytes, b.available_bytes) for b in group_bounds(machine)}
    # `max` is no bound; idle page cache is not used up; high throttles and never kills.
    assert found == {
        (LimitEffect.THROTTLE, 300 * MiB, 200 * MiB),
        (LimitEffect.KILL, 400 * MiB, 200 * MiB),
    }
    tightest = compute_tightest(read_bounds(1, machine), 10 * MiB, None, None)
    assert tightest is not None
    assert (tightest.source, tightest.effect, tightest.heap_bytes) == ("cgroup2", "kill", 210 * MiB)
    assert (tightest.soft_bytes, tightest.soft_source) == (210 * MiB, "cgroup2")


def test_version_1_says_no_limit_with_a_huge_number(tmp_path: Path) -> None:
    machine = make_machine(
        tmp_path,
        "3:cpu,cpuacct:/x\n2:memory:/docker/abc\n0::/\n",
        {
            "memory/docker/abc/memory.limit_in_bytes": 512 * MiB,
            "memory/docker/abc/memory.usage_in_bytes": 12 * MiB,
            "memory/memory.limit_in_bytes": 9223372036854771712,
            "memory/memory.usage_in_bytes": 99 * MiB,
        },
    )
    assert [(b.source, b.limit_bytes, b.available_bytes) for b in group_bounds(machine)] == [
        (LimitSource.CGROUP1, 512 * MiB, 500 * MiB)
    ]


def test_a_container_sees_its_group_at_the_root_of_the_mount(tmp_path: Path) -> None:
    machine = make_machine(
        tmp_path,
        "2:memory:/kubepods/burstable/pod1/abc\n",
        {"memory/memory.limit_in_bytes": 64 * MiB, "memory/memory.usage_in_bytes": MiB},
    )
    assert [b.limit_bytes for b in group_bounds(machine)] == [64 * MiB]


def test_hybrid_trees_are_read_where_the_memory_controller_is(tmp_path: Path) -> None:
    machine = make_machine(
        tmp_path,
        "5:memory:/a\n0::/a\n",
        {
            "unified/a/cgroup.procs": "",
            "memory/a/memory.limit_in_bytes": 128 * MiB,
            "memory/a/memory.usage_in_bytes": 0,
        },
    )
    assert [b.source for b in group_bounds(machine)] == [LimitSource.CGROUP1]


@pytest.mark.parametrize("content", ["", "garbage\n", "0::\n", "x:memory\n", "1:memory:/gone\n0::/gone\n"])
def test_files_that_are_missing_or_odd_are_no_bound(tmp_path: Path, content: str) -> None:
    machine = make_machine(tmp_path, content, {"memory.max": "nonsense"})
    assert [b.source for b in read_bounds(1, machine) if b.source is not LimitSource.RLIMIT_DATA][-1:] == [
        "physical"
    ]
    assert group_bounds(machine) == []


def test_strict_overcommit_answers_null_instead_of_killing(tmp_path: Path) -> None:
    machine = make_machine(tmp_path, "", {})
    (machine.proc / "sys/vm").mkdir(parents=True)
    (machine.proc / "sys/vm/overcommit_memory").write_text("2\n")
    with (machine.proc / "meminfo").open("a") as file:
        file.write(f"CommitLimit: {GiB // 1024} kB\nCommitted_AS: {GiB // 2048} kB\n")
    tightest = compute_tightest(read_bounds(1, machine), 0, None, None)
    assert tightest and (tightest.source, tightest.effect, tightest.available_bytes) == (
        "physical",
        "null",
        GiB // 2,
    )


def test_the_events_of_both_versions_are_read(tmp_path: Path) -> None:
    machine = make_machine(
        tmp_path,
        "0::/a\n",
        {
            "a/memory.current": 5,
            "a/memory.events": "low 0\nhigh 3\nmax 2\noom 1\noom_kill 1\noom_group_kill 0\nnew_key 7",
            "a/memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=500000",
        },
    )
    group = next(memory_groups(1, machine))
    assert group.events()["oom_kill"] == 1 and group.events()["high"] == 3
    assert group.stall_seconds() == {"some": 1.5, "full": 0.5}


def test_a_process_that_is_gone_has_no_bounds() -> None:
    assert list(read_bounds(2**22 + 5)) == []
    assert compute_tightest([], 0, 5, None) is None


@given(
    st.lists(
        st.tuples(st.sampled_from(list(LimitSource)), st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
        min_size=1,
    ),
    st.integers(0, 1 << 40),
    st.none() | st.integers(1, 1 << 40),
)
def test_the_tightest_bound_is_below_all_others_and_never_below_what_is_live(
    bounds: list[tuple[LimitSource, int, int]], live: int, cap: int | None
) -> None:
    every = [Bound(source, LimitEffect.KILL, limit, used, "x") for source, limit, used in bounds]
    tightest = compute_tightest(every, live, cap, None)
    assert tightest is not None
    assert tightest.heap_bytes == live + tightest.available_bytes >= live
    assert all(tightest.available_bytes <= bound.available_bytes for bound in every)
    assert cap is None or tightest.available_bytes <= max(0, cap - live)


def test_inside_and_outside_agree() -> None:
    stats = calls.Stats(size=ctypes.sizeof(calls.Stats))
    inside = ctypes.CDLL(str(library("libheapsmith.so")))
    assert inside.hs_stats_get(ctypes.byref(stats), calls.EXACT) == 0
    outside = compute_tightest(read_bounds(os.getpid()), stats.current_bytes, None, None)
    assert outside is not None
    assert calls.SOURCES[stats.limit_source] == outside.source
    assert calls.EFFECTS[stats.limit_effect] == outside.effect
    assert abs(stats.available_bytes - outside.available_bytes) < 0.1 * outside.available_bytes


@pytest.mark.parametrize("number", [resource.RLIMIT_DATA, resource.RLIMIT_AS])
def test_resource_limits_are_seen_from_inside(number: int) -> None:
    code = (
        "import heapsmith; i = heapsmith.mallinfo(); print(i.limit_source, i.limit_effect, i.available_bytes)"
    )

    def lower() -> None:
        resource.setrlimit(number, (GiB, GiB))

    done = subprocess.run(
        [sys.executable, "-c", code], env=behind_watch(), preexec_fn=lower, capture_output=True, text=True
    )
    name = {resource.RLIMIT_DATA: "rlimit_data", resource.RLIMIT_AS: "rlimit_as"}[number]
    assert done.stdout.split()[:2] == [name, "null"], done.stderr
    assert int(done.stdout.split()[2]) < GiB


def test_the_limit_chosen_by_itself_is_a_share_of_the_container(tmp_path: Path) -> None:
    machine = make_machine(tmp_path, "0::/\n", {"memory.max": GiB, "memory.current": 900 * MiB})
    (machine.proc / "self").symlink_to("1")
    limit_bytes, bound = compute_auto_limit(machine)
    assert (limit_bytes, bound.source) == (768 * MiB, LimitSource.CGROUP2)


@pytest.mark.parametrize("allocator", ["glibc", "jemalloc", "tcmalloc"])
@given(available=st.integers(0, 1 << 45))
def test_the_largest_request_fits(allocator: str, available: int) -> None:
    largest = largest_request_bytes(allocator, available)
    assert 0 <= largest <= available
    if available > MiB:
        assert largest > available * 0.74


@pytest.mark.parametrize("allocator", ["glibc", "jemalloc", "tcmalloc", "mimalloc2", "tbb"])
def test_inside_and_outside_round_large_blocks_alike(allocator: str) -> None:
    code = (
        "import heapsmith; heapsmith.limit(heapsmith.mallinfo().live_bytes + 123456789);"
        "i = heapsmith.mallinfo(); print(i.available_bytes, i.largest_block_bytes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=behind_watch(allocator), capture_output=True, text=True, check=True
    )
    available, largest = map(int, done.stdout.split())
    assert largest == largest_request_bytes(allocator, available)
    assert KiB < largest <= available


def test_a_limit_that_changes_while_the_program_runs_is_seen_at_once(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [library("heapsmith_statistics_cost"), "hold", "0"],
        env=behind_watch(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    machine = make_machine(tmp_path, "0::/a\n", {"a/memory.max": 400 * MiB, "a/memory.current": 100 * MiB})
    (machine.proc / str(child.pid)).symlink_to("1")
    group = machine.cgroups / "a"

    with contextlib.closing(Fleet(machine=machine)) as fleet:

        def look() -> tuple[str, str, int]:
            limit = next(gauges for gauges in fleet.read() if gauges.pid == child.pid).limit
            assert limit is not None
            return limit.source, limit.effect, limit.available_bytes

        try:
            assert look() == ("cgroup2", "kill", 300 * MiB)
            (group / "memory.max").write_text(f"{200 * MiB}\n")
            assert look() == ("cgroup2", "kill", 100 * MiB)
            # The number that is used up is read again when something happened in the group.
            (group / "memory.current").write_text(f"{150 * MiB}\n")
            (group / "memory.events").write_text("high 0\nmax 1\n")
            assert look() == ("cgroup2", "kill", 50 * MiB)
            (group / "memory.max").write_text("max\n")
            assert look()[0] == "physical"
            (group / "memory.max").write_text(f"{200 * MiB}\n")
            assert look()[0] == "cgroup2"
            (group / "memory.max").unlink()
            assert look()[0] == "physical"
            (group / "memory.current").unlink()
            assert look()[0] == "physical"
        finally:
            child.communicate()

"""Workloads on allocators, interleaved: every allocator takes part in every round, in an order that rotates."""

from __future__ import annotations

import difflib
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Final

import msgspec

from heapsmith.errors import CheckError
from heapsmith.lab.statistics import Spread, compute_difference, compute_spread
from heapsmith.lab.subjects import SYSTEM, Subject
from heapsmith.native import library

BENCH_SCHEMA: Final = "heapsmith.bench/1"
TIMEOUT_S: Final = 300
SUITES: Final = {
    "small": ("pair-64", "pair-8k", "pair-40k", "loop", "batches", "churn", "fill", "trees"),
    "metamalloc": ("local", "locality", "threads", "memory"),
    "server": ("server", "producers", "brief-threads", "mixed"),
    "large": ("temporaries", "large", "growth"),
}


class Measured(msgspec.Struct, frozen=True):
    """One run of a workload on an allocator.

    Args:
        time_s: Wall clock of the work, without the start of the process.
        resident_bytes_peak: The kernel's high-water mark.
        resident_after_bytes: Resident when the work was done.
        page_faults: Minor faults of the work.
        failed: How it ended, if not well.
    """

    time_s: float = 0.0
    resident_bytes_peak: int = 0
    resident_after_bytes: int = 0
    page_faults: int = 0
    failed: str | None = None


class Ratio(msgspec.Struct, frozen=True):
    """A figure against that of the system's malloc in the same rounds: the median of ratios and its 95 % interval."""

    ratio: float | None
    low: float | None
    high: float | None


class Case(msgspec.Struct, frozen=True):
    """A workload on an allocator, over all rounds; ratios are against the system's malloc."""

    name: str
    allocator: str
    time_s: Spread
    resident_bytes_peak: Spread
    resident_after_bytes: Spread
    page_faults: Spread
    time_ratio: Ratio
    resident_ratio: Ratio
    failed: str | None


class Suite(msgspec.Struct, frozen=True):
    """The cases of one suite, allocator by allocator within each workload."""

    name: str
    cases: list[Case]


@cache
def workload_promises() -> dict[str, str]:
    """Return what each workload does, by name.

    Example:
        >>> workload_promises()["pair-64"]
        'one block of 64 bytes, allocated and freed'
    """
    output = subprocess.run(
        [library("workloads"), "--list"], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split("\t", 1) for line in output.splitlines())


def select_workloads(names: Sequence[str]) -> dict[str, list[str]]:
    """Choose workloads by name or by suite.

    Returns:
        Names by suite.

    Raises:
        CheckError: A name that is neither.

    Example:
        >>> select_workloads(["threads", "large"])
        {'metamalloc': ['threads'], 'large': ['temporaries', 'large', 'growth']}
    """
    known = [*SUITES, *(name for suite in SUITES.values() for name in suite)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            raise CheckError(f"there is no workload {name!r}", hint=hint)
    chosen = {
        suite: [name for name in cases if not names or suite in names or name in names]
        for suite, cases in SUITES.items()
    }
    return {suite: cases for suite, cases in chosen.items() if cases}


def run_workload(name: str, subject: Subject, *, scale: int = 1) -> Measured:
    """Run a workload once on an allocator, in a process of its own."""
    try:
        child = subprocess.run(
            [library("workloads"), name, str(scale)],
            env=subject.environment(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Measured(failed=f"not done after {TIMEOUT_S} s")
    if child.returncode < 0:
        return Measured(failed=f"ended by signal {-child.returncode}")
    if child.returncode != 0:
        return Measured(failed=f"ended with {child.returncode}")
    row = msgspec.json.decode(child.stdout, type=dict[str, int | str])
    return Measured(
        time_s=int(row["time_ns"]) / 1e9,
        resident_bytes_peak=int(row["resident_peak_bytes"]),
        resident_after_bytes=int(row["resident_after_bytes"]),
        page_faults=int(row["page_faults"]),
    )


def run_bench(
    suites: dict[str, list[str]],
    subjects: Sequence[Subject],
    *,
    rounds: int,
    on_case: Callable[[Sequence[Case]], None] = lambda _: None,
) -> list[Suite]:
    """Measure workloads on allocators.

    Args:
        suites: Workloads by suite.
        subjects: Allocators; the system's malloc takes part whether or not it is among them.
        rounds: How often each runs.
        on_case: Called with the finished cases of each workload.
    """
    field = list(subjects)
    if not any(subject.library is None for subject in field):
        field.insert(0, Subject(SYSTEM, None))
    finished = list[Suite]()
    for suite, names in suites.items():
        cases = list[Case]()
        for name in names:
            of_workload = list(_measure(name, field, rounds))
            on_case(of_workload)
            cases += of_workload
        finished.append(Suite(suite, cases))
    return finished


def machine() -> dict[str, str]:
    """Return what figures depend on.

    Example:
        >>> sorted(machine())
        ['kernel', 'processor', 'system']
    """
    return {"system": platform.platform(), "kernel": platform.release(), "processor": platform.machine()}


def _measure(name: str, field: Sequence[Subject], rounds: int) -> Iterator[Case]:
    runs: list[list[Measured]] = [[] for _ in field]
    for number in range(rounds):
        for place in range(len(field)):
            index = (number + place) % len(field)
            runs[index].append(run_workload(name, field[index]))
    baseline = next(index for index, subject in enumerate(field) if subject.library is None)
    for subject, measured in zip(field, runs, strict=True):
        failed = next((run.failed for run in measured if run.failed), None)
        good = [run for run in measured if not run.failed]
        yield Case(
            name=name,
            allocator=subject.name,
            time_s=compute_spread([run.time_s for run in good]),
            resident_bytes_peak=compute_spread([run.resident_bytes_peak for run in good]),
            resident_after_bytes=compute_spread([run.resident_after_bytes for run in good]),
            page_faults=compute_spread([run.page_faults for run in good]),
            time_ratio=_ratio(
                [run.time_s for run in runs[baseline] if not run.failed], [run.time_s for run in good]
            ),
            resident_ratio=_ratio(
                [run.resident_bytes_peak for run in runs[baseline] if not run.failed],
                [run.resident_bytes_peak for run in good],
            ),
            failed=failed,
        )


def _ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Ratio:
    if not baseline or not candidate:
        return Ratio(None, None, None)
    found = compute_difference({"here": baseline}, {"here": candidate})
    return Ratio(found.ratio, found.low, found.high)

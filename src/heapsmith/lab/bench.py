"""Workloads on allocators, interleaved: every allocator takes part in every round, in an order that rotates."""

from __future__ import annotations

import math
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.lab.jobs import command_for
from heapsmith.lab.statistics import Spread, compute_difference, compute_spread
from heapsmith.lab.subjects import SYSTEM, Subject

BENCH_SCHEMA: Final = "heapsmith.bench/1"
TIMEOUT_S: Final = 300
_WIDEST: Final = 1.3


class Measured(msgspec.Struct, frozen=True):
    """One run of a workload on an allocator.

    Args:
        time_s: Wall clock of the work, without the start of the process.
        resident_bytes_peak: The kernel's high-water mark.
        resident_after_bytes: Resident when the work was done, where the workload tells.
        page_faults: Minor faults of the work.
        failed: How it ended, if not well.
    """

    time_s: float = 0.0
    resident_bytes_peak: int = 0
    resident_after_bytes: int | None = None
    page_faults: int = 0
    failed: str | None = None


class Ratio(msgspec.Struct, frozen=True):
    """A figure against that of the system's malloc in the same rounds: the median of ratios and its 95 % interval."""

    ratio: float | None
    low: float | None
    high: float | None


class Case(msgspec.Struct, frozen=True):
    """A workload on an allocator, over all rounds; ratios are against the system's malloc.

    `too_noisy`: the interval of the time is too wide to tell; None where there are too few runs for an interval.
    """

    name: str
    allocator: str
    time_s: Spread
    resident_bytes_peak: Spread
    resident_after_bytes: Spread
    page_faults: Spread
    time_ratio: Ratio
    resident_ratio: Ratio
    too_noisy: bool | None
    failed: str | None


class Suite(msgspec.Struct, frozen=True):
    """The cases of one suite, allocator by allocator within each workload."""

    name: str
    cases: list[Case]


def run_workload(name: str, subject: Subject) -> Measured:
    """Run a workload once on an allocator, in processes of its own."""
    command = command_for(name, subject)
    try:
        child = subprocess.run(
            command.words, env=command.environment, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Measured(failed=f"not done after {TIMEOUT_S} s")
    if child.returncode < 0:
        return Measured(failed=f"ended by {_signal_name(-child.returncode)}")
    if child.returncode != 0:
        return Measured(failed=f"ended with {child.returncode}")
    try:
        row = msgspec.json.decode(child.stdout.splitlines()[-1], type=dict[str, int | str])
    except (msgspec.DecodeError, IndexError):
        return Measured(failed="told no figures")
    after = row.get("resident_after_bytes")
    return Measured(
        time_s=int(row["time_ns"]) / 1e9,
        resident_bytes_peak=int(row["resident_peak_bytes"]),
        resident_after_bytes=None if after is None else int(after),
        page_faults=int(row["page_faults"]),
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run_bench(
    suites: dict[str, list[str]],
    subjects: Sequence[Subject],
    *,
    rounds: int,
    on_case: Callable[[Sequence[Case]], None] = lambda _: None,
    on_run: Callable[[Progress], None] = lambda _: None,
    made_for: Callable[[str], Subject | None] = lambda _: None,
) -> list[Suite]:
    """Measure workloads on allocators.

    Args:
        suites: Workloads by suite.
        subjects: Allocators; the system's malloc takes part whether or not it is among them.
        rounds: How often each runs.
        on_case: Called with the finished cases of each workload.
        on_run: Called before each run.
        made_for: Finds the allocator that was made for a suite and takes part in it alone.
    """
    field = list(subjects)
    if not any(subject.library is None for subject in field):
        field.insert(0, Subject(SYSTEM, None))
    progress = Progress(sum(map(len, suites.values())) * len(field) * rounds)
    finished = list[Suite]()
    for suite, names in suites.items():
        cases = list[Case]()
        special = made_for(suite)
        for name in names:
            of_workload = list(
                _measure(name, [*field, *([special] if special else [])], rounds, progress, on_run)
            )
            on_case(of_workload)
            cases += of_workload
        finished.append(Suite(suite, cases))
    return finished


class Progress:
    """How far a benchmark is, and how long it may still take.

    Args:
        runs: How many runs there are in all.
    """

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.done = 0
        self.what = ""
        self._begin = time.monotonic()

    def left_s(self) -> float | None:
        """Return the seconds that are left, from the pace so far; None before there is one.

        Example:
            >>> Progress(10).left_s() is None
            True
        """
        if not self.done:
            return None
        return (time.monotonic() - self._begin) / self.done * max(0, self.runs - self.done)


def mean_ratios(suites: Sequence[Suite], *, resident: bool = False) -> dict[str, float]:
    """Compute the geometric mean of an allocator's ratios to the system's malloc, over the workloads that all finished.

    Args:
        suites: What was measured.
        resident: Of the peak resident bytes instead of the time.

    Example:
        >>> mean_ratios([])
        {}
    """
    by_workload: dict[str, dict[str, float]] = {}
    names = list(dict.fromkeys(case.allocator for suite in suites for case in suite.cases))
    for suite in suites:
        for case in suite.cases:
            ratio = (case.resident_ratio if resident else case.time_ratio).ratio
            if ratio is not None and not case.failed:
                by_workload.setdefault(case.name, {})[case.allocator] = ratio
    general = [
        name for name in names if sum(name in row for row in by_workload.values()) * 2 >= len(by_workload)
    ]
    shared = [row for row in by_workload.values() if all(name in row for name in general)]
    if not shared:
        return {}
    return {name: math.exp(sum(math.log(row[name]) for row in shared) / len(shared)) for name in general}


def machine() -> dict[str, str]:
    """Return what figures depend on.

    Example:
        >>> sorted(machine())
        ['huge_pages', 'kernel', 'memory_bytes', 'processor', 'processors', 'system']
    """
    return {
        "system": platform.platform(),
        "kernel": platform.release(),
        "processor": _processor() or platform.machine(),
        "processors": str(len(os.sched_getaffinity(0))),
        "memory_bytes": str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "huge_pages": _read(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return "unknown"


def _processor() -> str | None:
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def _measure(
    name: str,
    field: Sequence[Subject],
    rounds: int,
    progress: Progress,
    on_run: Callable[[Progress], None],
) -> Iterator[Case]:
    runs: list[list[Measured]] = [[] for _ in field]
    for number in range(rounds):
        for place in range(len(field)):
            index = (number + place) % len(field)
            progress.what = f"{name} on {field[index].name}"
            on_run(progress)
            if runs[index] and runs[index][-1].failed:
                runs[index].append(runs[index][-1])
            else:
                runs[index].append(run_workload(name, field[index]))
            progress.done += 1
    baseline = next(index for index, subject in enumerate(field) if subject.library is None)
    for subject, measured in zip(field, runs, strict=True):
        yield compute_case(name, subject.name, measured, runs[baseline])


def compute_case(name: str, allocator: str, runs: Sequence[Measured], baseline: Sequence[Measured]) -> Case:
    """Sum up the runs of one workload on one allocator.

    Args:
        name: Of the workload.
        allocator: On which it ran.
        runs: What was measured; failed ones do not count.
        baseline: The same on what its ratios are to.
    """
    good = [run for run in runs if not run.failed]
    reference = [run for run in baseline if not run.failed]
    time_ratio = _ratio([run.time_s for run in reference], [run.time_s for run in good])
    return Case(
        name=name,
        allocator=allocator,
        time_s=compute_spread([run.time_s for run in good]),
        resident_bytes_peak=compute_spread([run.resident_bytes_peak for run in good]),
        resident_after_bytes=compute_spread(
            [run.resident_after_bytes for run in good if run.resident_after_bytes is not None]
        ),
        page_faults=compute_spread([run.page_faults for run in good]),
        time_ratio=time_ratio,
        resident_ratio=_ratio(
            [run.resident_bytes_peak for run in reference], [run.resident_bytes_peak for run in good]
        ),
        too_noisy=is_too_noisy(time_ratio),
        failed=next((run.failed for run in runs if run.failed), None),
    )


def is_too_noisy(ratio: Ratio) -> bool | None:
    """Tell whether an interval is too wide to be of use: beyond a factor of 1.3 from end to end; None: too few runs.

    Example:
        >>> is_too_noisy(Ratio(1.0, 0.9, 1.1)), is_too_noisy(Ratio(1.0, 0.8, 1.3)), is_too_noisy(Ratio(1.0, None, None))
        (False, True, None)
    """
    if ratio.low is None or ratio.high is None:
        return None
    return ratio.high > _WIDEST * ratio.low


def _ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Ratio:
    if not baseline or not candidate:
        return Ratio(None, None, None)
    found = compute_difference({"here": baseline}, {"here": candidate})
    return Ratio(found.ratio, found.low, found.high)

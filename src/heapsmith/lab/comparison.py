"""A comparison: from outcomes to figures with intervals, and which differences are more than noise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from heapsmith.lab.statistics import (
    Difference,
    Spread,
    Strata,
    compute_difference,
    compute_spread,
    judge,
)
from heapsmith.lab.trials import Outcome, Workload
from heapsmith.peers.candidate import Candidate

Unit = Literal["seconds", "bytes", "count", "number"]


class Figure(msgspec.Struct, frozen=True):
    """One figure of a trial.

    Args:
        name: Its key in JSON documents.
        title: Its heading for people.
        unit: What it is measured in.
        read: Gets it from an outcome; None where it is unknown.
        note: One clause of explanation.
        less_is_better: Whether the smaller one wins; None where neither does.
    """

    name: str
    title: str
    unit: Unit
    read: Callable[[Outcome, Workload], float | None]
    note: str
    less_is_better: bool = True


def _time(outcome: Outcome, workload: Workload) -> float | None:
    return outcome.seen.load_s if workload.service is not None else outcome.seen.duration_s


def _cpu(outcome: Outcome, _: Workload) -> float | None:
    seen = outcome.seen
    return None if seen.user_s is None or seen.system_s is None else seen.user_s + seen.system_s


def _per_call(outcome: Outcome, workload: Workload) -> float | None:
    """Processor time per call of malloc's family: only a replay counts its calls."""
    total_s = _cpu(outcome, workload)
    if workload.replay is None or total_s is None:
        return None
    with_objects = workload.replay.objects_operations and "python=malloc" in outcome.candidate
    return total_s / (workload.replay.objects_operations if with_objects else workload.replay.operations)


def _blowup(outcome: Outcome, workload: Workload) -> float | None:
    resident, live = outcome.seen.resident_bytes_peak, outcome.seen.live_bytes_peak
    if workload.replay is not None:
        live = workload.replay.live_bytes_peak
    return resident / live if resident and live else None


def _end(outcome: Outcome, workload: Workload) -> float | None:
    return None if workload.service is not None else outcome.seen.resident_bytes_end


FIGURES: Final[tuple[Figure, ...]] = (
    Figure("time_s", "time", "seconds", _time, "wall clock: of the program, or of the load it served"),
    Figure("cpu_s", "processor time", "seconds", _cpu, "user and system, all processes"),
    Figure(
        "cpu_s_per_call", "time per call", "seconds", _per_call,
        "processor time of malloc, free and so on: the call, touching what it gave, the page faults of both",
    ),
    Figure(
        "throughput", "throughput", "number", lambda o, _: o.metric, "as the output reports it",
        less_is_better=False,
    ),
    Figure(
        "resident_bytes_peak", "resident, peak", "bytes", lambda o, _: o.seen.resident_bytes_peak,
        "largest sum over all processes",
    ),
    Figure(
        "resident_bytes_mean", "resident, average", "bytes", lambda o, _: o.seen.resident_bytes_mean,
        "over time",
    ),
    Figure("resident_bytes_end", "resident, at the end", "bytes", _end, "median of the last 20th of the run"),
    Figure(
        "resident_bytes_settled", "resident, after the load", "bytes",
        lambda o, _: o.seen.resident_bytes_settled, "median of the last second of settling",
    ),
    Figure(
        "charged_bytes_peak", "charged, peak", "bytes", lambda o, _: o.seen.charged_bytes_peak,
        "to a cgroup of its own, page cache included",
    ),
    Figure(
        "live_bytes_peak", "live, peak", "bytes", lambda o, _: o.seen.live_bytes_peak,
        "of the process that had the most; with --probe",
    ),
    Figure("allocations", "allocations", "count", lambda o, _: o.seen.allocations, "with --probe"),
    Figure("blowup", "blowup", "number", _blowup, "resident peak over live peak: with --probe, or of a trace"),
    Figure("page_faults", "page faults", "count", lambda o, _: o.seen.page_faults, "minor and major"),
    Figure(
        "context_switches", "context switches", "count", lambda o, _: o.seen.context_switches,
        "voluntary and involuntary",
    ),
)  # fmt: skip
"""Every figure of a trial, once: tables, JSON documents and pages read this list."""

FIGURE: Final = {figure.name: figure for figure in FIGURES}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one candidate.

    Args:
        candidate: The candidate.
        runs: Trials that went well.
        failed: Why it is out, or None.
        spreads: By figure, median and interval.
        differences: By figure, against the baseline; empty for the baseline itself.
        complaint: The last line it wrote to standard error when it failed.
        series: The trial nearest to the median peak: seconds and resident bytes.
    """

    candidate: Candidate
    runs: int
    failed: str | None
    spreads: dict[str, Spread]
    differences: dict[str, Difference]
    complaint: str = ""
    series: tuple[list[float], list[int]] = ([], [])


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Candidates compared on one workload.

    Args:
        workload: What was run.
        results: One for each candidate, the baseline first.
        workers: How many workers took part.
        interrupted: It was broken off: the figures are of the runs there were.
        too_few_runs: At least one difference could never have been told from noise with so few runs.
        accounting: Where the figures of memory come from, in a sentence.
    """

    workload: Workload
    results: list[Result]
    workers: int = 1
    interrupted: bool = False
    too_few_runs: bool = False
    accounting: str = ""

    @property
    def baseline(self) -> Result:
        """What the others are compared with."""
        return self.results[0]


def strata(outcomes: Sequence[Outcome], read: Callable[[Outcome], float | None]) -> Strata:
    """Sort values of a figure by the worker they were measured on."""
    by_worker: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        value = read(outcome)
        if outcome.failed is None and value is not None:
            by_worker[outcome.worker].append(float(value))
    return by_worker


def compute_comparison(
    workload: Workload,
    candidates: Sequence[Candidate],
    outcomes: Sequence[Outcome],
    *,
    interrupted: bool = False,
) -> Comparison:
    """Compare candidates with the first of them.

    Args:
        workload: What was run.
        candidates: The candidates, baseline first.
        outcomes: All trials, in any order.
        interrupted: It was broken off.
    """
    by_label: dict[str, list[Outcome]] = {candidate.label: [] for candidate in candidates}
    for outcome in outcomes:
        if outcome.candidate in by_label:
            by_label[outcome.candidate].append(outcome)
    base = by_label[candidates[0].label]
    differences = [_differences(base, by_label[candidate.label], workload) for candidate in candidates[1:]]
    return Comparison(
        workload=workload,
        results=[
            _result(workload, candidate, by_label[candidate.label], found)
            for candidate, found in zip(candidates, [{}, *differences], strict=True)
        ],
        workers=len({outcome.worker for outcome in outcomes}) or 1,
        interrupted=interrupted,
        too_few_runs=any(found.more_than_noise is None for pair in differences for found in pair.values()),
        accounting=_describe_accounting(outcomes),
    )


def _describe_accounting(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return ""
    inside = (
        "; inside, the watch counts (--probe)"
        if any(o.seen.allocations is not None for o in outcomes)
        else ""
    )
    if all(outcome.seen.charged_bytes_peak is not None for outcome in outcomes):
        return f"resident by /proc, charged by a cgroup for each run{inside}"
    why = next((outcome.seen.no_group for outcome in outcomes if outcome.seen.no_group), "")
    return f"resident by /proc; no cgroup can be made here{f' ({why})' if why else ''}{inside}"


def _differences(
    base: Sequence[Outcome], mine: Sequence[Outcome], workload: Workload
) -> dict[str, Difference]:
    if any(outcome.failed for outcome in mine):
        return {}
    everyone = [*base, *mine]
    known = [
        figure
        for figure in FIGURES
        if all(figure.read(outcome, workload) is not None for outcome in everyone)
    ]
    if not mine or not base or not known:
        return {}

    def table(outcomes: Sequence[Outcome], worker: str) -> NDArray[np.float64]:
        rows = [
            [float(figure.read(outcome, workload) or 0.0) for figure in known]
            for outcome in outcomes
            if outcome.worker == worker
        ]
        return np.array(rows).reshape(-1, len(known))

    workers = sorted({outcome.worker for outcome in base} & {outcome.worker for outcome in mine})
    verdicts = judge([(table(base, worker), table(mine, worker)) for worker in workers])
    found: dict[str, Difference] = {}
    for figure, verdict in zip(known, verdicts, strict=False):
        first, second = (
            strata(outcomes, lambda outcome, read=figure.read: read(outcome, workload))
            for outcomes in (base, mine)
        )
        found[figure.name] = msgspec.structs.replace(
            compute_difference(first, second), more_than_noise=verdict
        )
    return found


def _result(
    workload: Workload, candidate: Candidate, outcomes: Sequence[Outcome], differences: dict[str, Difference]
) -> Result:
    good = [outcome for outcome in outcomes if outcome.failed is None]
    bad = next((outcome for outcome in outcomes if outcome.failed is not None), None)
    spreads: dict[str, Spread] = {}
    for figure in FIGURES:
        values = [value for outcome in good if (value := figure.read(outcome, workload)) is not None]
        spreads[figure.name] = compute_spread(values)
    complaint = bad.seen.complaint.strip().splitlines() if bad is not None else []
    return Result(
        candidate=candidate,
        runs=len(good),
        failed=None if bad is None else bad.failed,
        spreads=spreads,
        differences=differences,
        complaint=complaint[-1] if complaint else "",
        series=_typical_series(good, spreads["resident_bytes_mean"].median),
    )


def _typical_series(good: Sequence[Outcome], mean: float | None) -> tuple[list[float], list[int]]:
    """Take the trial nearest to the median of the averages: a real course, not a blend of many."""
    if not good or mean is None:
        return [], []
    typical = min(good, key=lambda outcome: abs((outcome.seen.resident_bytes_mean or 0.0) - mean))
    return typical.seen.times_s, typical.seen.resident_bytes

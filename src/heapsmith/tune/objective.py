"""The objective: what "better" means, as one number per trial, and the verdict on a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from heapsmith.lab.compare import DEFAULT_RUNS
from heapsmith.lab.comparison import FIGURE, Comparison, Result, strata
from heapsmith.lab.statistics import FALSE_ALARMS, Difference, compute_difference, smallest_probability
from heapsmith.lab.trials import Outcome, Workload

Objective = Literal["memory", "time", "balanced"]
WEIGHT_OF_RESIDENT: Final[Mapping[Objective, float]] = {"memory": 0.85, "balanced": 0.5, "time": 0.15}
_RESIDENT_FIGURES: Final = (
    "resident_bytes_peak",
    "resident_bytes_mean",
    "resident_bytes_end",
    "resident_bytes_settled",
)
FEWEST_RUNS: Final = 5
"""So many runs of each can tell a difference at all; 4 cannot, however large it is."""
_USUAL: Final = 0.8
WORTH: Final = 0.05
"""A gain below this share is not worth a change in how a program is started."""


def compute_cost(outcome: Outcome, workload: Workload, objective: Objective) -> float | None:
    """Fold the figures of one trial into one number, less being better.

    It is the weighted geometric mean of what the trial took in time and in resident bytes: only ratios of it
    count, and halving the one is worth as much as halving the other (``balanced``). Time is half the clock
    (or the throughput, where the output reports one) and half the processors; resident is what stays after
    the load for a service, else peak and average.

    Args:
        outcome: The trial.
        workload: What was run.
        objective: What counts more.
    """
    time = compute_time(outcome, workload)
    resident = compute_resident(outcome)
    weight = WEIGHT_OF_RESIDENT[objective]
    if resident is None:
        return time
    if time is None:
        return resident
    return math.exp(weight * math.log(resident) + (1 - weight) * math.log(time))


def compute_usual(costs: Sequence[float]) -> float:
    """Return what four runs of five stay below: who is slow in every third run has a good median all the same.

    Example:
        >>> compute_usual([1.0, 1.0, 1.5, 1.0, 1.5])
        1.5
    """
    return float(np.quantile(costs, _USUAL)) if costs else math.inf


def compute_time(outcome: Outcome, workload: Workload) -> float | None:
    """Geometric mean of clock and processor time: neighbours on the machine disturb the clock more.

    Of a replay the processor time alone: its clock has the waiting of threads for each other in it.
    """
    if workload.replay is not None:
        return FIGURE["cpu_s"].read(outcome, workload)
    metric = outcome.metric
    clock = FIGURE["time_s"].read(outcome, workload)
    if metric is not None and metric > 0:
        clock = metric if workload.metric_less_is_better else 1 / metric
    processor = FIGURE["cpu_s"].read(outcome, workload)
    known = [value for value in (clock, processor) if value]
    return math.prod(known) ** (1 / len(known)) if known else None


def compute_resident(outcome: Outcome) -> float | None:
    """Resident bytes of a trial: what stays after the load for a service, else geometric mean of peak and average."""
    seen = outcome.seen
    if seen.resident_bytes_settled:
        return seen.resident_bytes_settled
    if seen.resident_bytes_peak and seen.resident_bytes_mean:
        return math.sqrt(seen.resident_bytes_peak * seen.resident_bytes_mean)
    return seen.resident_bytes_peak


def compare_costs(
    baseline: Sequence[Outcome],
    candidate: Sequence[Outcome],
    workload: Workload,
    objective: Objective,
    *,
    false_alarms: float = FALSE_ALARMS,
) -> Difference:
    """Compare two candidates by cost; the verdict is that of this one question."""
    first = strata(baseline, lambda outcome: compute_cost(outcome, workload, objective))
    second = strata(candidate, lambda outcome: compute_cost(outcome, workload, objective))
    found = compute_difference(first, second)
    if found.probability is None:
        return found
    sizes = [(len(first[worker]), len(second[worker])) for worker in first if worker in second]
    if smallest_probability(sizes) > false_alarms:
        return found
    return msgspec.structs.replace(found, more_than_noise=found.probability <= false_alarms)


def recommend(comparison: Comparison, outcomes: Sequence[Outcome], objective: Objective = "balanced") -> str:
    """Put a comparison into one sentence.

    Args:
        comparison: What was compared.
        outcomes: Its trials.
        objective: What counts more.
    """
    base = comparison.baseline
    of_base = [outcome for outcome in outcomes if outcome.candidate == base.candidate.label]
    best: tuple[float, Result] | None = None
    unsure = False
    for result in comparison.results[1:]:
        if result.failed is not None or not result.runs:
            continue
        mine = [outcome for outcome in outcomes if outcome.candidate == result.candidate.label]
        found = compare_costs(of_base, mine, comparison.workload, objective)
        unsure = unsure or found.more_than_noise is None
        if (
            found.more_than_noise
            and found.ratio is not None
            and found.ratio < (best[0] if best else 1 - WORTH)
        ):
            best = (found.ratio, result)
    if best is not None:
        return f"use {best[1].candidate.label}: " + describe_gain(best[1])
    if unsure:
        return f"too few runs to tell: give --runs {FEWEST_RUNS} or more ({DEFAULT_RUNS} tell smaller gains)"
    name = base.candidate.label
    return f"nothing to gain: keep {name}; no other is better by {100 * WORTH:.0f} % or more ({objective})"


def describe_gain(result: Result) -> str:
    """Say what differs from the baseline, in words: gains first, then costs."""
    gains: list[str] = []
    costs: list[str] = []
    for name in ("throughput", "time_s", "cpu_s", *_RESIDENT_FIGURES):
        difference = result.differences.get(name)
        if difference is None or not difference.more_than_noise or difference.ratio is None:
            continue
        figure = FIGURE[name]
        share = abs(difference.ratio - 1) * 100
        if share < 1:
            continue
        text = f"{figure.title} {share:.0f} % {'less' if difference.ratio < 1 else 'more'}"
        (gains if (difference.ratio < 1) == figure.less_is_better else costs).append(text)
    words = ", ".join(gains) or "no figure is better by more than noise"
    return f"{words}; it costs {', '.join(costs)}" if costs else words

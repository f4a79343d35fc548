"""Medians with intervals, ratios with intervals, and whether a difference is more than noise.

Nothing is assumed of the shape of the noise (on shared machines it is heavy-tailed and drifts): intervals of
a median are order statistics; two candidates are compared by the exact rank-sum test, the ratio between them
is the
Hodges-Lehmann estimate, and its interval is the inversion of the same test, so the interval excludes 1
exactly when the test
says so. Runs on several workers are strata: only runs on the same worker are ever compared. Sources:
Hollander, Wolfe,
Chicken,
*Nonparametric Statistical Methods* (3rd ed.), sections 3.6, 4.1 to 4.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
FALSE_ALARMS: Final = 0.01
"""How often a candidate compared with itself may seem to differ in any figure."""
_RELABELLINGS: Final = 9_999
_LEAST: Final = 1e-9
"""Stands for 0 among logarithms."""
_FINEST: Final = 1e-4
"""Differences of 0.01 % are noise even where every trial gives the same figure."""
Strata = Mapping[str, Sequence[float]]
"""Values of one candidate by the worker that they were measured on."""


class Spread(msgspec.Struct, frozen=True):
    """A median and its 95 % interval.

    Args:
        median: The median; None when nothing was measured.
        low: Lower end of the interval; None where so few values have no 95 % interval (fewer than 6).
        high: Upper end.
    """

    median: float | None
    low: float | None = None
    high: float | None = None


class Difference(msgspec.Struct, frozen=True):
    """How one candidate differs from another in one figure.

    Args:
        ratio: Candidate over baseline, the Hodges-Lehmann estimate; None when there is nothing to compare.
        low: Lower end of its 95 % interval; None where there are too few runs for one.
        high: Upper end.
        probability: How likely a difference this large is by noise alone (two-sided, exact).
        more_than_noise: The verdict, with all figures of the pair judged together; None: too few runs to
        tell.
    """

    ratio: float | None
    low: float | None = None
    high: float | None = None
    probability: float | None = None
    more_than_noise: bool | None = None


def compute_spread(values: Sequence[float]) -> Spread:
    """Compute the median and its distribution-free 95 % interval from order statistics.

    Args:
        values: ``(n,)`` measured values, in any order.

    Example:
        >>> compute_spread([5, 1, 4, 2, 3, 6])
        Spread(median=3.5, low=1.0, high=6.0)
        >>> compute_spread([1, 2, 3])
        Spread(median=2.0, low=None, high=None)
    """
    ordered = sorted(float(value) for value in values)
    count = len(ordered)
    if not count:
        return Spread(None)
    median = float(np.median(ordered))
    # From the k-th smallest to the k-th largest: misses the median with probability 2 P(Bin(n, 1/2) < k).
    missed, rank = 0.0, 0
    while rank < count // 2:
        missed += math.comb(count, rank) / 2**count
        if 2 * missed > 1 - CONFIDENCE:
            break
        rank += 1
    if rank == 0:
        return Spread(median)
    return Spread(median, ordered[rank - 1], ordered[count - rank])


def compute_difference(baseline: Strata, candidate: Strata) -> Difference:
    """Compare two candidates, worker by worker.

    Args:
        baseline: Values by worker.
        candidate: Values by worker; only workers in both count.

    Example:
        >>> found = compute_difference({"here": [10, 11, 12, 10, 11]}, {"here": [5, 6, 5, 6, 5]})
        >>> round(found.ratio, 2), found.probability < 0.01
        (0.5, True)
    """
    pairs = [
        (np.asarray(baseline[key], float), np.asarray(candidate[key], float))
        for key in baseline
        if key in candidate
    ]
    pairs = [(a, b) for a, b in pairs if len(a) and len(b)]
    if not pairs:
        return Difference(None)
    if any((a <= 0).any() or (b <= 0).any() for a, b in pairs):
        return _compare_with_zeros(pairs)
    ratios = np.sort(np.concatenate([np.log(b)[:, None] - np.log(a)[None, :] for a, b in pairs], axis=None))
    middle = float(np.exp(np.median(ratios)))
    probability = _rank_sum_probability(pairs)
    cut = _interval_cut([(len(a), len(b)) for a, b in pairs])
    if cut == 0:
        return Difference(middle, None, None, probability)
    return Difference(middle, float(np.exp(ratios[cut - 1])), float(np.exp(ratios[-cut])), probability)


def _compare_with_zeros(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Difference:
    """Compare figures that may be 0 (major faults): the ranks still tell, a ratio would not."""
    return Difference(None, probability=_rank_sum_probability(pairs))


def _rank_sum_probability(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    """Exact two-sided probability of the stratified rank sum under the permutations that leave strata alone.

    Ties get mid-ranks; doubled, these are whole numbers, so the distribution is counted, not approximated.
    """
    distribution = np.ones(1)
    observed = expected = 0
    for first, second in pairs:
        ranks = _doubled_ranks(np.concatenate([first, second]))
        observed += int(ranks[len(first) :].sum())
        expected += len(second) * (len(first) + len(second) + 1)
        distribution = np.convolve(distribution, _subset_sums(ranks, len(second)))
    distribution /= distribution.sum()
    sums = np.arange(len(distribution))
    distance = abs(observed - expected)
    return float(min(1.0, distribution[np.abs(sums - expected) >= distance].sum()))


def _doubled_ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (2 * last - counts + 1)[inverse]


def _subset_sums(ranks: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Count, for each sum, the share of subsets of ``size`` of the ranks that have it."""
    total = int(np.sort(ranks)[::-1][:size].sum())
    table = np.zeros((size + 1, total + 1))
    table[0, 0] = 1.0
    for rank in ranks.tolist():
        for chosen in range(size, 0, -1):
            table[chosen, rank:] += table[chosen - 1, : total + 1 - rank]
    row: NDArray[np.float64] = table[size]
    return row / row.sum()


def _interval_cut(sizes: Sequence[tuple[int, int]]) -> int:
    """How many of the smallest (and of the largest) pairwise ratios lie outside the 95 % interval."""
    distribution = np.ones(1)
    for first, second in sizes:
        # Without ties the rank sum less its minimum counts the pairs in which the candidate is larger.
        sums = _subset_sums(np.arange(1, first + second + 1), second)
        distribution = np.convolve(distribution, sums[second * (second + 1) // 2 :])
    tails = np.cumsum(distribution / distribution.sum())
    return int((2 * tails <= 1 - CONFIDENCE + 1e-12).sum())


def smallest_probability(sizes: Sequence[tuple[int, int]]) -> float:
    """Return the smallest probability that so many runs can give, all being as different as can be.

    Args:
        sizes: Runs of the baseline and of the candidate, for each worker.

    Example:
        >>> smallest_probability([(3, 3)]), round(smallest_probability([(5, 5)]), 4)
        (0.1, 0.0079)
    """
    return min(1.0, 2.0 / math.prod(math.comb(first + second, first) for first, second in sizes))


def judge(strata: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> list[bool | None]:
    """Decide for several figures at once which differ by more than noise, false alarms being 1 in 100.

    The figures of one pair of candidates are one family, and strongly related (peak and average go together),
    so they are judged by what relabelling the trials does to all of them together: Westfall and Young's
    step-down (*Resampling-Based Multiple Testing*, 1993, algorithm 2.8) over Yuen's trimmed t of logarithms
    (Wilcox, *Introduction to Robust Estimation*, 5.3), which from 8 trials on one outlier does not spoil.
    Under "no difference" trials on one worker are interchangeable, whatever the shape of the noise.

    Args:
        strata: For each worker, the trials of the two candidates, ``(n_first, n_figures)`` and
            ``(n_second, n_figures)``, none negative.

    Returns:
        For each figure whether it differs; None for all when there are too few trials to ever tell.

    Example:
        >>> first = np.array([[1.0, 5], [1.1, 5], [1.2, 6], [1.3, 5], [1.4, 6]])
        >>> judge([(first, first * [3.0, 1.0])])
        [True, False]
        >>> judge([(first[:4], first[:4] * 9)])
        [None, None]
    """
    strata = [pair for pair in strata if len(pair[0]) and len(pair[1])]
    figures = strata[0][0].shape[1] if strata else 0
    if not strata or smallest_probability([(len(a), len(b)) for a, b in strata]) > FALSE_ALARMS:
        return [None] * figures
    statistic = _relabelled_statistics(strata)
    observed = statistic[0]
    verdicts: list[bool | None] = [False] * figures
    left = list(np.argsort(-observed))
    while left:
        largest = statistic[:, left].max(axis=1)
        if (largest >= observed[left[0]] * (1 - 1e-9)).mean() > FALSE_ALARMS:
            break
        verdicts[left.pop(0)] = True
    return verdicts


def _relabelled_statistics(
    strata: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> NDArray[np.float64]:
    """Absolute trimmed t of every figure under relabellings, ``(n, n_figures)``; row 0 is as measured."""
    labels = [_relabellings(len(a), len(b), len(strata) == 1, index) for index, (a, b) in enumerate(strata)]
    above = below = 0.0
    for (first, second), chosen in zip(strata, labels, strict=True):
        logarithms = np.log(np.maximum(np.concatenate([first, second]), _LEAST))
        weight = len(first) + len(second)
        centre_1, variance_1 = _trimmed(_others(logarithms, chosen))
        centre_2, variance_2 = _trimmed(logarithms[chosen])
        above = above + weight * (centre_2 - centre_1)
        below = below + weight**2 * (variance_1 + variance_2 + _FINEST**2)
    return np.abs(above) / np.sqrt(below)


def _relabellings(first: int, second: int, alone: bool, stratum: int) -> NDArray[np.int64]:
    """Which trials are called the second candidate's, ``(n, n_second)``; row 0 is as measured."""
    measured = np.arange(first, first + second)[None, :]
    if alone and math.comb(first + second, second) <= _RELABELLINGS:
        return np.array(list(itertools.combinations(range(first + second), second)))[::-1]
    # Seeded: the same trials always get the same verdict.
    random = np.random.default_rng(stratum)
    order = random.permuted(np.tile(np.arange(first + second), (_RELABELLINGS, 1)), axis=1)
    return np.concatenate([measured, order[:, :second]])


def _others(values: NDArray[np.float64], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pick the trials that are not chosen, ``(n, n_first, n_figures)``."""
    free = np.ones((len(chosen), len(values)), dtype=bool)
    np.put_along_axis(free, chosen, False, axis=1)
    return values[np.nonzero(free)[1]].reshape(len(chosen), -1, values.shape[1])


def _trimmed(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean without the outer eighths, and the variance of that mean; ``(n, n_trials, n_figures)`` in."""
    count = values.shape[1]
    cut = count // 8
    ordered = np.sort(values, axis=1)
    inner = ordered[:, cut : count - cut]
    winsorised = np.clip(ordered, inner[:, :1], inner[:, -1:])
    spread = ((winsorised - winsorised.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    kept = count - 2 * cut
    return inner.mean(axis=1), spread / (kept * max(kept - 1, 1))

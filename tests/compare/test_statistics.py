"""The statistics: exact where they say exact, rarely wrong about noise, and not blind."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapsmith.lab.statistics import (
    FALSE_ALARMS,
    compute_difference,
    compute_spread,
    judge,
    smallest_probability,
)

samples = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5)


@given(first=samples, second=samples)
@settings(max_examples=60, deadline=None)
def test_the_probability_is_the_share_of_relabellings_at_least_as_extreme(first, second) -> None:
    values = np.array([*first, *second])
    ranks = np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])
    expected = len(second) * (len(values) + 1) / 2
    distance = abs(ranks[len(first) :].sum() - expected)
    sums = [
        abs(ranks[list(chosen)].sum() - expected)
        for chosen in itertools.combinations(range(len(values)), len(second))
    ]
    share = np.mean(np.array(sums) >= distance - 1e-9)
    assert compute_difference({"w": first}, {"w": second}).probability == pytest.approx(share)


@given(seed=st.integers(0, 2**32), count=st.integers(4, 9))
@settings(max_examples=60, deadline=None)
def test_the_interval_of_the_ratio_excludes_1_exactly_when_the_test_rejects(seed, count) -> None:
    random = np.random.default_rng(seed)
    first, second = random.lognormal(0, 0.2, count), random.lognormal(0.2, 0.2, count)
    found = compute_difference({"w": first.tolist()}, {"w": second.tolist()})
    assert found.low is not None and found.high is not None
    assert (found.probability <= 0.05) == (not found.low <= 1 <= found.high)


def test_the_interval_of_the_median_covers_it_95_times_in_100() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(2000):
        spread = compute_spread(random.pareto(2, 10).tolist())
        assert spread.low is not None and spread.high is not None
        covered += spread.low <= math.sqrt(2) - 1 <= spread.high
    assert covered / 2000 >= 0.95


def test_five_values_have_a_median_and_no_95_percent_interval() -> None:
    assert compute_spread([3, 1, 2, 5, 4]).low is None
    assert compute_spread([]).median is None


def noise(random: np.random.Generator, trials: int, kind: str) -> np.ndarray:
    """Figures of trials without any difference, related among each other, on a machine of that kind."""
    shared = random.normal(size=(trials, 1)) * 0.02
    values = np.exp(shared + random.normal(size=(trials, 7)) * 0.02)
    if kind == "heavy tails":
        values *= 1 + random.pareto(2, size=values.shape) * 0.05
    elif kind == "drift":
        values *= np.linspace(1, 1.3, trials)[:, None]
    elif kind == "slow swings":
        level = 0.0
        for index in range(trials):
            level = 0.9 * level + random.normal() * 0.05
            values[index] *= math.exp(level)
    elif kind == "coarse":
        values = np.round(values, 2)
    return values


@pytest.mark.parametrize("kind", ["even", "heavy tails", "drift", "slow swings", "coarse"])
@pytest.mark.parametrize("runs", [5, 10])
def test_a_candidate_compared_with_itself_rarely_seems_to_differ(kind: str, runs: int) -> None:
    random = np.random.default_rng(11)
    families = 250
    alarms = 0
    for _ in range(families):
        values = noise(random, 2 * runs, kind)
        labels = np.concatenate([random.permutation([0, 1]) for _ in range(runs)])
        alarms += any(judge([(values[labels == 0], values[labels == 1])]))
    # 0.01 is the promise; 250 families may show three times that by chance once in a thousand.
    assert alarms / families <= 3.2 * FALSE_ALARMS


def test_what_is_a_third_slower_is_seen_with_five_runs_and_noise_of_four_percent() -> None:
    random = np.random.default_rng(2)
    seen = 0
    for _ in range(100):
        first = np.exp(random.normal(size=(5, 7)) * 0.04)
        second = np.exp(random.normal(size=(5, 7)) * 0.04) * np.array([1.33, 1, 1, 1, 1, 1, 1])
        verdicts = judge([(first, second)])
        seen += bool(verdicts[0])
    assert seen >= 90


def test_four_runs_are_too_few_to_tell_whatever_they_show() -> None:
    first = np.full((4, 2), 1.0) + np.arange(4)[:, None] / 100
    assert judge([(first, first * 10)]) == [None, None]
    assert smallest_probability([(4, 4)]) > FALSE_ALARMS


def test_workers_of_different_speed_do_not_look_like_a_difference() -> None:
    random = np.random.default_rng(5)
    fast = random.lognormal(0, 0.01, 6).tolist()
    slow = (random.lognormal(0, 0.01, 6) * 3).tolist()
    # The baseline ran mostly on the fast worker: pooled, the candidate would look slow.
    found = compute_difference({"fast": fast, "slow": slow[:2]}, {"fast": fast[:2], "slow": slow})
    assert found.probability is not None and found.probability > 0.2
    assert found.ratio == pytest.approx(1, abs=0.05)


def test_a_difference_on_workers_of_different_speed_is_seen() -> None:
    random = np.random.default_rng(6)
    pairs = []
    for speed in (1.0, 3.0):
        base = random.lognormal(0, 0.02, (6, 3)) * speed
        pairs.append((base, random.lognormal(0, 0.02, (6, 3)) * speed * np.array([1.2, 1.0, 1.0])))
    assert judge(pairs) == [True, False, False]


def test_figures_that_are_zero_are_compared_by_rank_and_have_no_ratio() -> None:
    found = compute_difference({"w": [0, 0, 0, 1, 0]}, {"w": [9, 8, 9, 7, 9]})
    assert found.ratio is None
    assert found.probability is not None and found.probability < 0.01

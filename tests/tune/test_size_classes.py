"""The best size classes are the best: the quick way finds what the plain way finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapsmith.tune.size_classes import (
    MOST_CLASSES,
    bytes_per_block,
    candidate_bytes,
    fill_gaps,
    histogram,
    propose,
    solve_all,
    unite,
    waste_bytes,
)


def solve_plainly(
    takes: np.ndarray, having: np.ndarray, numbers: np.ndarray, requested: np.ndarray, k: int
) -> float:
    """Try every set of k classes."""
    best = np.inf
    for inner in itertools.combinations(range(len(takes) - 1), k - 1):
        cost, begin = 0.0, 0
        for end in (*(place + 1 for place in inner), len(takes)):
            cost += takes[end - 1] * (numbers[end] - numbers[begin]) - (requested[end] - requested[begin])
            cost += having[end - 1]
            begin = end
        best = min(best, cost)
    return best


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_quick_way_finds_the_best_of_all_sets(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    sizes = np.cumsum(data.draw(st.lists(st.integers(1, 50), min_size=count, max_size=count)))
    takes = (sizes + np.sort(data.draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)))).astype(
        float
    )
    having = np.array(data.draw(st.lists(st.integers(0, 500), min_size=count, max_size=count)), float)
    objects = np.array(data.draw(st.lists(st.integers(0, 100), min_size=count, max_size=count)), float)
    numbers = np.concatenate([[0.0], np.cumsum(objects)])
    requested = np.concatenate([[0.0], np.cumsum(objects * sizes)])
    cost, begins = solve_all(takes, having, numbers, requested, 4)
    for k in range(1, min(4, count) + 1):
        assert cost[k] == pytest.approx(solve_plainly(takes, having, numbers, requested, k))
        place = count
        for left in range(k, 0, -1):
            assert 0 <= begins[left, place] < place
            place = begins[left, place]
        assert place == 0


def test_every_candidate_takes_no_more_than_a_larger_one() -> None:
    takes, instead = bytes_per_block()
    assert (np.diff(takes) >= 0).all()
    assert (instead >= np.arange(len(takes))).all()
    assert (takes >= candidate_bytes()).all()


def test_one_size_needs_one_class() -> None:
    weights = histogram(np.full(100_000, 4361, np.uint64))
    classes = propose(weights)[2]
    assert waste_bytes(classes, weights) / weights[1].sum() < 0.01


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 32768), min_size=1, max_size=200), st.integers(1, 8))
def test_more_classes_waste_no_more_and_all_are_aligned(sizes: list[int], steps: int) -> None:
    weights = histogram(np.array(sizes, np.uint64))
    proposals = propose(weights, having_share=0.0)
    takes, _ = bytes_per_block()
    of = dict(zip(candidate_bytes().tolist(), takes.tolist(), strict=True))

    def cost(classes: list[int]) -> float:
        held = np.asarray(classes)[np.searchsorted(classes, np.array(sizes))]
        return sum(of[int(size)] for size in held)

    costs = [cost(proposals[k]) for k in range(1, MOST_CLASSES + 1)]
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(costs))
    for classes in proposals.values():
        assert classes[-1] == 32768
        assert all(size % 16 == 0 for size in classes)
    geometric = unite([], 1 << (steps.bit_length() - 1))
    united = unite(proposals[8], 1 << (steps.bit_length() - 1))
    assert waste_bytes(united, weights) <= waste_bytes(geometric, weights)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 32768), min_size=1, max_size=200), st.sampled_from([1, 2, 6, 16, 64]))
def test_a_size_that_was_not_seen_gets_less_than_twice_what_it_asks_for(sizes: list[int], k: int) -> None:
    classes = propose(histogram(np.array(sizes, np.uint64)))[k]
    filled = np.array(fill_gaps(classes))
    assert set(classes) <= set(filled.tolist())
    asked = np.arange(17, 32769)
    assert np.all(filled[np.searchsorted(filled, asked)] < 2 * asked)

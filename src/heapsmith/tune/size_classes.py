"""Size classes that fit a histogram, by exact dynamic programming.

Serving the sizes between candidate i (excluded) and candidate j by one class costs

    w(i, j) = e_j (N_j - N_i) - (S_j - S_i) + g_j

where N and S are the numbers and bytes of objects up to a candidate, e_j the bytes of a span per block of class j (the
unused tail of the span included), and g_j the cost of having the class at all. With e rising, w keeps the quadrangle
inequality, so the best last boundary rises with j, and divide and conquer finds all optima for k classes from those for
k - 1 in O(n log n) (Galil and Park, 1992). Tails make e fall here and there: a class that costs more per block than a
larger one is never better than that larger one, which then stands in its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from heapsmith.spec.size_classes import MALLOC_ALIGNMENT, PAGE_BYTES, geometric_classes
from heapsmith.tune.geometry import compute_shapes
from heapsmith.units import KiB

SMALL_BYTES: Final = 32 * KiB
"""The largest class that shares spans; larger blocks have spans of their own, rounded to pages."""
MOST_CLASSES: Final = 64


@cache
def candidate_bytes() -> NDArray[np.int64]:
    """Return every size that a class may have, ``(2048,)``: the multiples of malloc's alignment up to `SMALL_BYTES`."""
    return np.arange(MALLOC_ALIGNMENT, SMALL_BYTES + 1, MALLOC_ALIGNMENT, dtype=np.int64)


@cache
def bytes_per_block() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what a block of each candidate takes of its span, and which candidate to use in its place.

    Returns:
        ``(2048,)`` bytes, rising; ``(2048,)`` numbers of candidates, each at or above its own.
    """
    sizes = candidate_bytes()
    pages, blocks = compute_shapes(sizes.tolist())
    takes = pages * PAGE_BYTES / blocks
    best = np.arange(len(sizes))
    for number in range(len(sizes) - 2, -1, -1):
        if takes[best[number + 1]] <= takes[number]:
            best[number] = best[number + 1]
    return takes[best], best


def histogram(
    size_bytes: NDArray[np.unsignedinteger], weight: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Count objects by candidate.

    Args:
        size_bytes: ``(n,)`` requested; those beyond `SMALL_BYTES` are left out.
        weight: ``(n,)`` how much each counts; 1 when left out.

    Returns:
        ``(2, 2048)``: numbers, and bytes, of the objects that each candidate is the first to hold.
    """
    small = size_bytes <= SMALL_BYTES
    place = np.maximum((size_bytes[small].astype(np.int64) + MALLOC_ALIGNMENT - 1) // MALLOC_ALIGNMENT, 1) - 1
    weights = np.ones(len(place)) if weight is None else weight[small]
    count = len(candidate_bytes())
    rows = [np.bincount(place, each, minlength=count) for each in (weights, weights * size_bytes[small])]
    return np.stack(rows).astype(np.float64)


@numba.njit(cache=True)
def solve_all(
    takes: NDArray[np.float64],
    having: NDArray[np.float64],
    numbers: NDArray[np.float64],
    requested: NDArray[np.float64],
    most: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Find the best 1, 2, ... `most` classes, the last candidate always among them.

    Args:
        takes: ``(n,)`` bytes that a block takes, rising (e).
        having: ``(n,)`` bytes that it costs to have the class (g).
        numbers: ``(n + 1,)`` prefix sums of objects (N).
        requested: ``(n + 1,)`` prefix sums of their bytes (S).
        most: Classes at most.

    Returns:
        ``(most + 1,)`` cost of the best k classes; ``(most + 1, n + 1)`` where the best last class of the first j
        candidates begins.
    """
    count = len(takes)
    cost = np.full(most + 1, np.inf)
    begins = np.zeros((most + 1, count + 1), np.int32)
    before = np.full(count + 1, np.inf)
    before[0] = 0.0
    now = np.empty(count + 1)
    pending = np.empty((64, 4), np.int64)
    for k in range(1, most + 1):
        now[:] = np.inf
        pending[0] = 1, count, 0, count - 1
        left = 1
        while left > 0:
            left -= 1
            low, high, first, last = pending[left]
            if low > high:
                continue
            middle = (low + high) // 2
            best = np.inf
            place = first
            for i in range(first, min(middle - 1, last) + 1):
                value = (
                    before[i]
                    + takes[middle - 1] * (numbers[middle] - numbers[i])
                    - (requested[middle] - requested[i])
                    + having[middle - 1]
                )
                if value < best:
                    best = value
                    place = i
            now[middle] = best
            begins[k, middle] = place
            pending[left] = low, middle - 1, first, place
            pending[left + 1] = middle + 1, high, place, last
            left += 2
        before[:] = now
        cost[k] = now[count]
    return cost, begins


def propose(
    weights: NDArray[np.float64], having_share: float = 0.5, heaps: float = 1.0
) -> dict[int, list[int]]:
    """Propose the best classes for every number of classes.

    Args:
        weights: ``(2, 2048)`` what `histogram` counted; sums of several are fine.
        having_share: How much of a span each class leaves unfilled.
        heaps: How many heaps (arenas, or threads with spans of their own) pay for that.

    Returns:
        By number of classes the classes, smallest first, the largest always `SMALL_BYTES`.
    """
    sizes = candidate_bytes()
    takes, instead = bytes_per_block()
    pages, _ = compute_shapes(sizes.tolist())
    having = (heaps * having_share * PAGE_BYTES * pages[instead]).astype(np.float64)
    numbers, requested = (np.concatenate([[0.0], np.cumsum(row)]) for row in weights)
    _, begins = solve_all(takes, having, numbers, requested, MOST_CLASSES)
    proposals: dict[int, list[int]] = {}
    for k in range(1, MOST_CLASSES + 1):
        place = len(sizes)
        chosen: set[int] = set()
        for left in range(k, 0, -1):
            chosen.add(int(sizes[instead[place - 1]]))
            place = int(begins[left, place])
        proposals[k] = sorted(chosen)
    return proposals


def unite(classes: Sequence[int], steps_per_doubling: int = 4) -> list[int]:
    """Unite classes with geometric ones: never worse than those, whatever the program does another day.

    Example:
        >>> unite([4368], 1)[-6:]
        [2048, 4096, 4368, 8192, 16384, 32768]
    """
    return sorted({*classes, *geometric_classes(MALLOC_ALIGNMENT, SMALL_BYTES, steps_per_doubling)})


def fill_gaps(classes: Sequence[int], steps_per_doubling: int = 2) -> list[int]:
    """Put geometric classes where the next class is more than twice as large: no size that was not seen wastes more.

    Example:
        >>> fill_gaps([16, 32, 400, 512])
        [16, 32, 48, 64, 96, 128, 192, 256, 384, 400, 512]
    """
    filled = set(classes)
    geometric = geometric_classes(MALLOC_ALIGNMENT, SMALL_BYTES, steps_per_doubling)
    for before, after in itertools.pairwise(sorted({MALLOC_ALIGNMENT, *classes})):
        if after > 2 * before:
            filled.update(one for one in geometric if before < one < after)
    return sorted(filled)


def waste_bytes(classes: Sequence[int], weights: NDArray[np.float64]) -> float:
    """Compute the bytes that requests leave unused in blocks of these classes."""
    sizes = candidate_bytes()
    held = np.asarray(classes)[np.searchsorted(classes, sizes)]
    return float((held * weights[0] - weights[1]).sum())

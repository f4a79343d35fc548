"""Capacities of thread caches: blocks where they save most trips to the central heap per byte they may hold back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from heapsmith.tune.life import BIRTH, CHANGE, DEATH, KIND_SHIFT, PLACE_MASK, Life

LADDER: Final = (2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Capacities that are tried: two magazines of half of it each."""


@numba.njit(cache=True)
def _count_misses(
    steps: NDArray[np.uint32],
    sizes: NDArray[np.uint32],
    threads: NDArray[np.uint16],
    class_of: NDArray[np.uint8],
    largest: int,
    places: int,
    thread_count: int,
    ladder: NDArray[np.int64],
    misses: NDArray[np.int64],
    used: NDArray[np.uint8],
) -> None:
    """Count, for each capacity and class, the trips that threads with such caches would make; one walk for all."""
    held = np.zeros((thread_count, misses.shape[1], len(ladder)), np.int32)
    class_at = np.full(places, 255, np.uint8)
    for i in range(len(steps)):
        kind = steps[i] >> KIND_SHIFT
        place = steps[i] & PLACE_MASK
        t = threads[i]
        if kind in (DEATH, CHANGE):
            index = class_at[place]
            if index != 255:
                for k in range(len(ladder)):
                    if held[t, index, k] < ladder[k]:
                        held[t, index, k] += 1
                    else:
                        misses[k, index] += 1
                        held[t, index, k] = ladder[k] // 2 + 1
        if kind in (BIRTH, CHANGE):
            size = sizes[i]
            index = np.uint8(255)
            if size <= largest:
                index = class_of[(np.int64(size) + 15) >> 4]
                used[t, index] = 1
                for k in range(len(ladder)):
                    if held[t, index, k] > 0:
                        held[t, index, k] -= 1
                    else:
                        misses[k, index] += 1
                        held[t, index, k] = ladder[k] // 2 - 1
            class_at[place] = index


def count_misses(life: Life, class_bytes: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count trips to the central heap by capacity and class.

    Args:
        life: The program.
        class_bytes: The classes, at most 250.

    Returns:
        ``(len(LADDER), classes)`` trips; ``(classes,)`` threads that use a class.
    """
    sizes = np.array(class_bytes)
    class_of = np.searchsorted(sizes, np.arange(0, int(sizes[-1]) + 16, 16)).astype(np.uint8)
    misses = np.zeros((len(LADDER), len(sizes)), np.int64)
    used = np.zeros((life.thread_count, len(sizes)), np.uint8)
    _count_misses(
        life.steps, life.sizes, life.threads, class_of, int(sizes[-1]), life.places + 1, life.thread_count,
        np.array(LADDER), misses, used,
    )  # fmt: skip
    return misses, used.sum(axis=0, dtype=np.int64)


def choose_capacities(
    class_bytes: Sequence[int],
    misses: NDArray[np.int64],
    used_by: NDArray[np.int64],
    steps: int,
    share: float,
) -> tuple[int, ...]:
    """Raise capacities where that saves most trips per byte, until so small a share of the calls makes one.

    Args:
        class_bytes: The classes.
        misses: ``(len(LADDER), classes)`` as `count_misses` counts them.
        used_by: ``(classes,)`` threads that use each.
        steps: Calls in all.
        share: Of the calls, that may make a trip.

    Returns:
        For each class the blocks that a thread may hold.
    """
    level = np.zeros(len(class_bytes), np.int64)
    cost = np.array(LADDER)[:, None] * np.array(class_bytes)[None, :] * np.maximum(used_by, 1)[None, :]
    left = float(misses[0].sum())
    while left > share * steps:
        best = (0.0, 0, 0)
        for index in np.flatnonzero(used_by):
            now = level[index]
            for above in range(now + 1, len(LADDER)):
                saved = float(misses[now, index] - misses[above, index])
                gain = saved / float(cost[above, index] - cost[now, index])
                if gain > best[0]:
                    best = (gain, int(index), above)
        if best[0] <= 0:
            break
        _, index, above = best
        left -= float(misses[level[index], index] - misses[above, index])
        level[index] = above
    return tuple(int(LADDER[number]) for number in level)

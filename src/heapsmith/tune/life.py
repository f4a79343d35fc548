"""The life of a program's blocks as compact columns: what the simulator walks over, again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from heapsmith.errors import TraceError
from heapsmith.lab.replay import compiling
from heapsmith.lab.replay.plan import Part, check_replayable, choose_process, read_calls
from heapsmith.trace import Operation, Trace
from heapsmith.tune.size_classes import SMALL_BYTES, histogram

BIRTH: Final = 0
DEATH: Final = 1
CHANGE: Final = 2
THREAD_END: Final = 3
KIND_SHIFT: Final = 30
PLACE_MASK: Final = (1 << KIND_SHIFT) - 1
CLOCK_STEPS: Final = 256
NOWHERE: Final = 0xFFFFFFFF
_LARGEST: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class Life:
    """Every birth and death of a block, in order.

    Attributes:
        steps: ``(n,)`` kind (upper two bits) and place: a number that only one living block has at a time.
        sizes: ``(n,)`` requested bytes of births and changes.
        threads: ``(n,)`` who did it.
        clock_ms: ``(n / 256,)`` recorded time of every 256th step.
        places: How many places there are.
        thread_count: How many threads.
        live_bytes_peak: Requested, exact.
        peak_step: Where that is.
        live_bytes_mean: Over time.
        at_peak: ``(2, 2048)`` small blocks live at the peak, by candidate size.
        on_average: ``(2, 2048)`` small blocks live on average over time, by candidate size.
        large_bytes_at_peak: Bytes of blocks beyond the small ones at the peak.
        notes: What is missing.
    """

    steps: NDArray[np.uint32]
    sizes: NDArray[np.uint32]
    threads: NDArray[np.uint16]
    clock_ms: NDArray[np.int64]
    places: int
    thread_count: int
    live_bytes_peak: int
    peak_step: int
    live_bytes_mean: float
    at_peak: NDArray[np.float64]
    on_average: NDArray[np.float64]
    large_bytes_at_peak: int
    notes: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """From first to last step, as recorded."""
        return float(self.clock_ms[-1] - self.clock_ms[0]) / 1000

    def __len__(self) -> int:
        return len(self.steps)


@numba.njit(cache=True)
def take_steps(
    kinds: NDArray[np.uint8],
    ended: NDArray[np.bool_],
    thread: NDArray[np.uint32],
    born: NDArray[np.int64],
    died: NDArray[np.int64],
    size_bytes: NDArray[np.uint64],
    place_of: NDArray[np.uint32],
    free_places: NDArray[np.uint32],
    state: NDArray[np.int64],
    steps: NDArray[np.uint32],
    sizes: NDArray[np.uint32],
    threads: NDArray[np.uint16],
    events: NDArray[np.int64],
) -> int:
    """Write the steps of a batch; `state` is [places, free ones]; answers how many."""
    at = 0
    for i in range(len(kinds)):
        threads[at] = thread[i]
        events[at] = i
        sizes[at] = 0
        if ended[i]:
            steps[at] = np.uint32(THREAD_END << KIND_SHIFT)
            at += 1
            continue
        if kinds[i] == compiling.NOTHING:
            continue
        dead = died[i]
        place = np.uint32(NOWHERE)
        if dead >= 0:
            place = place_of[dead]
            place_of[dead] = NOWHERE
        kind = CHANGE
        if born[i] < 0:
            if place == NOWHERE:
                continue
            kind = DEATH
            free_places[state[1]] = place
            state[1] += 1
        else:
            if place == NOWHERE:
                kind = BIRTH
                if state[1] > 0:
                    state[1] -= 1
                    place = free_places[state[1]]
                else:
                    place = np.uint32(state[0])
                    state[0] += 1
            place_of[born[i]] = place
            sizes[at] = min(size_bytes[i], np.uint64(_LARGEST))
        steps[at] = np.uint32(kind << KIND_SHIFT) | place
        at += 1
    return at


@numba.njit(cache=True)
def _weigh(
    steps: NDArray[np.uint32],
    sizes: NDArray[np.uint32],
    clock_ms: NDArray[np.int64],
    places: int,
    small_bytes: int,
    at_peak: NDArray[np.float64],
    average: NDArray[np.float64],
) -> tuple[int, int, float, int]:
    """Find the peak, and the small blocks of every size at the peak and on average."""
    size_of = np.zeros(places, np.int64)
    born_at = np.zeros(places, np.int64)
    live = peak = 0
    peak_step = 0
    total_ms = max(1, clock_ms[-1] - clock_ms[0])
    by_time = clock_ms[-1] - clock_ms[0] >= 10
    span = total_ms if by_time else len(steps)
    area = 0.0
    for turn in range(2):
        live = 0
        for i in range(len(steps)):
            kind = steps[i] >> KIND_SHIFT
            if kind == THREAD_END:
                continue
            place = steps[i] & PLACE_MASK
            now = clock_ms[i // CLOCK_STEPS] if by_time else i
            if kind != BIRTH:
                size = size_of[place]
                live -= size
                if turn == 0:
                    held = (now - born_at[place]) / span
                    area += size * held
                    if size <= small_bytes:
                        grain = max((size + 15) // 16, 1) - 1
                        average[0, grain] += held
                        average[1, grain] += held * size
                elif size <= small_bytes:
                    grain = max((size + 15) // 16, 1) - 1
                    at_peak[0, grain] -= 1
                    at_peak[1, grain] -= size
                size_of[place] = 0
            if kind != DEATH:
                size = np.int64(sizes[i])
                size_of[place] = size
                born_at[place] = now
                live += size
                if turn == 1 and size <= small_bytes:
                    grain = max((size + 15) // 16, 1) - 1
                    at_peak[0, grain] += 1
                    at_peak[1, grain] += size
                if turn == 0 and live > peak:
                    peak = live
                    peak_step = i
            if turn == 1 and i == peak_step:
                break
        if turn == 0:
            end = clock_ms[-1] if by_time else len(steps)
            for place in range(places):
                size = size_of[place]
                if size > 0:
                    held = (end - born_at[place]) / span
                    area += size * held
                    if size <= small_bytes:
                        grain = max((size + 15) // 16, 1) - 1
                        average[0, grain] += held
                        average[1, grain] += held * size
                size_of[place] = 0
    small = at_peak[1].sum()
    return int(peak), peak_step, float(area), int(peak - small)


def read_life(
    trace: Trace,
    *,
    pid: int | None = None,
    python_objects: bool = False,
    part: Part | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Life:
    """Read the life of a recorded process's blocks: about 10 bytes of memory per event.

    Args:
        trace: The trace.
        pid: The process; the one with the most events when left out.
        python_objects: Blocks out of CPython's own arenas are malloc's too.
        part: Only the events before its end (its beginning is not looked at).
        progress: Told what share is read.

    Raises:
        TraceError: The trace cannot be replayed, or nothing is left of it.
    """
    process = choose_process(trace, pid)
    notes = check_replayable(trace, process)
    columns: dict[str, list[NDArray[Any]]] = {"steps": [], "sizes": [], "threads": [], "times": []}
    place_of = np.full(1 << 16, NOWHERE, np.uint32)
    free_places = np.zeros(1 << 16, np.uint32)
    state = np.zeros(2, np.int64)
    for batch, kinds in read_calls(trace, process.index, part or Part(), python_objects=python_objects):
        count = len(batch)
        objects = int(batch.born.max(initial=-1)) + 1
        if objects > len(place_of):
            more = np.full(max(objects, 2 * len(place_of)) - len(place_of), NOWHERE, np.uint32)
            place_of = np.concatenate([place_of, more])
        if int(state[0]) + count > len(free_places):
            free_places = np.concatenate([free_places, np.zeros(int(state[0]) + count, np.uint32)])
        steps, sizes = np.empty(count + 1, np.uint32), np.empty(count + 1, np.uint32)
        threads, events = np.empty(count + 1, np.uint16), np.empty(count + 1, np.int64)
        behind = None if part is None else part.behind
        ended = batch.operation == Operation.THREAD_END
        if behind is not None:
            ended &= np.arange(count) + batch.first_event < behind
        taken = take_steps(
            kinds, ended, batch.thread & np.uint32(0xFFFF), batch.born, batch.died, batch.size_bytes,
            place_of, free_places, state, steps, sizes, threads, events,
        )  # fmt: skip
        columns["steps"].append(steps[:taken].copy())
        columns["sizes"].append(sizes[:taken].copy())
        columns["threads"].append(threads[:taken].copy())
        # The clock is read off at every 256th step of the whole.
        columns["times"].append((batch.time_ns[events[:taken]] // 1_000_000).astype(np.int32))
        progress((batch.first_event + count) / max(1, process.events))
    if not columns["steps"] or not any(len(part) for part in columns["steps"]):
        raise TraceError(f"{trace.path} cannot be used", "it holds no call of malloc", "record a longer run")
    steps = np.concatenate(columns["steps"])
    sizes = np.concatenate(columns["sizes"])
    clock_ms = np.concatenate(columns["times"])[::CLOCK_STEPS].astype(np.int64)
    threads = np.concatenate(columns["threads"])
    candidates = histogram(np.zeros(0, np.uint64)).shape[1]
    at_peak, average = np.zeros((2, candidates)), np.zeros((2, candidates))
    peak, peak_step, mean, large = _weigh(
        steps, sizes, clock_ms, int(state[0]), SMALL_BYTES, at_peak, average
    )
    return Life(
        steps=steps,
        sizes=sizes,
        threads=threads,
        clock_ms=clock_ms - clock_ms[0],
        places=int(state[0]),
        thread_count=int(threads.max(initial=0)) + 1,
        live_bytes_peak=int(peak),
        peak_step=int(peak_step),
        live_bytes_mean=float(mean),
        at_peak=at_peak,
        on_average=average,
        large_bytes_at_peak=int(large),
        notes=tuple(notes),
    )

"""The slab simulator: what a forged heap would hold at every moment of a recorded life, without forging it.

It walks over a life with the decisions of `native/heap/thread_cache.h`, `central.h` and `page_heap.h`, which are in
`cache_simulation`, `central_simulation` and `page_simulation`: which span every block lies in, which magazines every
thread holds, which pages are resident. Only what does not change where blocks lie is left out: locks, addresses, the
order of blocks within a page.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.lab.replay import compiling
from heapsmith.spec import (
    BoundedCache,
    FixedCache,
    HeapSpec,
    HugePages,
    NoCache,
    PurgeAfter,
    PurgeAtOnce,
    PurgeOnDemand,
    RemoteBatch,
)
from heapsmith.trace import EventBatch, Operation
from heapsmith.tune import cache_simulation, central_simulation, page_simulation
from heapsmith.tune.cache_simulation import (
    CAPACITY,
    HELD,
    LIST_AT,
    SPARE_AT,
    allocate,
    change,
    end_thread,
    free,
)
from heapsmith.tune.central_simulation import (
    BATCHES_AT_MOST,
    BROKEN,
    BYTES,
    CLASS,
    CLASS_COLUMNS,
    LARGE,
    LARGEST,
    LIMIT,
    MAGAZINE,
    MAINTENANCE_MS,
    MISSED,
    MOST_HELD,
    RETIRED,
    SHELF,
    SPAN_BLOCKS,
    SPAN_PAGES,
    SPANS,
    TOP,
    Central,
)
from heapsmith.tune.geometry import constants, shapes_of
from heapsmith.tune.life import (
    BIRTH,
    CHANGE,
    CLOCK_STEPS,
    DEATH,
    KIND_SHIFT,
    NOWHERE,
    PLACE_MASK,
    Life,
    take_steps,
)
from heapsmith.tune.page_simulation import (
    FAULTS,
    FULL,
    HUGE_AFTER,
    KEEP_BYTES,
    KEEP_MS,
    KEEP_SHARE,
    MAPPED,
    NEVER,
    NOBODY,
    NOW_MS,
    PAGE_BYTES,
    PEAK_STEP,
    PURGES,
    RESIDENT,
    RESIDENT_PEAK,
    REST_BYTES,
    REST_SHARE,
    STEP,
    Pages,
    make_pages,
    walking,
)

_SAMPLES: Final = 500
_THREADS: Final = 512
"""Threads that a walk in parts tells apart; beyond, numbers are used again."""
_CACHE_BYTES_PER_CLASS: Final = 33
"""Of a thread cache: a list, a spare and a mark for each class."""


@dataclass(frozen=True)
class Holding:
    """What a heap would hold.

    Attributes:
        resident_bytes_peak: The largest, metadata included.
        resident_bytes_mean: Over time.
        resident_bytes_end: After the last step.
        peak_step: Where the peak is.
        samples: ``(n, 2)`` step and resident bytes.
        missed: ``(classes,)`` trips to the central heap.
        page_faults: Pages that became resident.
        purges: Runs of pages that were given back.
        metadata_bytes: What the heap needs for itself at the end.
    """

    resident_bytes_peak: int
    resident_bytes_mean: float
    resident_bytes_end: int
    peak_step: int
    samples: NDArray[np.int64]
    missed: NDArray[np.int64]
    page_faults: int
    purges: int
    metadata_bytes: int


def _read_sources() -> int:
    """Make a number of the files that the walk is compiled from."""
    modules = (cache_simulation, central_simulation, page_simulation)
    contents = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    return int.from_bytes(hashlib.sha256(contents).digest()[:7])


def _make_walk(sources: int) -> Any:
    """Make the walk. What numba keeps of it on disk is found by this file and by the numbers that it refers to."""

    @walking
    def walk(
        steps: Any,
        sizes: Any,
        threads: Any,
        clock_ms: Any,
        c: Central,
        p: Pages,
        where: Any,
        every: int,
        samples: Any,
    ) -> tuple[int, float, int]:
        """Walk over a life; answers how far it came, the area under the resident pages over time, and the samples taken."""
        _ = sources
        area = 0.0
        taken = 0
        last_ms = clock_ms[0]
        by_time = clock_ms[-1] > clock_ms[0]
        lists, stack, spans, class_of, largest = c.lists, c.stack, c.spans, c.class_of, c.now[LARGEST]
        for i in range(len(steps)):
            if i % CLOCK_STEPS == 0:
                now_ms = clock_ms[i // CLOCK_STEPS]
                area += p.now[RESIDENT] * ((now_ms - last_ms) if by_time else CLOCK_STEPS)
                last_ms = now_ms
                p.now[NOW_MS] = now_ms
                p.now[STEP] = i
                if i % every == 0:
                    samples[taken, 0] = i
                    samples[taken, 1] = p.now[RESIDENT]
                    taken += 1
            step = steps[i]
            kind = step >> KIND_SHIFT
            place = step & PLACE_MASK
            t = np.int64(threads[i])
            # What a thread does out of its own magazines is done here, at once: nearly everything.
            if kind == BIRTH:
                size = np.int64(sizes[i])
                if size <= largest:
                    index = np.int64(class_of[(size + 15) >> 4])
                    held = lists[t, index, HELD]
                    if held > 0:
                        lists[t, index, HELD] = held - 1
                        where[place] = stack[lists[t, index, LIST_AT] + held - 1]
                        continue
                span = allocate(c, p, t, size)
                if span == NOBODY or c.now[BROKEN]:
                    return i, area, taken
                where[place] = span
            elif kind == DEATH:
                span = where[place]
                index = spans[span, CLASS]
                if index != LARGE:
                    held = lists[t, index, HELD]
                    if held < lists[t, index, CAPACITY]:
                        stack[lists[t, index, LIST_AT] + held] = span
                        lists[t, index, HELD] = held + 1
                        continue
                free(c, p, t, span)
                if c.now[BROKEN]:
                    return i, area, taken
            elif kind == CHANGE:
                span = change(c, p, t, where[place], np.int64(sizes[i]))
                if span == NOBODY or c.now[BROKEN]:
                    return i, area, taken
                where[place] = span
            else:
                end_thread(c, p, t)
        return len(steps), area, taken

    return walk


_walk: Final = _make_walk(_read_sources())


def _make_central(spec: HeapSpec, threads: int, spans: int, stack: int) -> Central:
    class_bytes = np.array(spec.sizes.class_bytes(), np.int64)
    count = len(class_bytes)
    cache = spec.cache
    limit = 0
    magazine = np.zeros(count, np.int64)
    if isinstance(cache, BoundedCache):
        limit = cache.limit_bytes
        magazine = np.clip(cache.magazine_bytes // class_bytes, 1, cache.magazine_blocks)
    elif isinstance(cache, FixedCache):
        limit = cache.limit_bytes
        capacity = np.array(cache.capacity_blocks)
        magazine = np.maximum(capacity[np.minimum(np.arange(count), len(capacity) - 1)] // 2, 1)
    else:
        assert isinstance(cache, NoCache)
    batches = spec.remote.batches if isinstance(spec.remote, RemoteBatch) else 0
    classes = np.zeros((count, CLASS_COLUMNS), np.int64)
    classes[:, BYTES] = class_bytes
    classes[:, SPAN_PAGES], classes[:, SPAN_BLOCKS] = shapes_of(spec.sizes)
    classes[:, MAGAZINE] = magazine
    classes[:, SHELF] = NOBODY
    classes[:, MOST_HELD] = np.maximum(magazine, classes[:, SPAN_BLOCKS]) + 8
    now = np.zeros(10, np.int64)
    now[RETIRED] = NOBODY
    now[TOP] = 8
    now[LARGEST], now[LIMIT], now[BATCHES_AT_MOST] = class_bytes[-1], limit, batches
    now[MAINTENANCE_MS] = constants().maintenance_ms
    lists = np.zeros((threads, count, 6), np.int64)
    lists[:, :, LIST_AT] = lists[:, :, SPARE_AT] = NOBODY
    return Central(
        spans=np.zeros((spans, 7), np.int64),
        classes=classes,
        lists=lists,
        stack=np.zeros(min(stack, threads * int(2 * classes[:, MOST_HELD].sum())) + 16, np.int64),
        waiting=np.zeros((count, max(batches, 1), int(classes[:, MOST_HELD].max()) + 1), np.int64),
        threads=np.zeros((threads, 5), np.int64),
        class_of=np.searchsorted(class_bytes, np.arange(0, int(class_bytes[-1]) + 16, 16)).astype(np.uint8),
        now=now,
    )


def _apply_pages(spec: HeapSpec, pages: Pages) -> None:
    rules = pages.now
    rules[KEEP_BYTES] = rules[KEEP_MS] = rules[REST_BYTES] = NEVER
    for stage in spec.pages.stages:
        if isinstance(stage, HugePages):
            rules[HUGE_AFTER] = stage.after_bytes // PAGE_BYTES
        elif isinstance(stage, PurgeAfter):
            rules[KEEP_BYTES], rules[KEEP_SHARE], rules[KEEP_MS] = (
                stage.keep_bytes,
                stage.keep_share,
                stage.delay_ms,
            )
            rules[REST_BYTES], rules[REST_SHARE] = stage.keep_bytes // 2, 32
        elif isinstance(stage, PurgeAtOnce):
            rules[KEEP_BYTES], rules[KEEP_SHARE] = stage.threshold_bytes, 0
            rules[REST_BYTES], rules[REST_SHARE] = stage.threshold_bytes, 0
        elif isinstance(stage, PurgeOnDemand):
            rules[KEEP_MS] = NEVER


def _metadata_bytes(central: Central, pages: Pages) -> int:
    threads = int((central.threads[:, 0] > 0).sum())
    return (
        int(pages.now[MAPPED]) * constants().page_metadata_bytes
        + int(central.now[SPANS]) * constants().span_metadata_bytes
        + threads * (len(central.classes) + 1) * _CACHE_BYTES_PER_CLASS
    )


def simulate(spec: HeapSpec, life: Life, *, ns_per_step: float | None = None) -> Holding:
    """Predict what a forged heap would hold over a program's life.

    Args:
        spec: The heap.
        life: The program.
        ns_per_step: Purge as if every step took so long (as in a replay that keeps no pace); None: as recorded.
    """
    clock = life.clock_ms
    if ns_per_step is not None:
        clock = (np.arange(len(clock)) * CLOCK_STEPS * ns_per_step / 1e6).astype(np.int64)
    page_count = 4 * life.live_bytes_peak // PAGE_BYTES + 65_536
    stack = 1 << 22
    every = max(1, len(life) // _SAMPLES // CLOCK_STEPS) * CLOCK_STEPS
    while True:
        pages = make_pages(page_count)
        _apply_pages(spec, pages)
        central = _make_central(spec, life.thread_count, max(1024, page_count), stack)
        samples = np.zeros((len(life) // every + 2, 2), np.int64)
        where = np.zeros(life.places + 1, np.int64)
        came, area, taken = _walk(
            life.steps, life.sizes, life.threads, clock, central, pages, where, every, samples
        )
        if came == len(life) and not central.now[BROKEN]:
            break
        if pages.now[FULL]:
            page_count *= 2
        else:
            stack *= 4
            page_count = page_count * 3 // 2
    metadata = _metadata_bytes(central, pages)
    duration = max(1, int(clock[-1] - clock[0])) if clock[-1] > clock[0] else len(life)
    samples = samples[:taken]
    samples[:, 1] = samples[:, 1] * PAGE_BYTES + metadata
    return Holding(
        resident_bytes_peak=int(pages.now[RESIDENT_PEAK]) * PAGE_BYTES + metadata,
        resident_bytes_mean=area / duration * PAGE_BYTES + metadata,
        resident_bytes_end=int(pages.now[RESIDENT]) * PAGE_BYTES + metadata,
        peak_step=int(pages.now[PEAK_STEP]),
        samples=samples,
        missed=central.classes[:, MISSED],
        page_faults=int(pages.now[FAULTS]),
        purges=int(pages.now[PURGES]),
        metadata_bytes=metadata,
    )


class Walker:
    """A simulation that goes on as events come in; purges as the events' own times say.

    Args:
        spec: The heap.
        page_count: Pages of addresses that it may come to.
    """

    def __init__(self, spec: HeapSpec, page_count: int) -> None:
        self.outgrown = False
        self._pages = make_pages(page_count)
        _apply_pages(spec, self._pages)
        self._spec = spec
        self._central = _make_central(spec, _THREADS, page_count, 1 << 22)
        self._where = np.zeros(1 << 16, np.int64)
        self._place_of = np.full(1 << 16, NOWHERE, np.uint32)
        self._free_places = np.zeros(1 << 16, np.uint32)
        self._state = np.zeros(2, np.int64)
        self._times_ms: list[float] = []
        self._held: list[int] = []

    @property
    def resident_bytes(self) -> int:
        """What the heap would hold now."""
        return int(self._pages.now[RESIDENT]) * PAGE_BYTES + self._metadata_bytes()

    @property
    def resident_bytes_peak(self) -> int:
        """The most that it would have held."""
        return int(self._pages.now[RESIDENT_PEAK]) * PAGE_BYTES + self._metadata_bytes()

    def _metadata_bytes(self) -> int:
        return _metadata_bytes(self._central, self._pages)

    def course(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times since the start of the trace, ms, and the bytes it would have held then."""
        return np.array(self._times_ms or [0.0]), np.array(self._held or [0], float)

    def walk(self, batch: EventBatch, kinds: NDArray[np.uint8]) -> None:
        """Go on with a batch; `kinds` is what each event is to a player."""
        if self.outgrown or not len(batch):
            return
        count = len(batch)
        objects = int(batch.born.max(initial=-1)) + 1
        self._place_of = _longer(self._place_of, objects, NOWHERE)
        self._free_places = _longer(self._free_places, int(self._state[0]) + count, 0)
        self._where = _longer(self._where, int(self._state[0]) + count + 1, 0)
        steps, sizes = np.empty(count + 1, np.uint32), np.empty(count + 1, np.uint32)
        threads, events = np.empty(count + 1, np.uint16), np.empty(count + 1, np.int64)
        taken = take_steps(
            kinds, batch.operation == Operation.THREAD_END, batch.thread % np.uint32(_THREADS), batch.born,
            batch.died, batch.size_bytes, self._place_of, self._free_places, self._state, steps, sizes, threads, events,
        )  # fmt: skip
        if not taken:
            return
        clock = batch.time_ns[events[:taken:CLOCK_STEPS]] // 1_000_000
        samples = np.zeros((len(clock) + 1, 2), np.int64)
        came, _, points = _walk(
            steps[:taken], sizes[:taken], threads[:taken], clock, self._central, self._pages, self._where,
            CLOCK_STEPS, samples,
        )  # fmt: skip
        self.outgrown = came < taken
        every = max(1, points // 64)
        self._times_ms += clock[:points:every].tolist()
        self._held += (samples[:points:every, 1] * PAGE_BYTES + self._metadata_bytes()).tolist()
        self._times_ms.append(float(batch.time_ns[-1] // 1_000_000))
        self._held.append(self.resident_bytes)


def _longer(column: NDArray[Any], length: int, fill: int) -> NDArray[Any]:
    if length <= len(column):
        return column
    return np.concatenate([column, np.full(max(length, 2 * len(column)) - len(column), fill, column.dtype)])


def warm_up() -> None:
    """Compile the simulator, which takes a minute where it was never used; afterwards nothing."""
    operation = np.array([Operation.ALLOCATE, Operation.FREE], np.uint8)
    batch = EventBatch(
        process=0,
        first_event=0,
        operation=operation,
        thread=np.zeros(2, np.uint32),
        time_ns=np.array([0, 1], np.int64),
        size_bytes=np.array([16, 0], np.uint64),
        usable_bytes=np.array([16, 0], np.uint64),
        alignment=np.zeros(2, np.uint8),
        born=np.array([0, -1], np.int64),
        died=np.array([-1, 0], np.int64),
        stack=np.zeros(2, np.uint32),
    )
    Walker(HeapSpec(), 1 << 10).walk(batch, np.array([compiling.ALLOCATE, compiling.FREE], np.uint8))

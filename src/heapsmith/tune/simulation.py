"""The slab simulator: what a forged heap would hold at every moment of a recorded life, without forging it.

It walks over a life with the decisions of `native/heap/thread_cache.h`, and those of `central.h` and `page_heap.h` in
`central_simulation` and `page_simulation`: which span every block lies in, which magazines every thread holds, which
pages are resident. Only what does not change where blocks lie is left out: locks, addresses, the order of blocks within a
page.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from heapsmith.tune.central_simulation import (
    ATTACHED,
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
    RECYCLED_MS,
    RETIRED,
    RUN,
    SHELF,
    SPAN_BLOCKS,
    SPAN_PAGES,
    SPANS,
    TOP,
    Central,
    dissolve,
    fetch,
    free_span,
    leave,
    new_span,
    recycle,
    release,
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
    compiled,
    maintain,
    make_pages,
    resize_run,
    settle,
    walking,
    write_pages,
)

_SAMPLES: Final = 500
_THREADS: Final = 512
"""Threads that a walk in parts tells apart; beyond, numbers are used again."""
_CACHE_BYTES_PER_CLASS: Final = 33
"""Of a thread cache: a list, a spare and a mark for each class."""

# Columns of `Central.lists`: where the magazine begins in the stack, its blocks, how many it may have; the spare; whether
# it was used since the last maintenance.
_LIST_AT, _HELD, _CAPACITY, _SPARE_AT, _SPARE, _IS_USED = 0, 1, 2, 3, 4, 5


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


@compiled
def _bytes_for(c: Central, index: int, capacity: int) -> int:
    return capacity * c.classes[index, BYTES] * (1 if c.classes[index, SPAN_BLOCKS] == 1 else 2)


@compiled
def _make_room(c: Central, t: int, index: int) -> None:
    if c.lists[t, index, _LIST_AT] == NOBODY:
        chunk = c.classes[index, MOST_HELD]
        if c.now[TOP] + 2 * chunk > len(c.stack):
            c.now[BROKEN] = 1
            c.lists[t, index, _LIST_AT] = c.lists[t, index, _SPARE_AT] = 0
            return
        c.lists[t, index, _LIST_AT] = c.now[TOP]
        c.lists[t, index, _SPARE_AT] = c.now[TOP] + chunk
        c.now[TOP] += 2 * chunk


@compiled
def _flush(c: Central, p: Pages, t: int, index: int, to_spans: bool) -> None:
    count = c.lists[t, index, _HELD]
    c.lists[t, index, _HELD] = 0
    if count > 0:
        if to_spans:
            dissolve(c, p, index, c.lists[t, index, _LIST_AT], count)
        else:
            release(c, p, index, c.lists[t, index, _LIST_AT], count)
    count = c.lists[t, index, _SPARE]
    c.lists[t, index, _SPARE] = 0
    if count > 0:
        if to_spans:
            dissolve(c, p, index, c.lists[t, index, _SPARE_AT], count)
        else:
            release(c, p, index, c.lists[t, index, _SPARE_AT], count)


@compiled
def _visit(c: Central, p: Pages, t: int) -> None:
    c.threads[t, 3] += 1
    if c.threads[t, 3] % 4 != 0:
        return
    now_ms = p.now[NOW_MS]
    if now_ms - c.threads[t, 4] < c.now[MAINTENANCE_MS]:
        return
    c.threads[t, 4] = now_ms
    for index in range(len(c.classes)):
        if c.lists[t, index, _IS_USED] == 0 and c.lists[t, index, _CAPACITY] > 0:
            _flush(c, p, t, index, True)
            c.threads[t, 1] -= _bytes_for(c, index, c.lists[t, index, _CAPACITY])
            c.lists[t, index, _CAPACITY] = 0
        c.lists[t, index, _IS_USED] = 0
    if now_ms - c.now[RECYCLED_MS] >= c.now[MAINTENANCE_MS]:
        c.now[RECYCLED_MS] = now_ms
        recycle(c, p, False)
    maintain(p)


@compiled
def _grow(c: Central, p: Pages, t: int, index: int) -> None:
    most = c.classes[index, MAGAZINE]
    have = c.lists[t, index, _CAPACITY]
    if have >= most:
        return
    first = 1 if c.classes[index, BYTES] >= 512 else 512 // c.classes[index, BYTES]
    capacity = min(2 * have if have > 0 else first, most)
    more = _bytes_for(c, index, capacity) - _bytes_for(c, index, have)
    limit = c.now[LIMIT]
    if more > limit:
        return
    looked = 0
    classes = len(c.classes)
    while c.threads[t, 1] + more > limit:
        if looked == classes + 1:
            return
        looked += 1
        c.threads[t, 2] = (c.threads[t, 2] + 1) % classes
        victim = c.threads[t, 2]
        if victim != index and c.lists[t, victim, _CAPACITY] > 0:
            _flush(c, p, t, victim, False)
            c.threads[t, 1] -= _bytes_for(c, victim, c.lists[t, victim, _CAPACITY])
            c.lists[t, victim, _CAPACITY] = 0
    c.threads[t, 1] += more
    c.lists[t, index, _CAPACITY] = capacity


@compiled
def _refill(c: Central, p: Pages, t: int, index: int) -> int:
    """The thread's magazine is empty: answers the span of a block, `NOBODY` where the columns are too short."""
    if c.now[LIMIT] == 0:
        c.classes[index, MISSED] += 1
        count = fetch(c, p, index, 1, 0, 1)
        return c.stack[0] if count > 0 else NOBODY
    if c.threads[t, 0] == 0:
        c.threads[t, 0] = 1
        c.threads[t, 4] = p.now[NOW_MS]
        c.now[ATTACHED] += 1
    _make_room(c, t, index)
    c.lists[t, index, _IS_USED] = 1
    if c.lists[t, index, _SPARE] > 0:
        at = c.lists[t, index, _LIST_AT]
        c.lists[t, index, _LIST_AT] = c.lists[t, index, _SPARE_AT]
        c.lists[t, index, _SPARE_AT] = at
        c.lists[t, index, _HELD] = c.lists[t, index, _SPARE]
        c.lists[t, index, _SPARE] = 0
    else:
        _visit(c, p, t)
        _grow(c, p, t, index)
        c.classes[index, MISSED] += 1
        wanted = max(c.lists[t, index, _CAPACITY], 1)
        count = fetch(c, p, index, wanted, c.lists[t, index, _LIST_AT], c.classes[index, MOST_HELD])
        if count == 0:
            return NOBODY
        if count - 1 > c.lists[t, index, _CAPACITY]:
            c.threads[t, 1] += _bytes_for(c, index, count) - _bytes_for(
                c, index, c.lists[t, index, _CAPACITY]
            )
            c.lists[t, index, _CAPACITY] = count
        c.lists[t, index, _HELD] = count
    c.lists[t, index, _HELD] -= 1
    return c.stack[c.lists[t, index, _LIST_AT] + c.lists[t, index, _HELD]]


@compiled
def _overflow(c: Central, p: Pages, t: int, index: int, span: int) -> None:
    """The thread's magazine has no room for a block."""
    if c.now[LIMIT] == 0:
        c.classes[index, MISSED] += 1
        leave(c, p, index, span)
        return
    if c.threads[t, 0] == 0:
        c.threads[t, 0] = 1
        c.threads[t, 4] = p.now[NOW_MS]
        c.now[ATTACHED] += 1
    _make_room(c, t, index)
    c.lists[t, index, _IS_USED] = 1
    if c.lists[t, index, _HELD] >= c.lists[t, index, _CAPACITY]:
        _visit(c, p, t)
        if c.lists[t, index, _HELD] >= c.lists[t, index, _CAPACITY]:
            _grow(c, p, t, index)
    at = c.lists[t, index, _LIST_AT]
    if c.lists[t, index, _HELD] < c.lists[t, index, _CAPACITY]:
        c.stack[at + c.lists[t, index, _HELD]] = span
        c.lists[t, index, _HELD] += 1
        return
    c.classes[index, MISSED] += 1
    if c.lists[t, index, _CAPACITY] == 0 or c.classes[index, SPAN_BLOCKS] == 1:
        if c.classes[index, SPAN_BLOCKS] == 1 or c.now[BATCHES_AT_MOST] == 0:
            leave(c, p, index, span)
        else:
            top = len(c.stack) - 1
            c.stack[top] = span
            release(c, p, index, top, 1)
        return
    old = c.lists[t, index, _SPARE_AT]
    old_count = c.lists[t, index, _SPARE]
    c.lists[t, index, _SPARE_AT] = at
    c.lists[t, index, _SPARE] = c.lists[t, index, _HELD]
    if old_count > 0:
        release(c, p, index, old, old_count)
    c.lists[t, index, _LIST_AT] = old
    c.stack[old] = span
    c.lists[t, index, _HELD] = 1


@compiled
def _end_thread(c: Central, p: Pages, t: int) -> None:
    if c.threads[t, 0] == 0:
        return
    for index in range(len(c.classes)):
        _flush(c, p, t, index, True)
        c.lists[t, index, _CAPACITY] = 0
    c.threads[t, 0] = 2
    c.threads[t, 1] = 0
    c.now[ATTACHED] -= 1
    if c.now[ATTACHED] <= 1:
        recycle(c, p, True)
        settle(p)
    maintain(p)


@compiled
def _allocate(c: Central, p: Pages, t: int, size: int) -> int:
    if size > c.now[LARGEST]:
        pages = (size + PAGE_BYTES - 1) // PAGE_BYTES
        span = new_span(c, p, LARGE, pages)
        if span != NOBODY:
            write_pages(p, c.spans[span, RUN], c.spans[span, RUN] + pages)
        return span
    index = np.int64(c.class_of[(size + 15) >> 4])
    held = c.lists[t, index, _HELD]
    if held > 0:
        c.lists[t, index, _HELD] = held - 1
        return c.stack[c.lists[t, index, _LIST_AT] + held - 1]
    return _refill(c, p, t, index)


@compiled
def _free(c: Central, p: Pages, t: int, span: int) -> None:
    index = c.spans[span, CLASS]
    if index == LARGE:
        free_span(c, p, span)
        return
    held = c.lists[t, index, _HELD]
    if held < c.lists[t, index, _CAPACITY]:
        c.stack[c.lists[t, index, _LIST_AT] + held] = span
        c.lists[t, index, _HELD] = held + 1
        return
    _overflow(c, p, t, index, span)


@compiled
def _change(c: Central, p: Pages, t: int, span: int, size: int) -> int:
    index = c.spans[span, CLASS]
    large = c.now[LARGEST]
    if index == LARGE:
        if size > large:
            pages = (size + PAGE_BYTES - 1) // PAGE_BYTES
            run = resize_run(p, c.spans[span, RUN], pages)
            if run == NOBODY:
                return NOBODY
            c.spans[span, RUN] = run
            write_pages(p, run, run + pages)
            return span
    else:
        have = c.classes[index, BYTES]
        if size <= have and (size >= have // 2 or have <= 64):
            return span
    moved = _allocate(c, p, t, size)
    if moved != NOBODY:
        _free(c, p, t, span)
    return moved


@walking
def _walk(
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
                held = lists[t, index, _HELD]
                if held > 0:
                    lists[t, index, _HELD] = held - 1
                    where[place] = stack[lists[t, index, _LIST_AT] + held - 1]
                    continue
            span = _allocate(c, p, t, size)
            if span == NOBODY or c.now[BROKEN]:
                return i, area, taken
            where[place] = span
        elif kind == DEATH:
            span = where[place]
            index = spans[span, CLASS]
            if index != LARGE:
                held = lists[t, index, _HELD]
                if held < lists[t, index, _CAPACITY]:
                    stack[lists[t, index, _LIST_AT] + held] = span
                    lists[t, index, _HELD] = held + 1
                    continue
            _free(c, p, t, span)
            if c.now[BROKEN]:
                return i, area, taken
        elif kind == CHANGE:
            span = _change(c, p, t, where[place], np.int64(sizes[i]))
            if span == NOBODY or c.now[BROKEN]:
                return i, area, taken
            where[place] = span
        else:
            _end_thread(c, p, t)
    return len(steps), area, taken


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
    lists[:, :, _LIST_AT] = lists[:, :, _SPARE_AT] = NOBODY
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

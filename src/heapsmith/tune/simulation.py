"""The slab simulator: what a forged heap would hold at every moment of a recorded life, without forging it.

It walks over a life with the decisions of `native/heap/thread_cache.h`, `central.h` and (in `page_simulation`)
`page_heap.h`: which span every block lies in, which magazines every thread holds, which pages are resident. Only what does
not change where blocks lie is left out: locks, addresses, the order of blocks within a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

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
    allocate_run,
    compiled,
    free_run,
    maintain,
    make_pages,
    resize_run,
    settle,
    walking,
    write_pages,
)

_LARGE: Final = 255
_SAMPLES: Final = 500
_THREADS: Final = 512
"""Threads that a walk in parts tells apart; beyond, numbers are used again."""
_CACHE_BYTES_PER_CLASS: Final = 33
"""Of a thread cache: a list, a spare and a mark for each class."""

# Places in `Central.now`.
_SPANS, _RETIRED, _TOP, _ATTACHED, _RECYCLED_MS, _BROKEN = 0, 1, 2, 3, 4, 5
_LARGEST, _LIMIT, _BATCHES_AT_MOST, _MAINTENANCE_MS = 6, 7, 8, 9
# Columns of `Central.spans`: class (`_LARGE`: a large block), first page, blocks that are out, that ever were, the
# neighbours on its shelf, whether it is on it.
_CLASS, _RUN, _USED, _CARVED, _FOLLOWING, _BEFORE, _IS_LISTED = 0, 1, 2, 3, 4, 5, 6
# Columns of `Central.classes`: what the spec says; the first span with free blocks, how many batches wait, the fewest that
# waited since the last recycling, trips to the central heap.
_BYTES, _SPAN_PAGES, _SPAN_BLOCKS, _MAGAZINE, _SHELF, _BATCHES, _UNNEEDED_BATCHES, _MISSED = range(8)
# A fetch may give all free blocks of a span, and so many become the magazine's capacity; where the ring of waiting batches
# begins.
_MOST_HELD, _OLDEST = 8, 9
# Columns of `Central.lists`: where the magazine begins in the stack, its blocks, how many it may have; the spare; whether
# it was used since the last maintenance.
_LIST_AT, _HELD, _CAPACITY, _SPARE_AT, _SPARE, _IS_USED = 0, 1, 2, 3, 4, 5


class Central(NamedTuple):
    """Spans, the shelves of the central heap, and the threads' magazines: few arrays, for each costs every call.

    Attributes:
        spans: ``(n, 7)``; see the names of the columns.
        classes: ``(classes, 10)``, smallest first.
        lists: ``(threads, classes, 6)``.
        stack: Magazines: the spans of the blocks in them.
        waiting: ``(classes, batches, 1 + blocks)`` how many blocks a waiting batch has, and their spans.
        threads: ``(threads, 5)`` attached, granted bytes, victim, visits, when maintained.
        class_of: By requested bytes in grains of 16, rounded up, the class.
        now: Counts and rules; see the names above.
    """

    spans: Any
    classes: Any
    lists: Any
    stack: Any
    waiting: Any
    threads: Any
    class_of: Any
    now: Any


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
def _link(c: Central, index: int, span: int) -> None:
    c.spans[span, _IS_LISTED] = 1
    c.spans[span, _BEFORE] = NOBODY
    head = c.classes[index, _SHELF]
    c.spans[span, _FOLLOWING] = head
    if head != NOBODY:
        c.spans[head, _BEFORE] = span
    c.classes[index, _SHELF] = span


@compiled
def _unlink(c: Central, index: int, span: int) -> None:
    c.spans[span, _IS_LISTED] = 0
    if c.spans[span, _BEFORE] != NOBODY:
        c.spans[c.spans[span, _BEFORE], _FOLLOWING] = c.spans[span, _FOLLOWING]
    else:
        c.classes[index, _SHELF] = c.spans[span, _FOLLOWING]
    if c.spans[span, _FOLLOWING] != NOBODY:
        c.spans[c.spans[span, _FOLLOWING], _BEFORE] = c.spans[span, _BEFORE]


@compiled
def _new_span(c: Central, p: Pages, index: int, pages: int) -> int:
    run = allocate_run(p, pages)
    if run == NOBODY:
        return NOBODY
    span = c.now[_RETIRED]
    if span != NOBODY:
        c.now[_RETIRED] = c.spans[span, _FOLLOWING]
    else:
        span = c.now[_SPANS]
        if span >= len(c.spans):
            c.now[_BROKEN] = 1
            return NOBODY
        c.now[_SPANS] += 1
    c.spans[span, _CLASS] = index
    c.spans[span, _RUN] = run
    c.spans[span, _USED] = c.spans[span, _CARVED] = 0
    c.spans[span, _IS_LISTED] = 0
    return span


@compiled
def _free_span(c: Central, p: Pages, span: int) -> None:
    free_run(p, c.spans[span, _RUN])
    c.spans[span, _FOLLOWING] = c.now[_RETIRED]
    c.now[_RETIRED] = span


@compiled
def _one_less_waits(c: Central, index: int) -> None:
    c.classes[index, _BATCHES] -= 1
    c.classes[index, _UNNEEDED_BATCHES] = min(c.classes[index, _UNNEEDED_BATCHES], c.classes[index, _BATCHES])


@compiled
def _fetch(c: Central, p: Pages, index: int, wanted: int, at: int, room: int) -> int:
    """Put blocks into the stack from `at` on; answers how many."""
    if c.classes[index, _SPAN_BLOCKS] == 1:
        span = _new_span(c, p, index, c.classes[index, _SPAN_PAGES])
        if span == NOBODY:
            return 0
        c.spans[span, _USED] = c.spans[span, _CARVED] = 1
        run = c.spans[span, _RUN]
        write_pages(p, run, run + (c.classes[index, _BYTES] + PAGE_BYTES - 1) // PAGE_BYTES)
        c.stack[at] = span
        return 1
    if c.classes[index, _BATCHES] > 0:
        last = (c.classes[index, _OLDEST] + c.classes[index, _BATCHES] - 1) % c.now[_BATCHES_AT_MOST]
        _one_less_waits(c, index)
        count = c.waiting[index, last, 0]
        for i in range(count):
            c.stack[at + i] = c.waiting[index, last, 1 + i]
        return count
    count = 0
    while count < wanted:
        span = c.classes[index, _SHELF]
        if span == NOBODY:
            if count > 0:
                break
            span = _new_span(c, p, index, c.classes[index, _SPAN_PAGES])
            if span == NOBODY:
                break
            _link(c, index, span)
        free = c.spans[span, _CARVED] - c.spans[span, _USED]
        taken = 0
        if free > 0:
            taken = min(free, wanted - count)
            if count == 0 and free <= 2 * wanted:
                taken = free
            taken = min(taken, room - count)
        else:
            carved = c.spans[span, _CARVED]
            size = c.classes[index, _BYTES]
            start = carved * size
            in_page = ((start + size + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES - start) // size
            taken = min(max(in_page, 1), min(c.classes[index, _SPAN_BLOCKS] - carved, wanted - count))
            c.spans[span, _CARVED] += taken
            run = c.spans[span, _RUN]
            # The last block is the program's soon enough: all of it counts as written.
            write_pages(
                p, run + start // PAGE_BYTES, run + (start + taken * size + PAGE_BYTES - 1) // PAGE_BYTES
            )
        c.spans[span, _USED] += taken
        for i in range(taken):
            c.stack[at + count + i] = span
        count += taken
        if (
            c.spans[span, _CARVED] == c.classes[index, _SPAN_BLOCKS]
            and c.spans[span, _USED] == c.spans[span, _CARVED]
        ):
            _unlink(c, index, span)
    return count


@compiled
def _leave(c: Central, p: Pages, index: int, span: int) -> None:
    c.spans[span, _USED] -= 1
    if c.classes[index, _SPAN_BLOCKS] == 1:
        _free_span(c, p, span)
        return
    if c.spans[span, _IS_LISTED] == 0:
        _link(c, index, span)
    if c.spans[span, _USED] == 0:
        _unlink(c, index, span)
        _free_span(c, p, span)


@compiled
def _dissolve(c: Central, p: Pages, index: int, at: int, count: int) -> None:
    for i in range(count - 1, -1, -1):
        _leave(c, p, index, c.stack[at + i])


@compiled
def _leave_oldest(c: Central, p: Pages, index: int) -> None:
    oldest = c.classes[index, _OLDEST]
    for i in range(c.waiting[index, oldest, 0] - 1, -1, -1):
        _leave(c, p, index, c.waiting[index, oldest, 1 + i])
    c.classes[index, _OLDEST] = (oldest + 1) % c.now[_BATCHES_AT_MOST]
    _one_less_waits(c, index)


@compiled
def _release(c: Central, p: Pages, index: int, at: int, count: int) -> None:
    most = c.now[_BATCHES_AT_MOST]
    if c.classes[index, _SPAN_BLOCKS] > 1 and most > 0:
        if c.classes[index, _BATCHES] >= most:
            _leave_oldest(c, p, index)
        place = (c.classes[index, _OLDEST] + c.classes[index, _BATCHES]) % most
        c.waiting[index, place, 0] = count
        for i in range(count):
            c.waiting[index, place, 1 + i] = c.stack[at + i]
        c.classes[index, _BATCHES] += 1
        return
    _dissolve(c, p, index, at, count)


@compiled
def _recycle(c: Central, p: Pages, everything: bool) -> None:
    for index in range(len(c.classes)):
        left = c.classes[index, _BATCHES] if everything else c.classes[index, _UNNEEDED_BATCHES]
        for _ in range(left):
            _leave_oldest(c, p, index)
        c.classes[index, _UNNEEDED_BATCHES] = c.classes[index, _BATCHES]


@compiled
def _bytes_for(c: Central, index: int, capacity: int) -> int:
    return capacity * c.classes[index, _BYTES] * (1 if c.classes[index, _SPAN_BLOCKS] == 1 else 2)


@compiled
def _make_room(c: Central, t: int, index: int) -> None:
    if c.lists[t, index, _LIST_AT] == NOBODY:
        chunk = c.classes[index, _MOST_HELD]
        if c.now[_TOP] + 2 * chunk > len(c.stack):
            c.now[_BROKEN] = 1
            c.lists[t, index, _LIST_AT] = c.lists[t, index, _SPARE_AT] = 0
            return
        c.lists[t, index, _LIST_AT] = c.now[_TOP]
        c.lists[t, index, _SPARE_AT] = c.now[_TOP] + chunk
        c.now[_TOP] += 2 * chunk


@compiled
def _flush(c: Central, p: Pages, t: int, index: int, to_spans: bool) -> None:
    count = c.lists[t, index, _HELD]
    c.lists[t, index, _HELD] = 0
    if count > 0:
        if to_spans:
            _dissolve(c, p, index, c.lists[t, index, _LIST_AT], count)
        else:
            _release(c, p, index, c.lists[t, index, _LIST_AT], count)
    count = c.lists[t, index, _SPARE]
    c.lists[t, index, _SPARE] = 0
    if count > 0:
        if to_spans:
            _dissolve(c, p, index, c.lists[t, index, _SPARE_AT], count)
        else:
            _release(c, p, index, c.lists[t, index, _SPARE_AT], count)


@compiled
def _visit(c: Central, p: Pages, t: int) -> None:
    c.threads[t, 3] += 1
    if c.threads[t, 3] % 4 != 0:
        return
    now_ms = p.now[NOW_MS]
    if now_ms - c.threads[t, 4] < c.now[_MAINTENANCE_MS]:
        return
    c.threads[t, 4] = now_ms
    for index in range(len(c.classes)):
        if c.lists[t, index, _IS_USED] == 0 and c.lists[t, index, _CAPACITY] > 0:
            _flush(c, p, t, index, True)
            c.threads[t, 1] -= _bytes_for(c, index, c.lists[t, index, _CAPACITY])
            c.lists[t, index, _CAPACITY] = 0
        c.lists[t, index, _IS_USED] = 0
    if now_ms - c.now[_RECYCLED_MS] >= c.now[_MAINTENANCE_MS]:
        c.now[_RECYCLED_MS] = now_ms
        _recycle(c, p, False)
    maintain(p)


@compiled
def _grow(c: Central, p: Pages, t: int, index: int) -> None:
    most = c.classes[index, _MAGAZINE]
    have = c.lists[t, index, _CAPACITY]
    if have >= most:
        return
    first = 1 if c.classes[index, _BYTES] >= 512 else 512 // c.classes[index, _BYTES]
    capacity = min(2 * have if have > 0 else first, most)
    more = _bytes_for(c, index, capacity) - _bytes_for(c, index, have)
    limit = c.now[_LIMIT]
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
    if c.now[_LIMIT] == 0:
        c.classes[index, _MISSED] += 1
        count = _fetch(c, p, index, 1, 0, 1)
        return c.stack[0] if count > 0 else NOBODY
    if c.threads[t, 0] == 0:
        c.threads[t, 0] = 1
        c.threads[t, 4] = p.now[NOW_MS]
        c.now[_ATTACHED] += 1
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
        c.classes[index, _MISSED] += 1
        wanted = max(c.lists[t, index, _CAPACITY], 1)
        count = _fetch(c, p, index, wanted, c.lists[t, index, _LIST_AT], c.classes[index, _MOST_HELD])
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
    if c.now[_LIMIT] == 0:
        c.classes[index, _MISSED] += 1
        _leave(c, p, index, span)
        return
    if c.threads[t, 0] == 0:
        c.threads[t, 0] = 1
        c.threads[t, 4] = p.now[NOW_MS]
        c.now[_ATTACHED] += 1
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
    c.classes[index, _MISSED] += 1
    if c.lists[t, index, _CAPACITY] == 0 or c.classes[index, _SPAN_BLOCKS] == 1:
        if c.classes[index, _SPAN_BLOCKS] == 1 or c.now[_BATCHES_AT_MOST] == 0:
            _leave(c, p, index, span)
        else:
            top = len(c.stack) - 1
            c.stack[top] = span
            _release(c, p, index, top, 1)
        return
    old = c.lists[t, index, _SPARE_AT]
    old_count = c.lists[t, index, _SPARE]
    c.lists[t, index, _SPARE_AT] = at
    c.lists[t, index, _SPARE] = c.lists[t, index, _HELD]
    if old_count > 0:
        _release(c, p, index, old, old_count)
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
    c.now[_ATTACHED] -= 1
    if c.now[_ATTACHED] <= 1:
        _recycle(c, p, True)
        settle(p)
    maintain(p)


@compiled
def _allocate(c: Central, p: Pages, t: int, size: int) -> int:
    if size > c.now[_LARGEST]:
        pages = (size + PAGE_BYTES - 1) // PAGE_BYTES
        span = _new_span(c, p, _LARGE, pages)
        if span != NOBODY:
            write_pages(p, c.spans[span, _RUN], c.spans[span, _RUN] + pages)
        return span
    index = np.int64(c.class_of[(size + 15) >> 4])
    held = c.lists[t, index, _HELD]
    if held > 0:
        c.lists[t, index, _HELD] = held - 1
        return c.stack[c.lists[t, index, _LIST_AT] + held - 1]
    return _refill(c, p, t, index)


@compiled
def _free(c: Central, p: Pages, t: int, span: int) -> None:
    index = c.spans[span, _CLASS]
    if index == _LARGE:
        _free_span(c, p, span)
        return
    held = c.lists[t, index, _HELD]
    if held < c.lists[t, index, _CAPACITY]:
        c.stack[c.lists[t, index, _LIST_AT] + held] = span
        c.lists[t, index, _HELD] = held + 1
        return
    _overflow(c, p, t, index, span)


@compiled
def _change(c: Central, p: Pages, t: int, span: int, size: int) -> int:
    index = c.spans[span, _CLASS]
    large = c.now[_LARGEST]
    if index == _LARGE:
        if size > large:
            pages = (size + PAGE_BYTES - 1) // PAGE_BYTES
            run = resize_run(p, c.spans[span, _RUN], pages)
            if run == NOBODY:
                return NOBODY
            c.spans[span, _RUN] = run
            write_pages(p, run, run + pages)
            return span
    else:
        have = c.classes[index, _BYTES]
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
    lists, stack, spans, class_of, largest = c.lists, c.stack, c.spans, c.class_of, c.now[_LARGEST]
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
            if span == NOBODY or c.now[_BROKEN]:
                return i, area, taken
            where[place] = span
        elif kind == DEATH:
            span = where[place]
            index = spans[span, _CLASS]
            if index != _LARGE:
                held = lists[t, index, _HELD]
                if held < lists[t, index, _CAPACITY]:
                    stack[lists[t, index, _LIST_AT] + held] = span
                    lists[t, index, _HELD] = held + 1
                    continue
            _free(c, p, t, span)
            if c.now[_BROKEN]:
                return i, area, taken
        elif kind == CHANGE:
            span = _change(c, p, t, where[place], np.int64(sizes[i]))
            if span == NOBODY or c.now[_BROKEN]:
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
    classes = np.zeros((count, 10), np.int64)
    classes[:, _BYTES] = class_bytes
    classes[:, _SPAN_PAGES], classes[:, _SPAN_BLOCKS] = shapes_of(spec.sizes)
    classes[:, _MAGAZINE] = magazine
    classes[:, _SHELF] = NOBODY
    classes[:, _MOST_HELD] = np.maximum(magazine, classes[:, _SPAN_BLOCKS]) + 8
    now = np.zeros(10, np.int64)
    now[_RETIRED] = NOBODY
    now[_TOP] = 8
    now[_LARGEST], now[_LIMIT], now[_BATCHES_AT_MOST] = class_bytes[-1], limit, batches
    now[_MAINTENANCE_MS] = constants().maintenance_ms
    lists = np.zeros((threads, count, 6), np.int64)
    lists[:, :, _LIST_AT] = lists[:, :, _SPARE_AT] = NOBODY
    return Central(
        spans=np.zeros((spans, 7), np.int64),
        classes=classes,
        lists=lists,
        stack=np.zeros(min(stack, threads * int(2 * classes[:, _MOST_HELD].sum())) + 16, np.int64),
        waiting=np.zeros((count, max(batches, 1), int(classes[:, _MOST_HELD].max()) + 1), np.int64),
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
        + int(central.now[_SPANS]) * constants().span_metadata_bytes
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
        if came == len(life) and not central.now[_BROKEN]:
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
        missed=central.classes[:, _MISSED],
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

"""The thread caches of the simulator: the magazines of `native/heap/thread_cache.h`, and what a thread does out of them."""

from __future__ import annotations

import numpy as np

from heapsmith.tune.central_simulation import (
    ATTACHED,
    BATCHES_AT_MOST,
    BROKEN,
    BYTES,
    CLASS,
    LARGE,
    LARGEST,
    LIMIT,
    MAGAZINE,
    MAINTENANCE_MS,
    MISSED,
    MOST_HELD,
    RECYCLED_MS,
    RUN,
    SPAN_BLOCKS,
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
from heapsmith.tune.page_simulation import (
    COUNT,
    NOBODY,
    NOW_MS,
    PAGE_BYTES,
    Pages,
    compiled,
    learn_density,
    maintain,
    resize_run,
    settle,
    write_pages,
)

# Columns of `Central.lists`: where the magazine begins in the stack, its blocks, how many it may have; the spare; whether
# it was used since the last maintenance.
LIST_AT, HELD, CAPACITY, SPARE_AT, SPARE, IS_USED = 0, 1, 2, 3, 4, 5


@compiled
def _bytes_for(c: Central, index: int, capacity: int) -> int:
    return capacity * c.classes[index, BYTES] * (1 if c.classes[index, SPAN_BLOCKS] == 1 else 2)


@compiled
def _make_room(c: Central, t: int, index: int) -> None:
    if c.lists[t, index, LIST_AT] == NOBODY:
        chunk = c.classes[index, MOST_HELD]
        if c.now[TOP] + 2 * chunk > len(c.stack):
            c.now[BROKEN] = 1
            c.lists[t, index, LIST_AT] = c.lists[t, index, SPARE_AT] = 0
            return
        c.lists[t, index, LIST_AT] = c.now[TOP]
        c.lists[t, index, SPARE_AT] = c.now[TOP] + chunk
        c.now[TOP] += 2 * chunk


@compiled
def _flush(c: Central, p: Pages, t: int, index: int, to_spans: bool) -> None:
    count = c.lists[t, index, HELD]
    c.lists[t, index, HELD] = 0
    if count > 0:
        if to_spans:
            dissolve(c, p, index, c.lists[t, index, LIST_AT], count)
        else:
            release(c, p, index, c.lists[t, index, LIST_AT], count)
    count = c.lists[t, index, SPARE]
    c.lists[t, index, SPARE] = 0
    if count > 0:
        if to_spans:
            dissolve(c, p, index, c.lists[t, index, SPARE_AT], count)
        else:
            release(c, p, index, c.lists[t, index, SPARE_AT], count)


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
        if c.lists[t, index, IS_USED] == 0 and c.lists[t, index, CAPACITY] > 0:
            _flush(c, p, t, index, True)
            c.threads[t, 1] -= _bytes_for(c, index, c.lists[t, index, CAPACITY])
            c.lists[t, index, CAPACITY] = 0
        c.lists[t, index, IS_USED] = 0
    if now_ms - c.now[RECYCLED_MS] >= c.now[MAINTENANCE_MS]:
        c.now[RECYCLED_MS] = now_ms
        recycle(c, p, False)
    maintain(p)


@compiled
def _grow(c: Central, p: Pages, t: int, index: int) -> None:
    most = c.classes[index, MAGAZINE]
    have = c.lists[t, index, CAPACITY]
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
        if victim != index and c.lists[t, victim, CAPACITY] > 0:
            _flush(c, p, t, victim, False)
            c.threads[t, 1] -= _bytes_for(c, victim, c.lists[t, victim, CAPACITY])
            c.lists[t, victim, CAPACITY] = 0
    c.threads[t, 1] += more
    c.lists[t, index, CAPACITY] = capacity


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
    c.lists[t, index, IS_USED] = 1
    if c.lists[t, index, SPARE] > 0:
        at = c.lists[t, index, LIST_AT]
        c.lists[t, index, LIST_AT] = c.lists[t, index, SPARE_AT]
        c.lists[t, index, SPARE_AT] = at
        c.lists[t, index, HELD] = c.lists[t, index, SPARE]
        c.lists[t, index, SPARE] = 0
    else:
        _visit(c, p, t)
        _grow(c, p, t, index)
        c.classes[index, MISSED] += 1
        wanted = max(c.lists[t, index, CAPACITY], 1)
        count = fetch(c, p, index, wanted, c.lists[t, index, LIST_AT], c.classes[index, MOST_HELD])
        if count == 0:
            return NOBODY
        if count - 1 > c.lists[t, index, CAPACITY]:
            c.threads[t, 1] += _bytes_for(c, index, count) - _bytes_for(c, index, c.lists[t, index, CAPACITY])
            c.lists[t, index, CAPACITY] = count
        c.lists[t, index, HELD] = count
    c.lists[t, index, HELD] -= 1
    return c.stack[c.lists[t, index, LIST_AT] + c.lists[t, index, HELD]]


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
    c.lists[t, index, IS_USED] = 1
    if c.lists[t, index, HELD] >= c.lists[t, index, CAPACITY]:
        _visit(c, p, t)
        if c.lists[t, index, HELD] >= c.lists[t, index, CAPACITY]:
            _grow(c, p, t, index)
    at = c.lists[t, index, LIST_AT]
    if c.lists[t, index, HELD] < c.lists[t, index, CAPACITY]:
        c.stack[at + c.lists[t, index, HELD]] = span
        c.lists[t, index, HELD] += 1
        return
    c.classes[index, MISSED] += 1
    if c.lists[t, index, CAPACITY] == 0 or c.classes[index, SPAN_BLOCKS] == 1:
        if c.classes[index, SPAN_BLOCKS] == 1 or c.now[BATCHES_AT_MOST] == 0:
            leave(c, p, index, span)
        else:
            top = len(c.stack) - 1
            c.stack[top] = span
            release(c, p, index, top, 1)
        return
    old = c.lists[t, index, SPARE_AT]
    old_count = c.lists[t, index, SPARE]
    c.lists[t, index, SPARE_AT] = at
    c.lists[t, index, SPARE] = c.lists[t, index, HELD]
    if old_count > 0:
        release(c, p, index, old, old_count)
    c.lists[t, index, LIST_AT] = old
    c.stack[old] = span
    c.lists[t, index, HELD] = 1


@compiled
def end_thread(c: Central, p: Pages, t: int) -> None:
    """A thread ends: all it holds goes back."""
    if c.threads[t, 0] == 0:
        return
    for index in range(len(c.classes)):
        _flush(c, p, t, index, True)
        c.lists[t, index, CAPACITY] = 0
    c.threads[t, 0] = 2
    c.threads[t, 1] = 0
    c.now[ATTACHED] -= 1
    if c.now[ATTACHED] <= 1:
        recycle(c, p, True)
        settle(p)
    maintain(p)


@compiled
def allocate(c: Central, p: Pages, t: int, size: int) -> int:
    """Answer the span of a block; `NOBODY` where the columns are too short."""
    if size > c.now[LARGEST]:
        pages = (size + PAGE_BYTES - 1) // PAGE_BYTES
        span = new_span(c, p, LARGE, pages)
        if span != NOBODY:
            write_pages(p, c.spans[span, RUN], c.spans[span, RUN] + pages)
        return span
    index = np.int64(c.class_of[(size + 15) >> 4])
    held = c.lists[t, index, HELD]
    if held > 0:
        c.lists[t, index, HELD] = held - 1
        return c.stack[c.lists[t, index, LIST_AT] + held - 1]
    return _refill(c, p, t, index)


@compiled
def free(c: Central, p: Pages, t: int, span: int) -> None:
    """Take a block back."""
    index = c.spans[span, CLASS]
    if index == LARGE:
        learn_density(p, p.runs[c.spans[span, RUN], COUNT])
        free_span(c, p, span)
        return
    held = c.lists[t, index, HELD]
    if held < c.lists[t, index, CAPACITY]:
        c.stack[c.lists[t, index, LIST_AT] + held] = span
        c.lists[t, index, HELD] = held + 1
        return
    _overflow(c, p, t, index, span)


@compiled
def change(c: Central, p: Pages, t: int, span: int, size: int) -> int:
    """Give a block another size; answers its span."""
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
    moved = allocate(c, p, t, size)
    if moved != NOBODY:
        free(c, p, t, span)
    return moved

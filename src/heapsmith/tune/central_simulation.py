"""The shelves of the simulated heap: the decisions of `native/heap/central.h`, over the pages of `page_simulation`."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from heapsmith.tune.page_simulation import (
    NOBODY,
    PAGE_BYTES,
    Pages,
    allocate_run,
    compiled,
    free_run,
    write_pages,
)

LARGE: Final = 255

# Places in `Central.now`.
SPANS, RETIRED, TOP, ATTACHED, RECYCLED_MS, BROKEN = 0, 1, 2, 3, 4, 5
LARGEST, LIMIT, BATCHES_AT_MOST, MAINTENANCE_MS = 6, 7, 8, 9
# Columns of `Central.spans`: class (`LARGE`: a large block), first page, blocks that are out, that ever were, the
# neighbours on its shelf, whether it is on it.
CLASS, RUN, _USED, _CARVED, _FOLLOWING, _BEFORE, _IS_LISTED = 0, 1, 2, 3, 4, 5, 6
# Columns of `Central.classes`: what the spec says; the first span with free blocks, how many batches wait, the fewest that
# waited since the last recycling, trips to the central heap.
BYTES, SPAN_PAGES, SPAN_BLOCKS, MAGAZINE, SHELF, _BATCHES, _UNNEEDED_BATCHES, MISSED = range(8)
# A fetch may give all free blocks of a span, and so many become the magazine's capacity; where the ring of waiting batches
# begins; how many may wait now, and how many were taken apart since one was missed.
MOST_HELD, _OLDEST, _MOST_BATCHES, _PARTED_BATCHES = 8, 9, 10, 11
CLASS_COLUMNS: Final = 12
_FIRST_BATCHES: Final = 2
# Blocks never used before are handed out by so many lines of the processor's caches.
_STRETCH_LINES, _LINE_BYTES = 32, 64


class Central(NamedTuple):
    """Spans, the shelves of the central heap, and the threads' magazines: few arrays, for each costs every call.

    Attributes:
        spans: ``(n, 7)``; see the names of the columns.
        classes: ``(classes, CLASS_COLUMNS)``, smallest first.
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


@compiled
def _link(c: Central, index: int, span: int) -> None:
    c.spans[span, _IS_LISTED] = 1
    c.spans[span, _BEFORE] = NOBODY
    head = c.classes[index, SHELF]
    c.spans[span, _FOLLOWING] = head
    if head != NOBODY:
        c.spans[head, _BEFORE] = span
    c.classes[index, SHELF] = span


@compiled
def _unlink(c: Central, index: int, span: int) -> None:
    c.spans[span, _IS_LISTED] = 0
    if c.spans[span, _BEFORE] != NOBODY:
        c.spans[c.spans[span, _BEFORE], _FOLLOWING] = c.spans[span, _FOLLOWING]
    else:
        c.classes[index, SHELF] = c.spans[span, _FOLLOWING]
    if c.spans[span, _FOLLOWING] != NOBODY:
        c.spans[c.spans[span, _FOLLOWING], _BEFORE] = c.spans[span, _BEFORE]


@compiled
def new_span(c: Central, p: Pages, index: int, pages: int) -> int:
    """Take a run of pages for a class, or for a large block; NOBODY where there is none."""
    run = allocate_run(p, pages)
    if run == NOBODY:
        return NOBODY
    span = c.now[RETIRED]
    if span != NOBODY:
        c.now[RETIRED] = c.spans[span, _FOLLOWING]
    else:
        span = c.now[SPANS]
        if span >= len(c.spans):
            c.now[BROKEN] = 1
            return NOBODY
        c.now[SPANS] += 1
    c.spans[span, CLASS] = index
    c.spans[span, RUN] = run
    c.spans[span, _USED] = c.spans[span, _CARVED] = 0
    c.spans[span, _IS_LISTED] = 0
    return span


@compiled
def free_span(c: Central, p: Pages, span: int) -> None:
    """Give the pages of a span back; its number waits for another."""
    free_run(p, c.spans[span, RUN])
    c.spans[span, _FOLLOWING] = c.now[RETIRED]
    c.now[RETIRED] = span


@compiled
def _one_less_waits(c: Central, index: int) -> None:
    c.classes[index, _BATCHES] -= 1
    c.classes[index, _UNNEEDED_BATCHES] = min(c.classes[index, _UNNEEDED_BATCHES], c.classes[index, _BATCHES])


@compiled
def _most_batches(c: Central, index: int) -> int:
    return max(c.classes[index, _MOST_BATCHES], min(_FIRST_BATCHES, c.now[BATCHES_AT_MOST]))


@compiled
def fetch(c: Central, p: Pages, index: int, wanted: int, at: int, room: int) -> int:
    """Put blocks into the stack from `at` on; answers how many."""
    if c.classes[index, SPAN_BLOCKS] == 1:
        span = new_span(c, p, index, c.classes[index, SPAN_PAGES])
        if span == NOBODY:
            return 0
        c.spans[span, _USED] = c.spans[span, _CARVED] = 1
        run = c.spans[span, RUN]
        write_pages(p, run, run + (c.classes[index, BYTES] + PAGE_BYTES - 1) // PAGE_BYTES)
        c.stack[at] = span
        return 1
    if c.classes[index, _BATCHES] > 0:
        last = (c.classes[index, _OLDEST] + c.classes[index, _BATCHES] - 1) % c.now[BATCHES_AT_MOST]
        _one_less_waits(c, index)
        count = c.waiting[index, last, 0]
        for i in range(count):
            c.stack[at + i] = c.waiting[index, last, 1 + i]
        return count
    if c.classes[index, _PARTED_BATCHES] > 0:
        c.classes[index, _MOST_BATCHES] = min(2 * _most_batches(c, index), c.now[BATCHES_AT_MOST])
        c.classes[index, _PARTED_BATCHES] = 0
    count = 0
    is_fresh = False
    while 2 * count < wanted and not is_fresh:
        span = c.classes[index, SHELF]
        if span == NOBODY:
            if count > 0:
                break
            span = new_span(c, p, index, c.classes[index, SPAN_PAGES])
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
            size = c.classes[index, BYTES]
            start = carved * size
            stretch = _STRETCH_LINES * max(_LINE_BYTES // size, 1)
            taken = min(stretch, min(c.classes[index, SPAN_BLOCKS] - carved, wanted - count))
            is_fresh = True
            c.spans[span, _CARVED] += taken
            run = c.spans[span, RUN]
            # The last block is the program's soon enough: all of it counts as written.
            write_pages(
                p, run + start // PAGE_BYTES, run + (start + taken * size + PAGE_BYTES - 1) // PAGE_BYTES
            )
        c.spans[span, _USED] += taken
        for i in range(taken):
            c.stack[at + count + i] = span
        count += taken
        if (
            c.spans[span, _CARVED] == c.classes[index, SPAN_BLOCKS]
            and c.spans[span, _USED] == c.spans[span, _CARVED]
        ):
            _unlink(c, index, span)
    return count


@compiled
def leave(c: Central, p: Pages, index: int, span: int) -> None:
    """Give one block back to its span, and the span where that was its last."""
    c.spans[span, _USED] -= 1
    if c.classes[index, SPAN_BLOCKS] == 1:
        free_span(c, p, span)
        return
    if c.spans[span, _IS_LISTED] == 0:
        _link(c, index, span)
    if c.spans[span, _USED] == 0:
        _unlink(c, index, span)
        free_span(c, p, span)


@compiled
def dissolve(c: Central, p: Pages, index: int, at: int, count: int) -> None:
    """Give blocks of the stack back to their spans, the last first."""
    for i in range(count - 1, -1, -1):
        leave(c, p, index, c.stack[at + i])


@compiled
def _leave_oldest(c: Central, p: Pages, index: int) -> None:
    oldest = c.classes[index, _OLDEST]
    for i in range(c.waiting[index, oldest, 0] - 1, -1, -1):
        leave(c, p, index, c.waiting[index, oldest, 1 + i])
    c.classes[index, _OLDEST] = (oldest + 1) % c.now[BATCHES_AT_MOST]
    _one_less_waits(c, index)


@compiled
def release(c: Central, p: Pages, index: int, at: int, count: int) -> None:
    """Let a batch of the stack wait for whoever wants it next, while there is room."""
    most = c.now[BATCHES_AT_MOST]
    if c.classes[index, SPAN_BLOCKS] > 1 and most > 0:
        if c.classes[index, _BATCHES] >= _most_batches(c, index):
            c.classes[index, _PARTED_BATCHES] += 1
            dissolve(c, p, index, at, count)
            return
        place = (c.classes[index, _OLDEST] + c.classes[index, _BATCHES]) % most
        c.waiting[index, place, 0] = count
        for i in range(count):
            c.waiting[index, place, 1 + i] = c.stack[at + i]
        c.classes[index, _BATCHES] += 1
        return
    dissolve(c, p, index, at, count)


@compiled
def recycle(c: Central, p: Pages, everything: bool) -> None:
    """Give back the batches that nobody needed since the last time, or all of them."""
    for index in range(len(c.classes)):
        if c.classes[index, _BATCHES] == 0:
            continue
        unneeded = c.classes[index, _UNNEEDED_BATCHES]
        for _ in range(c.classes[index, _BATCHES] if everything else unneeded):
            _leave_oldest(c, p, index)
        c.classes[index, _MOST_BATCHES] = max(_most_batches(c, index) - unneeded, 0)
        c.classes[index, _UNNEEDED_BATCHES] = c.classes[index, _BATCHES]

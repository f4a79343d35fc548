"""The page heap, page by page, without the pages: `native/heap/page_heap.h` as a walk over columns.

Pages are numbered from 0; a run is known by its first page. Which pages are resident is followed exactly: a page is from
the moment something on it is written until the kernel is told that it may go.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np

from heapsmith.tune.geometry import constants

_jit: Any = numba.njit
walking: Any = _jit(cache=True, _nrt=False)
compiled: Any = _jit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Compiled without reference counts: these functions make no arrays, and counting would cost more than their work. What is
kept on disk is the walk that calls them: numba would not notice that a function in another file has changed."""

PAGE_BYTES: Final = 4096
NOBODY: Final = -1
# What a run is.
GONE, USED, DIRTY, CLEAN, FRESH = 0, 1, 2, 3, 4
_BINS: Final = 64 + 4 * 36
_EXACT: Final = 64
_BUFFER_PAGES: Final = 64
_SPARSE_PAGES: Final = 128
_HUGE_PAGES: Final = 512
_SMALL_UNTIL_PAGES: Final = 1024
_EBB_PAGES: Final = 1024
_WINDOW_MS: Final = 1000

# Places in `Pages.now`.
MAPPED, LIVE, DIRTY_PAGES, PEAK, RESIDENT, RESIDENT_PEAK = 0, 1, 2, 3, 4, 5
OLDEST, NEWEST, NEXT_MAINTENANCE, MISSED, MISSED_MS, PURGED, PURGED_MS, NOW_MS = 6, 7, 8, 9, 10, 11, 12, 13
FULL, PURGES, FAULTS, STEP, PEAK_STEP = 14, 15, 16, 17, 18
# What the spec says, there too.
KEEP_BYTES, KEEP_SHARE, KEEP_MS, REST_BYTES, REST_SHARE = 20, 21, 22, 23, 24
FIRST_SEGMENT, LARGEST_SEGMENT, HUGE_AFTER = 25, 26, 27
# And the bins of dirty, of clean and of fresh runs: first pages.
# The tide (`native/heap/tide.h`): the highest level of this window and what was made good in it, the same of the window
# before, the lowest level since, when this window began, and whether there is an ebb.
HIGHEST, MADE_GOOD, HIGHEST_BEFORE, MADE_GOOD_BEFORE, LOWEST, BEGAN_MS, IS_EBB = 28, 29, 30, 31, 32, 33, 34
# Pages of the largest block that was freed and had been written from one end to the other.
SEEN_DENSE: Final = 35
HEADS: Final = 40
NEVER: Final = 1 << 60

# Columns of `Pages.runs`, by the first page of a run: what it is, its length, the neighbours in its bin, those in the
# order of their freeing, and when it was freed. FIRST is by first and last page of a run, IS_RESIDENT
# and IS_HUGE (it was advised to become part of a huge page) by every page.
STATE, COUNT, FIRST, FOLLOWING, BEFORE, OLDER, NEWER, FREED_MS, IS_RESIDENT, IS_HUGE = range(10)


class Pages(NamedTuple):
    """The state of a page heap: few arrays, for each costs every call of a compiled function.

    Attributes:
        runs: ``(pages, 10)``; see the names of the columns.
        now: Counts, rules and bins; see the names above.
    """

    runs: Any
    now: Any


def make_pages(page_count: int) -> Pages:
    """Make the state of an empty page heap that may come to so many pages of addresses."""
    now = np.zeros(HEADS + 3 * _BINS, np.int64)
    now[OLDEST] = now[NEWEST] = NOBODY
    now[HEADS:] = NOBODY
    now[FIRST_SEGMENT] = constants().first_segment_bytes // PAGE_BYTES
    now[HUGE_AFTER] = NEVER
    now[LARGEST_SEGMENT] = constants().largest_segment_bytes // PAGE_BYTES
    runs = np.zeros((page_count + 2, 10), np.int64)
    runs[:, FIRST : NEWER + 1] = NOBODY
    return Pages(runs, now)


@compiled
def _bin_of(pages: int) -> int:
    if pages < _EXACT:
        return pages
    exponent = 6
    while (pages >> (exponent + 1)) > 0:
        exponent += 1
    return _EXACT + 4 * (exponent - 6) + ((pages >> (exponent - 2)) & 3)


@compiled
def _set_ends(p: Pages, start: int) -> None:
    p.runs[start, FIRST] = start
    p.runs[start + p.runs[start, COUNT] - 1, FIRST] = start


@compiled
def _insert(p: Pages, start: int, state: int) -> None:
    p.runs[start, STATE] = state
    _set_ends(p, start)
    place = (state - DIRTY) * _BINS + _bin_of(p.runs[start, COUNT])
    head = p.now[HEADS + place]
    p.runs[start, BEFORE] = NOBODY
    p.runs[start, FOLLOWING] = head
    if head != NOBODY:
        p.runs[head, BEFORE] = start
    p.now[HEADS + place] = start
    if state == DIRTY:
        p.now[DIRTY_PAGES] += p.runs[start, COUNT]


@compiled
def _remove(p: Pages, start: int) -> None:
    state = p.runs[start, STATE]
    place = (state - DIRTY) * _BINS + _bin_of(p.runs[start, COUNT])
    if p.runs[start, BEFORE] != NOBODY:
        p.runs[p.runs[start, BEFORE], FOLLOWING] = p.runs[start, FOLLOWING]
    else:
        p.now[HEADS + place] = p.runs[start, FOLLOWING]
    if p.runs[start, FOLLOWING] != NOBODY:
        p.runs[p.runs[start, FOLLOWING], BEFORE] = p.runs[start, BEFORE]
    if state == DIRTY:
        p.now[DIRTY_PAGES] -= p.runs[start, COUNT]
        if p.runs[start, OLDER] != NOBODY:
            p.runs[p.runs[start, OLDER], NEWER] = p.runs[start, NEWER]
        else:
            p.now[OLDEST] = p.runs[start, NEWER]
        if p.runs[start, NEWER] != NOBODY:
            p.runs[p.runs[start, NEWER], OLDER] = p.runs[start, OLDER]
        else:
            p.now[NEWEST] = p.runs[start, OLDER]


@compiled
def _join(p: Pages, start: int, state: int) -> int:
    if start > 0:
        other = p.runs[start - 1, FIRST]
        if other != NOBODY and p.runs[other, STATE] == state and other + p.runs[other, COUNT] == start:
            _remove(p, other)
            p.runs[other, COUNT] += p.runs[start, COUNT]
            p.runs[start, STATE] = GONE
            start = other
    after = start + p.runs[start, COUNT]
    if after < p.now[MAPPED] and p.runs[after, FIRST] == after and p.runs[after, STATE] == state:
        _remove(p, after)
        p.runs[start, COUNT] += p.runs[after, COUNT]
        p.runs[after, STATE] = GONE
    return start


@compiled
def _insert_dirty(p: Pages, start: int, freed_ms: int) -> None:
    start = _join(p, start, DIRTY)
    p.runs[start, FREED_MS] = freed_ms
    p.runs[start, OLDER] = p.now[NEWEST]
    p.runs[start, NEWER] = NOBODY
    if p.now[NEWEST] != NOBODY:
        p.runs[p.now[NEWEST], NEWER] = start
    else:
        p.now[OLDEST] = start
    p.now[NEWEST] = start
    _insert(p, start, DIRTY)


@compiled
def _insert_remainder(p: Pages, start: int, state: int, freed_ms: int) -> None:
    if state == DIRTY:
        _insert_dirty(p, start, freed_ms)
    else:
        _insert(p, _join(p, start, state), state)


@compiled
def _find(p: Pages, state: int, pages: int) -> int:
    offset = (state - DIRTY) * _BINS
    place = _bin_of(pages)
    if place >= _EXACT:
        best = NOBODY
        looked = 0
        run = p.now[HEADS + offset + place]
        while run != NOBODY and looked < 32:
            if p.runs[run, COUNT] >= pages and (best == NOBODY or p.runs[run, COUNT] < p.runs[best, COUNT]):
                best = run
            run = p.runs[run, FOLLOWING]
            looked += 1
        if best != NOBODY:
            return best
        place += 1
    while place < _BINS:
        if p.now[HEADS + offset + place] != NOBODY:
            return p.now[HEADS + offset + place]
        place += 1
    return NOBODY


@compiled
def _carve(p: Pages, run: int, pages: int) -> None:
    state = p.runs[run, STATE]
    freed_ms = p.runs[run, FREED_MS]
    _remove(p, run)
    whole = p.runs[run, COUNT]
    p.runs[run, COUNT] = pages
    p.runs[run, STATE] = USED
    _set_ends(p, run)
    if whole > pages:
        tail = run + pages
        p.runs[tail, COUNT] = whole - pages
        _insert_remainder(p, tail, state, freed_ms)


@compiled
def write_pages(p: Pages, first: int, behind: int) -> None:
    """Make pages resident; the first of a huge page brings all of it."""
    added = faults = 0
    for page in range(first, behind):
        if p.runs[page, IS_RESIDENT] == 0:
            faults += 1
            p.runs[page, IS_RESIDENT] = 1
            added += 1
            if p.runs[page, IS_HUGE] == 1:
                begin = page // _HUGE_PAGES * _HUGE_PAGES
                for other in range(begin, min(begin + _HUGE_PAGES, p.now[MAPPED])):
                    # Once given back, its pages come one by one.
                    p.runs[other, IS_HUGE] = 2
                    added += 1 - p.runs[other, IS_RESIDENT]
                    p.runs[other, IS_RESIDENT] = 1
    if added:
        p.now[RESIDENT] += added
        p.now[FAULTS] += faults
        if p.now[RESIDENT] > p.now[RESIDENT_PEAK]:
            p.now[RESIDENT_PEAK] = p.now[RESIDENT]
            p.now[PEAK_STEP] = p.now[STEP]


@compiled
def _purge_run(p: Pages, run: int) -> None:
    _remove(p, run)
    gone = 0
    for page in range(run, run + p.runs[run, COUNT]):
        gone += p.runs[page, IS_RESIDENT]
        p.runs[page, IS_RESIDENT] = 0
    p.now[RESIDENT] -= gone
    p.now[PURGES] += 1
    _insert(p, _join(p, run, CLEAN), CLEAN)


@compiled
def _purge(p: Pages, wanted_pages: int) -> int:
    purged = 0
    while p.now[OLDEST] != NOBODY and purged < wanted_pages:
        run = p.now[OLDEST]
        wanted = wanted_pages - purged
        if p.runs[run, COUNT] > wanted + _BUFFER_PAGES:
            freed_ms = p.runs[run, FREED_MS]
            _remove(p, run)
            whole = p.runs[run, COUNT]
            p.runs[run, COUNT] = whole - wanted
            p.runs[run, STATE] = USED
            _set_ends(p, run)
            tail = run + whole - wanted
            p.runs[tail, COUNT] = wanted
            p.runs[tail, STATE] = USED
            _set_ends(p, tail)
            _insert_dirty(p, run, freed_ms)
            p.runs[tail, FREED_MS] = freed_ms
            p.runs[tail, OLDER] = p.runs[tail, NEWER] = NOBODY
            gone = 0
            for page in range(tail, tail + wanted):
                gone += p.runs[page, IS_RESIDENT]
                p.runs[page, IS_RESIDENT] = 0
            p.now[RESIDENT] -= gone
            p.now[PURGES] += 1
            _insert(p, _join(p, tail, CLEAN), CLEAN)
            purged += wanted
            continue
        purged += p.runs[run, COUNT]
        _purge_run(p, run)
    return purged


@compiled
def _kept_pages(p: Pages) -> int:
    if p.now[KEEP_BYTES] >= NEVER:
        return NEVER
    kept = p.now[KEEP_BYTES] // PAGE_BYTES
    if p.now[KEEP_SHARE] > 0:
        kept += p.now[LIVE] // p.now[KEEP_SHARE]
    return kept + p.now[MISSED]


@compiled
def _rest_pages(p: Pages) -> int:
    if p.now[REST_BYTES] >= NEVER:
        return NEVER
    rest = p.now[REST_BYTES] // PAGE_BYTES
    return rest + p.now[LIVE] // p.now[REST_SHARE] if p.now[REST_SHARE] > 0 else rest


@compiled
def _rise(p: Pages) -> None:
    level = p.now[LIVE]
    if level > p.now[HIGHEST]:
        p.now[HIGHEST] = p.now[LOWEST] = level
        p.now[IS_EBB] = 0
    elif level > p.now[LOWEST]:
        p.now[MADE_GOOD] = max(p.now[MADE_GOOD], level - p.now[LOWEST])
        if level - p.now[LOWEST] > _EBB_PAGES // 4:
            p.now[IS_EBB] = 0


@compiled
def _fall(p: Pages, before: int) -> None:
    level, now_ms = p.now[LIVE], p.now[NOW_MS]
    if now_ms - p.now[BEGAN_MS] >= _WINDOW_MS:
        is_next = now_ms - p.now[BEGAN_MS] < 2 * _WINDOW_MS
        p.now[HIGHEST_BEFORE] = p.now[HIGHEST] if is_next else 0
        p.now[MADE_GOOD_BEFORE] = p.now[MADE_GOOD] if is_next else 0
        p.now[HIGHEST], p.now[MADE_GOOD], p.now[LOWEST], p.now[BEGAN_MS] = before, 0, level, now_ms
    p.now[LOWEST] = min(p.now[LOWEST], level)
    highest = max(p.now[HIGHEST], p.now[HIGHEST_BEFORE], before)
    depth = highest - level
    made_good = max(p.now[MADE_GOOD], p.now[MADE_GOOD_BEFORE])
    p.now[IS_EBB] = depth >= _EBB_PAGES and depth >= highest // 2 and 2 * made_good < depth


@compiled
def _hold_peak(p: Pages, pages: int) -> None:
    keeps_for_ever = p.now[KEEP_MS] >= NEVER
    if p.now[PURGED] > 0 and not keeps_for_ever:
        if p.now[NOW_MS] - p.now[PURGED_MS] < 1000:
            missed = min(pages, p.now[PURGED])
            p.now[PURGED] -= missed
            p.now[MISSED] += missed
            p.now[MISSED_MS] = p.now[NOW_MS]
        else:
            p.now[PURGED] = 0
    resident = p.now[LIVE] + p.now[DIRTY_PAGES]
    if resident <= p.now[PEAK]:
        return
    slack = max(256, p.now[LIVE] // 3)
    if p.now[DIRTY_PAGES] > slack and not keeps_for_ever:
        _purge(p, min(pages, p.now[DIRTY_PAGES] - slack))
    p.now[PEAK] = max(p.now[PEAK], p.now[LIVE] + p.now[DIRTY_PAGES])


@compiled
def maintain(p: Pages) -> None:
    """Purge what has been free for long enough."""
    keep_ms = p.now[KEEP_MS]
    if p.now[OLDEST] == NOBODY or keep_ms >= NEVER or p.now[NOW_MS] < p.now[NEXT_MAINTENANCE]:
        return
    now_ms = p.now[NOW_MS]
    p.now[NEXT_MAINTENANCE] = now_ms + max(keep_ms // 8, 4)
    if p.now[MISSED] > 0 and now_ms - p.now[MISSED_MS] >= 1000:
        p.now[MISSED] = 0
        kept = _kept_pages(p)
        if p.now[DIRTY_PAGES] > kept:
            _purge(p, p.now[DIRTY_PAGES] - kept)
    if p.now[MISSED] > 0:
        return
    while p.now[OLDEST] != NOBODY and now_ms - p.runs[p.now[OLDEST], FREED_MS] >= keep_ms:
        _purge_run(p, p.now[OLDEST])


@compiled
def settle(p: Pages) -> None:
    """The phase of several threads is over: what it left goes back."""
    if p.now[KEEP_MS] >= NEVER:
        return
    kept = _rest_pages(p) + p.now[MISSED]
    if p.now[DIRTY_PAGES] > kept:
        p.now[PURGED] += _purge(p, p.now[DIRTY_PAGES] - kept)
        p.now[PURGED_MS] = p.now[NOW_MS]


@compiled
def _map_segment(p: Pages, pages: int, for_blocks: bool) -> int:
    is_small = p.now[MAPPED] < min(_SMALL_UNTIL_PAGES, p.now[HUGE_AFTER])
    least = p.now[FIRST_SEGMENT] if is_small else _HUGE_PAGES
    segment = max(least, p.now[MAPPED] // 8 // _HUGE_PAGES * _HUGE_PAGES)
    if for_blocks and pages >= _HUGE_PAGES:
        pages = (pages + _HUGE_PAGES - 1) // _HUGE_PAGES * _HUGE_PAGES
    segment = max(pages, min(segment, p.now[LARGEST_SEGMENT]))
    huge = for_blocks and p.now[MAPPED] >= p.now[HUGE_AFTER] and segment >= _HUGE_PAGES
    if huge:
        gap = -p.now[MAPPED] % _HUGE_PAGES
        if p.now[MAPPED] + gap + segment + 2 <= len(p.runs):
            p.now[MAPPED] += gap
        else:
            huge = False
    start = p.now[MAPPED]
    if start + segment + 2 > len(p.runs):
        segment = pages
        if start + segment + 2 > len(p.runs):
            p.now[FULL] = 1
            return NOBODY
    p.now[MAPPED] += segment
    p.runs[start, COUNT] = segment
    state = CLEAN
    if huge:
        state = FRESH
        for page in range(start, start + segment // _HUGE_PAGES * _HUGE_PAGES):
            p.runs[page, IS_HUGE] = 1
    start = _join(p, start, state)
    _insert(p, start, state)
    return start


@compiled
def _compose(p: Pages, pages: int) -> int:
    looked = 0
    place = _bin_of(pages) + 1
    while place > 0 and looked < 16:
        place -= 1
        run = p.now[HEADS + place]
        while run != NOBODY and looked < 16:
            if p.runs[run, COUNT] * 4 < pages:
                return NOBODY
            after = run + p.runs[run, COUNT]
            usable = (
                after < p.now[MAPPED]
                and p.runs[after, FIRST] == after
                and p.runs[after, STATE] == CLEAN
                and p.runs[run, COUNT] < pages
                and p.runs[run, COUNT] + p.runs[after, COUNT] >= pages
            )
            if usable:
                more = pages - p.runs[run, COUNT]
                rest = p.runs[after, COUNT] - more
                _remove(p, run)
                _remove(p, after)
                p.runs[after, STATE] = GONE
                p.runs[run, COUNT] = pages
                p.runs[run, STATE] = USED
                _set_ends(p, run)
                if rest > 0:
                    p.runs[run + pages, COUNT] = rest
                    _insert_remainder(p, run + pages, CLEAN, 0)
                p.now[LIVE] += pages
                _rise(p)
                _hold_peak(p, more)
                return run
            run = p.runs[run, FOLLOWING]
            looked += 1
    return NOBODY


@compiled
def allocate_run(p: Pages, pages: int) -> int:
    """Take a run; `NOBODY` where the columns are too short."""
    run = _find(p, DIRTY, pages)
    if run != NOBODY:
        _carve(p, run, pages)
        p.now[LIVE] += pages
        _rise(p)
        maintain(p)
        return run
    if pages >= _BUFFER_PAGES:
        run = _compose(p, pages)
        if run != NOBODY:
            maintain(p)
            return run
    makes_huge = p.now[HUGE_AFTER] < NEVER
    sparse = pages >= _SPARSE_PAGES and not (makes_huge and pages <= 8 * p.now[SEEN_DENSE])
    run = NOBODY if sparse else _find(p, FRESH, pages)
    if run == NOBODY:
        run = _find(p, CLEAN, pages)
    if run == NOBODY:
        run = _map_segment(p, pages, not sparse)
        if run == NOBODY:
            return NOBODY
    _carve(p, run, pages)
    if makes_huge and not sparse and pages >= _HUGE_PAGES:
        _make_huge(p, run, pages)
    p.now[LIVE] += pages
    _rise(p)
    _hold_peak(p, pages)
    maintain(p)
    return run


@compiled
def _make_huge(p: Pages, run: int, pages: int) -> None:
    """A large block that will be filled takes one fault for each 2 MiB."""
    first = (run + _HUGE_PAGES - 1) // _HUGE_PAGES * _HUGE_PAGES
    for page in range(first, (run + pages) // _HUGE_PAGES * _HUGE_PAGES):
        if p.runs[page, IS_RESIDENT] == 0:
            p.runs[page, IS_HUGE] = 1


@compiled
def learn_density(p: Pages, pages: int) -> None:
    """A large block is freed: as blocks are taken to be written in full, such sizes are no longer held for sparse."""
    if pages >= _SPARSE_PAGES:
        p.now[SEEN_DENSE] = max(p.now[SEEN_DENSE], pages)


@compiled
def free_run(p: Pages, run: int) -> None:
    """Give a run back."""
    before = p.now[LIVE]
    p.now[LIVE] -= p.runs[run, COUNT]
    _fall(p, before)
    _insert_dirty(p, run, p.now[NOW_MS])
    is_ebb = p.now[IS_EBB] == 1 and p.now[KEEP_MS] < NEVER
    kept = _rest_pages(p) if is_ebb else _kept_pages(p)
    if p.now[DIRTY_PAGES] > kept + (kept // 2 if is_ebb else 0):
        p.now[PURGED] += _purge(p, p.now[DIRTY_PAGES] - kept)
        p.now[PURGED_MS] = p.now[NOW_MS]
    maintain(p)


@compiled
def resize_run(p: Pages, run: int, pages: int) -> int:
    """Make a run in use longer or shorter, where it is or (its pages moved by the kernel) elsewhere."""
    have = p.runs[run, COUNT]
    if pages == have:
        return run
    if pages < have:
        tail = run + pages
        p.runs[run, COUNT] = pages
        _set_ends(p, run)
        p.runs[tail, COUNT] = have - pages
        p.runs[tail, STATE] = USED
        _set_ends(p, tail)
        free_run(p, tail)
        return run
    more = pages - have
    after = run + have
    if (
        after < p.now[MAPPED]
        and p.runs[after, FIRST] == after
        and p.runs[after, STATE] >= DIRTY
        and p.runs[after, COUNT] >= more
    ):
        state = p.runs[after, STATE]
        freed_ms = p.runs[after, FREED_MS]
        whole = p.runs[after, COUNT]
        _remove(p, after)
        p.runs[after, STATE] = GONE
        p.now[LIVE] += more
        _rise(p)
        p.runs[run, COUNT] = pages
        _set_ends(p, run)
        if whole > more:
            p.runs[run + pages, COUNT] = whole - more
            _insert_remainder(p, run + pages, state, freed_ms)
        return run
    moved = _find(p, CLEAN, pages)
    if moved == NOBODY:
        moved = _map_segment(p, pages, False)
        if moved == NOBODY:
            return NOBODY
    _carve(p, moved, pages)
    p.now[LIVE] += more
    _rise(p)
    for page in range(have):
        p.runs[moved + page, IS_RESIDENT] = p.runs[run + page, IS_RESIDENT]
        p.runs[run + page, IS_RESIDENT] = 0
    # Those addresses are the kernel's again: a gap that nothing is joined with.
    p.runs[run, STATE] = GONE
    p.runs[run, FIRST] = p.runs[run + have - 1, FIRST] = NOBODY
    return moved

"""One pass over the bytes of a batch: every event once, without columns in between.

The kernels read the streams of `columns` in step (codes, then the wider values where a code says so) and keep only what is
live: an object's number leads through a page of slots to its slot, and both are used again when their objects have died.

All state is arrays, so that a kernel can be left at any moment (the next edge of the time line) and taken up again.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

PAGE_SHIFT: Final = 9
PAGE: Final = 1 << PAGE_SHIFT
"""Objects of one page of slots."""

# Scalars that are whole numbers.
(
    N_EVENT, N_OBJECT, N_TICK, N_EPOCH, N_PEAK_EVENT, N_PEAK_TICK, N_UNKNOWN, N_DIRTY, N_INTERVAL, N_BIN, N_FREE_SLOTS,
    N_FREE_PAGES, N_PAGES, N_DEATH, N_BIRTH, N_EVENTS_BEFORE, N_TWICE,
) = range(17)  # fmt: skip
N_WIDE: Final = 17
"""Behind these, for each of the columns that are read in step where its next 16-, 32- and 64-bit values lie."""
THREADS, TICKS, AGES, SHAPES, STACKS = range(5)
N_COUNT: Final = N_WIDE + 3 * 5

# Scalars that may be estimates. The first `LEVELS` are levels: their values at the peak are kept beside them.
(
    F_LIVE, F_USABLE, F_BLOCKS, F_MALLOC, F_PYTHON, F_MAPPED, F_MAPPED_BLOCKS, F_VARIANCE, F_PEAK, F_PEAK_USABLE,
    F_PEAK_BLOCKS, F_PEAK_MALLOC, F_PEAK_PYTHON, F_PEAK_MAPPED, F_PEAK_MAPPED_BLOCKS, F_PEAK_VARIANCE, F_MAPPED_PEAK,
    F_USABLE_PEAK, F_TEMPORARY, F_TEMPORARY_BYTES, F_READ, F_COUNT,
) = range(22)  # fmt: skip
LEVELS: Final = 8

# Of each key: a stack, of heap blocks or of mappings. What every event changes is in the first line of a cache.
(
    K_ALLOCATIONS, K_BYTES, K_LIVE_BYTES, K_LIVE_BLOCKS, K_STAMP, K_DIRTY, K_OWN_PEAK, K_LIFE_TICKS, K_PEAK_BYTES,
    K_PEAK_BLOCKS, K_TEMPORARY, K_TEMPORARY_BYTES, K_VARIANCE, K_LIVE_VARIANCE, K_PEAK_VARIANCE,
) = range(15)  # fmt: skip
K_COUNT: Final = 16

# Of each thread.
(
    T_ALLOCATIONS, T_FREES, T_BYTES, T_REMOTE_FREES, T_FREED_BY_OTHERS, T_LIVE_BYTES, T_TEMPORARY, T_LIVE_PEAK,
    T_LAST_OBJECT, T_COUNT,
) = range(10)  # fmt: skip

# Of each size class.
C_ALLOCATIONS, C_BYTES, C_LIVE_BLOCKS, C_LIVE_BYTES, C_PEAK_BLOCKS, C_PEAK_BYTES, C_STAMP, C_COUNT = range(8)

# Of each live object: one line of a cache. What it stands for among stacks is apart, where that is something else.
S_BYTES, S_BLOCKS, S_USABLE, S_KEY, S_TICK, S_THREAD, S_CLASS, S_VARIANCE, S_COUNT = range(9)

# Of each shape of a batch: what one allocation stands for in the process and among those of its stack.
(
    H_BYTES, H_BLOCKS, H_USABLE, H_VARIANCE, H_STACK_BYTES, H_STACK_BLOCKS, H_CLASS, H_COUNTED, H_MAPS, H_COUNT,
) = range(10)  # fmt: skip

# Of each stack of a batch: its keys for blocks and for mappings; whether the interpreter takes itself down in it.
R_HEAP, R_MAPPED, R_ENDING, R_COUNT = range(4)

# Of each bin of the time line.
B_MAX, B_END, B_USABLE, B_MAPPED, B_BLOCKS, B_ALLOCATIONS, B_BYTES, B_FREES, B_MIN, B_COUNT = range(10)

# Of each doubling of a lifetime.
L_BLOCKS, L_BYTES, L_AGE_BLOCKS, L_AGE_BYTES, L_COUNT = range(5)

DONE: Final = 0
EDGE: Final = 1
DAMAGED: Final = 2
ENDING: Final = 3

_BORN_MASK: Final = 0b0001110111
_DIED_MASK: Final = 0b0010111000
_REALLOCATED_MASK: Final = 0b0000110000
_MAP: Final = 6
_UNMAP: Final = 7
_ZERO_MAPPED: Final = 1 << 30
"""Added to a slot's class where its object is a mapping."""
_PYTHON: Final = 1 << 29

_AHEAD: Final = 64
"""Of so many events what their deaths need is read before the first of them is gone through."""

_index: Any = np.uint64
"""An index that is known not to be negative: without it, each access looks whether to count from the end."""

_jit: Any = numba.njit
# Kernels make no arrays: to count who refers to those they are given (_nrt) would take half of their time.
_compile: Any = _jit(cache=True, nogil=True, boundscheck=False, _nrt=False)
_inline: Any = _jit(cache=True, nogil=True, inline="always")


@_inline
def _wide(code: int, column: int, numbers: Any, wide: Any) -> Any:
    """The value behind a code of 253 or above; a damaged column may lead to another's, never out of the batch."""
    place = N_WIDE + 3 * column + code - 253
    at = numbers[place]
    numbers[place] = at + 1
    return wide[at] if at < len(wide) else np.int64(-1)


@_inline
def _doubling(value: int) -> Any:
    """0 for 0, else the number of bits of the value: the exponent of the floating-point number."""
    return _index(max(0, (np.float64(value).view(np.int64) >> 52) - 1022))


@_inline
def _touch(keys: Any, key: int, epoch: int, interval: int, dirty: Any, n_dirty: int) -> int:
    """Keep what a key held at the peak before it changes for the first time since then; note it as changed."""
    if keys[key, K_STAMP] != epoch:
        keys[key, K_PEAK_BYTES] = keys[key, K_LIVE_BYTES]
        keys[key, K_PEAK_BLOCKS] = keys[key, K_LIVE_BLOCKS]
        keys[key, K_PEAK_VARIANCE] = keys[key, K_LIVE_VARIANCE]
        keys[key, K_STAMP] = epoch
    if keys[key, K_DIRTY] != interval:
        keys[key, K_DIRTY] = interval
        dirty[n_dirty] = key
        n_dirty += 1
    return n_dirty


@_inline
def _touch_class(classes: Any, place: int, epoch: int) -> None:
    if classes[place, C_STAMP] != epoch:
        classes[place, C_PEAK_BLOCKS] = classes[place, C_LIVE_BLOCKS]
        classes[place, C_PEAK_BYTES] = classes[place, C_LIVE_BYTES]
        classes[place, C_STAMP] = epoch


@_inline
def _end_bin(
    bins: Any,
    place: int,
    highest: float,
    lowest: float,
    live: float,
    usable: float,
    mapped: float,
    blocks: float,
    allocations: float,
    allocated: float,
    frees: float,
) -> None:
    bins[place, B_MAX] = highest
    bins[place, B_MIN] = lowest
    bins[place, B_END] = live
    bins[place, B_USABLE] = usable
    bins[place, B_MAPPED] = mapped
    bins[place, B_BLOCKS] = blocks
    bins[place, B_ALLOCATIONS] += allocations
    bins[place, B_BYTES] += allocated
    bins[place, B_FREES] += frees


@_inline
def _read_ahead(
    first: int, end: int, number: int, death: int,
    operations: Any, age_codes: Any, wide: Any, numbers: Any, page_of: Any, pages: Any, slots: Any,
) -> float:  # fmt: skip
    """Read the slots of what dies in some events, one read not waiting for another: later each would wait for memory.

    Returns:
        A sum of what was read, of no meaning: what nobody uses would not be read.
    """
    place = N_WIDE + 3 * AGES
    at16, at32 = numbers[place], numbers[place + 1]
    read = 0.0
    for i in range(first, end):
        operation = np.int64(operations[_index(i)]) & 0x3F
        if operation > 9:
            continue
        if (_DIED_MASK >> operation) & 1:
            if death >= len(age_codes):
                break
            age = np.int64(age_codes[_index(death)])
            death += 1
            if age == 253:
                age = wide[_index(at16)] if at16 < len(wide) else np.int64(0)
                at16 += 1
            elif age == 254:
                age = wide[_index(at32)] if at32 < len(wide) else np.int64(0)
                at32 += 1
            page_number = (number - age) >> PAGE_SHIFT
            # What is younger is in the cache, or not born yet.
            if age > _AHEAD and 0 <= page_number < len(page_of) and page_of[_index(page_number)] >= 0:
                within = _index((number - age) & (PAGE - 1))
                slot = np.int64(pages[_index(page_of[_index(page_number)]), within])
                if slot >= 0:
                    read += slots[_index(slot), S_KEY]
        if (_BORN_MASK >> operation) & 1:
            number += 1
    return read


@_compile
def run(
    operations: Any, thread_codes: Any, tick_codes: Any, age_codes: Any, shape_codes: Any, stack_codes: Any, wide: Any,
    shapes: Any, rows: Any, no_stack_row: int,
    numbers: Any, levels: Any, keys: Any, threads: Any, classes: Any, lifetimes: Any, bins: Any, edges: Any, dirty: Any,
    slots: Any, sampled_slots: Any, free_slots: Any, page_of: Any, pages: Any, page_live: Any, free_pages: Any,
    stop_tick: int, tick_ns: int, stacks_sampled: bool, watches_ending: bool,
) -> int:  # fmt: skip
    """Go through the events of a batch until its end or the first event at or behind `stop_tick`.

    Args:
        operations: (n,) uint8, as the codes of the other columns.
        thread_codes: Of the column of threads; likewise the others.
        tick_codes: Of ticks since the event before.
        age_codes: Of ages of those that die.
        shape_codes: Of shapes of those that are born.
        stack_codes: Of rows of stacks; (0,) where the batch has none.
        wide: (w,) int64, the wider values of all columns; `numbers` says where each column's begin.
        shapes: (m, `H_COUNT`) float64; `H_COUNTED` and, of these, `H_MAPS` are counted up.
        rows: (r, `R_COUNT`) int64; (1, `R_COUNT`) where the batch has no stacks.
        no_stack_row: The row that stands for no stack; -1 where there is none.
        numbers: `N_COUNT` whole numbers.
        levels: `F_COUNT` figures.
        keys: As their columns say; likewise `threads`, `classes`, `lifetimes`, `bins`, `slots`.
        threads: (t, `T_COUNT`).
        classes: (c, `C_COUNT`).
        lifetimes: (64, `L_COUNT`).
        bins: (b, `B_COUNT`).
        edges: (b,) int64: ticks at which the bins end.
        dirty: Keys that changed in this interval.
        slots: Of live objects.
        sampled_slots: (s, 2) as slots: bytes and blocks among stacks; used where stacks_sampled.
        free_slots: A stack of slots that may be used.
        page_of: Page of each `PAGE` objects, -1 where all of them have died.
        pages: Slot of each object of a page.
        page_live: How many of a page's objects live.
        free_pages: A stack of pages that may be used again.
        stop_tick: In ticks since the start of the trace.
        tick_ns: Length of a tick.
        stacks_sampled: All events are there, but only those with a stack stand for something among stacks.
        watches_ending: Leave behind the first event whose row says that the interpreter takes itself down.

    Returns:
        `DONE`, `EDGE`, `ENDING` or `DAMAGED`.
    """
    n = len(operations)
    has_stacks = len(stack_codes) > 0
    i = numbers[N_EVENT]
    tick = numbers[N_TICK]
    place_bin = numbers[N_BIN]
    last_bin = len(edges) - 1
    n_object = numbers[N_OBJECT]
    n_free_slots = numbers[N_FREE_SLOTS]
    n_death = numbers[N_DEATH]
    n_birth = numbers[N_BIRTH]
    n_dirty = numbers[N_DIRTY]
    epoch = numbers[N_EPOCH]
    interval = numbers[N_INTERVAL]
    live = levels[F_LIVE]
    usable = levels[F_USABLE]
    blocks = levels[F_BLOCKS]
    malloc = levels[F_MALLOC]
    python = levels[F_PYTHON]
    mapped = levels[F_MAPPED]
    peak = levels[F_PEAK]
    usable_peak = levels[F_USABLE_PEAK]
    allocations = allocated = frees = 0.0  # of the bin
    result = DONE
    highest = bins[place_bin, B_MAX]
    lowest = bins[place_bin, B_MIN]
    known = i
    read = 0.0
    while i < n:
        if i == known:
            known = min(n, i + _AHEAD)
            read += _read_ahead(
                i, known, n_object, n_death, operations, age_codes, wide, numbers, page_of, pages, slots
            )
        code = np.int64(tick_codes[_index(i)])
        delta = code if code < 253 else _wide(code, TICKS, numbers, wide)
        if delta < 0:
            result = DAMAGED
            break
        if tick + delta >= stop_tick:
            if code >= 253:
                numbers[N_WIDE + 3 * TICKS + code - 253] -= 1
            result = EDGE
            break
        tick += delta
        while place_bin < last_bin and tick >= edges[place_bin]:
            _end_bin(
                bins, place_bin, highest, lowest, live, usable, mapped, blocks, allocations, allocated, frees
            )
            place_bin += 1
            highest = lowest = live
            allocations = allocated = frees = 0.0
        code = np.int64(thread_codes[_index(i)])
        thread_number = code if code < 253 else _wide(code, THREADS, numbers, wide)
        if thread_number < 0 or thread_number >= len(threads):
            result = DAMAGED
            break
        thread = _index(thread_number)
        flags = np.int64(operations[_index(i)])
        operation = flags & 0x3F
        if operation > 9:
            i += 1
            continue
        if (_DIED_MASK >> operation) & 1:
            at = n_death
            if at >= len(age_codes):
                result = DAMAGED
                break
            n_death = at + 1
            code = np.int64(age_codes[_index(at)])
            age = code if code < 253 else _wide(code, AGES, numbers, wide)
            number = n_object - age
            is_free = operation == 3
            if age < 0 or number < 0:
                result = DAMAGED
                break
            page_number = _index(number >> PAGE_SHIFT)
            within = _index(number & (PAGE - 1))
            found = np.int64(-1)
            page = _index(0)
            if age > 0 and page_number < len(page_of) and page_of[page_number] >= 0:
                page = _index(page_of[page_number])
                found = np.int64(pages[page, within])
            if found < 0:
                if age > 0:
                    numbers[N_TWICE] += 1
                elif operation != _UNMAP:
                    numbers[N_UNKNOWN] += 1
                if is_free:
                    threads[thread, T_FREES] += 1
                    frees += 1.0
            else:
                slot = _index(found)
                pages[page, within] = -1
                page_live[page] -= 1
                if page_live[page] == 0 and (number >> PAGE_SHIFT) != (n_object >> PAGE_SHIFT):
                    page_of[page_number] = -1
                    free_pages[numbers[N_FREE_PAGES]] = page
                    numbers[N_FREE_PAGES] += 1
                free_slots[_index(n_free_slots)] = slot
                n_free_slots += 1
                w = slots[slot, S_BYTES]
                c = slots[slot, S_BLOCKS]
                key = _index(slots[slot, S_KEY])
                kind = np.int64(slots[slot, S_CLASS])
                birth_thread = _index(slots[slot, S_THREAD])
                life = tick - np.int64(slots[slot, S_TICK])
                kw = w
                kc = c
                if stacks_sampled:
                    kw = sampled_slots[slot, 0]
                    kc = sampled_slots[slot, 1]
                n_dirty = _touch(keys, key, epoch, interval, dirty, n_dirty)
                keys[key, K_LIVE_BYTES] -= kw
                keys[key, K_LIVE_BLOCKS] -= kc
                keys[key, K_LIFE_TICKS] += life * kc
                if kind & _ZERO_MAPPED:
                    mapped -= w
                    levels[F_MAPPED_BLOCKS] -= c
                else:
                    place = _index(kind & 0xFFFF)
                    _touch_class(classes, place, epoch)
                    classes[place, C_LIVE_BLOCKS] -= c
                    classes[place, C_LIVE_BYTES] -= w
                    live -= w
                    usable -= slots[slot, S_USABLE]
                    blocks -= c
                    if kind & _PYTHON:
                        python -= w
                    else:
                        malloc -= w
                    v = slots[slot, S_VARIANCE]
                    if v > 0:
                        keys[key, K_LIVE_VARIANCE] -= v
                        levels[F_VARIANCE] -= v
                    threads[birth_thread, T_LIVE_BYTES] -= w
                    if birth_thread != thread:
                        threads[thread, T_REMOTE_FREES] += 1
                        threads[birth_thread, T_FREED_BY_OTHERS] += 1
                    if is_free:
                        threads[thread, T_FREES] += c
                        frees += c
                    if is_free and birth_thread == thread and threads[thread, T_LAST_OBJECT] == number:
                        keys[key, K_TEMPORARY] += kc
                        keys[key, K_TEMPORARY_BYTES] += kw
                        levels[F_TEMPORARY] += c
                        levels[F_TEMPORARY_BYTES] += w
                        threads[thread, T_TEMPORARY] += c
                    doubling = _doubling(life * tick_ns)
                    lifetimes[doubling, L_BLOCKS] += c
                    lifetimes[doubling, L_BYTES] += w
                    doubling = _doubling(age)
                    lifetimes[doubling, L_AGE_BLOCKS] += c
                    lifetimes[doubling, L_AGE_BYTES] += w
        if (_BORN_MASK >> operation) & 1:
            at = n_birth
            if at >= len(shape_codes):
                result = DAMAGED
                break
            n_birth = at + 1
            code = np.int64(shape_codes[_index(at)])
            shape_number = code if code < 253 else _wide(code, SHAPES, numbers, wide)
            if shape_number < 0 or shape_number >= len(shapes):
                result = DAMAGED
                break
            shape = _index(shape_number)
            row_number = np.int64(0)
            if has_stacks:
                if at >= len(stack_codes):
                    result = DAMAGED
                    break
                code = np.int64(stack_codes[_index(at)])
                row_number = code if code < 253 else _wide(code, STACKS, numbers, wide)
                if row_number < 0 or row_number >= len(rows):
                    result = DAMAGED
                    break
            row = _index(row_number)
            if watches_ending and rows[row, R_ENDING] != 0:
                # This event is gone through to its end; its block is none of those that live at the moment.
                watches_ending = False
                result = ENDING
            shapes[shape, H_COUNTED] += 1
            w = shapes[shape, H_BYTES]
            c = shapes[shape, H_BLOCKS]
            v = shapes[shape, H_VARIANCE]
            kw = w
            kc = c
            if stacks_sampled:
                kw = shapes[shape, H_STACK_BYTES]
                kc = shapes[shape, H_STACK_BLOCKS]
                if row_number == no_stack_row:
                    v = kw = kc = 0.0
            number = n_object
            n_object = number + 1
            page_number = _index(number >> PAGE_SHIFT)
            if page_of[page_number] < 0:
                if numbers[N_FREE_PAGES] > 0:
                    numbers[N_FREE_PAGES] -= 1
                    page_of[page_number] = free_pages[numbers[N_FREE_PAGES]]
                else:
                    page_of[page_number] = numbers[N_PAGES]
                    numbers[N_PAGES] += 1
            page = _index(page_of[page_number])
            n_free_slots -= 1
            slot = _index(free_slots[_index(n_free_slots)])
            pages[page, _index(number & (PAGE - 1))] = np.int64(slot)
            page_live[page] += 1
            slots[slot, S_BYTES] = w
            slots[slot, S_BLOCKS] = c
            slots[slot, S_USABLE] = shapes[shape, H_USABLE]
            slots[slot, S_TICK] = tick
            slots[slot, S_THREAD] = thread_number
            slots[slot, S_VARIANCE] = v
            if stacks_sampled:
                sampled_slots[slot, 0] = kw
                sampled_slots[slot, 1] = kc
            kind = _index(shapes[shape, H_CLASS])
            is_map = operation == _MAP
            key = _index(rows[row, R_MAPPED] if is_map else rows[row, R_HEAP])
            slots[slot, S_KEY] = np.int64(key)
            n_dirty = _touch(keys, key, epoch, interval, dirty, n_dirty)
            keys[key, K_ALLOCATIONS] += kc
            keys[key, K_BYTES] += kw
            held = keys[key, K_LIVE_BYTES] + kw
            keys[key, K_LIVE_BYTES] = held
            keys[key, K_LIVE_BLOCKS] += kc
            if held > keys[key, K_OWN_PEAK]:
                keys[key, K_OWN_PEAK] = held
            if is_map:
                slots[slot, S_CLASS] = np.int64(kind) | _ZERO_MAPPED
                shapes[shape, H_MAPS] += 1
                mapped += w
                levels[F_MAPPED_BLOCKS] += c
                if mapped > levels[F_MAPPED_PEAK]:
                    levels[F_MAPPED_PEAK] = mapped
            else:
                slots[slot, S_CLASS] = np.int64(kind) | (_PYTHON if flags & 0x40 else 0)
                threads[thread, T_LAST_OBJECT] = number
                _touch_class(classes, kind, epoch)
                if v > 0:
                    keys[key, K_VARIANCE] += v
                    keys[key, K_LIVE_VARIANCE] += v
                    levels[F_VARIANCE] += v
                classes[kind, C_LIVE_BLOCKS] += c
                classes[kind, C_LIVE_BYTES] += w
                threads[thread, T_ALLOCATIONS] += c
                threads[thread, T_BYTES] += w
                held = threads[thread, T_LIVE_BYTES] + w
                threads[thread, T_LIVE_BYTES] = held
                if held > threads[thread, T_LIVE_PEAK]:
                    threads[thread, T_LIVE_PEAK] = held
                if flags & 0x40:
                    python += w
                else:
                    malloc += w
                live += w
                usable += shapes[shape, H_USABLE]
                blocks += c
                allocations += c
                allocated += w
                if usable > usable_peak:
                    usable_peak = usable
                if live > peak:
                    peak = live
                    levels[F_PEAK_USABLE] = usable
                    levels[F_PEAK_BLOCKS] = blocks
                    levels[F_PEAK_MALLOC] = malloc
                    levels[F_PEAK_PYTHON] = python
                    levels[F_PEAK_MAPPED] = mapped
                    levels[F_PEAK_MAPPED_BLOCKS] = levels[F_MAPPED_BLOCKS]
                    levels[F_PEAK_VARIANCE] = levels[F_VARIANCE]
                    epoch += 1
                    numbers[N_PEAK_EVENT] = numbers[N_EVENTS_BEFORE] + i
                    numbers[N_PEAK_TICK] = tick
        highest = max(highest, live)
        lowest = min(lowest, live)
        i += 1
        if result == ENDING:
            break
    numbers[N_EVENT] = i
    numbers[N_TICK] = tick
    numbers[N_BIN] = place_bin
    numbers[N_OBJECT] = n_object
    numbers[N_FREE_SLOTS] = n_free_slots
    numbers[N_DEATH] = n_death
    numbers[N_BIRTH] = n_birth
    numbers[N_DIRTY] = n_dirty
    numbers[N_EPOCH] = epoch
    levels[F_LIVE] = live
    levels[F_USABLE] = usable
    levels[F_BLOCKS] = blocks
    levels[F_MALLOC] = malloc
    levels[F_PYTHON] = python
    levels[F_MAPPED] = mapped
    levels[F_PEAK] = peak
    levels[F_USABLE_PEAK] = usable_peak
    levels[F_READ] = read
    _end_bin(bins, place_bin, highest, lowest, live, usable, mapped, blocks, allocations, allocated, frees)
    return result


@_compile
def include(parents: Any, values: Any) -> None:
    """Add to each node what the nodes below it hold, in place.

    Args:
        parents: (n,) int64; a parent has a smaller number; node 0 is the root.
        values: (n, m) float64.
    """
    for node in range(len(parents) - 1, 0, -1):
        parent = parents[node]
        for column in range(values.shape[1]):
            values[parent, column] += values[node, column]

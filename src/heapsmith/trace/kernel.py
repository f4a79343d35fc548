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
    N_FREE_PAGES, N_PAGES, N_DEATH, N_BIRTH, N_EVENTS_BEFORE, N_TWICE, N_CODES,
) = range(18)  # fmt: skip
N_WIDE: Final = 18
"""Behind these, three cursors for each of the six columns that are read in step."""
N_COUNT: Final = N_WIDE + 18

# Scalars that may be estimates. The first `LEVELS` are levels: their values at the peak are kept beside them.
(
    F_LIVE, F_USABLE, F_BLOCKS, F_MALLOC, F_PYTHON, F_MAPPED, F_MAPPED_BLOCKS, F_VARIANCE, F_PEAK, F_PEAK_USABLE,
    F_PEAK_BLOCKS, F_PEAK_MALLOC, F_PEAK_PYTHON, F_PEAK_MAPPED, F_PEAK_MAPPED_BLOCKS, F_PEAK_VARIANCE, F_MAPPED_PEAK,
    F_USABLE_PEAK, F_TEMPORARY, F_TEMPORARY_BYTES, F_ALLOCATIONS, F_BYTES, F_COUNT,
) = range(23)  # fmt: skip
LEVELS: Final = 8

# Of each key: a stack, of heap blocks or of mappings.
(
    K_ALLOCATIONS, K_BYTES, K_LIVE_BYTES, K_LIVE_BLOCKS, K_PEAK_BYTES, K_PEAK_BLOCKS, K_STAMP, K_TEMPORARY,
    K_TEMPORARY_BYTES, K_OWN_PEAK, K_LIFE_TICKS, K_DIED, K_VARIANCE, K_LIVE_VARIANCE, K_PEAK_VARIANCE, K_DIRTY, K_COUNT,
) = range(17)  # fmt: skip

# Of each thread.
(
    T_ALLOCATIONS, T_FREES, T_BYTES, T_REMOTE_FREES, T_FREED_BY_OTHERS, T_LIVE_BYTES, T_TEMPORARY, T_LIVE_PEAK, T_COUNT,
) = range(9)  # fmt: skip

# Of each size class.
C_ALLOCATIONS, C_BYTES, C_LIVE_BLOCKS, C_LIVE_BYTES, C_PEAK_BLOCKS, C_PEAK_BYTES, C_STAMP, C_COUNT = range(8)

# Of each live object.
(
    S_BYTES, S_BLOCKS, S_USABLE, S_KEY, S_TICK, S_THREAD, S_CLASS, S_VARIANCE, S_KEY_BYTES, S_KEY_BLOCKS, S_COUNT,
) = range(11)  # fmt: skip

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

_compile: Any = numba.njit(cache=True, nogil=True, boundscheck=False)
_inline: Any = numba.njit(cache=True, nogil=True, inline="always")


@_inline
def _wide(code: int, column: int, numbers: Any, w16: Any, w32: Any, w64: Any) -> Any:
    """The value behind a code of 253 or above; -1 where its stream has ended."""
    place = N_WIDE + 3 * column + code - 253
    at = numbers[place]
    numbers[place] = at + 1
    if code == 253:
        return np.int64(w16[at]) if at < len(w16) else np.int64(-1)
    if code == 254:
        return np.int64(w32[at]) if at < len(w32) else np.int64(-1)
    return np.int64(w64[at]) if at < len(w64) else np.int64(-1)


@_inline
def _doubling(value: int) -> int:
    """0 for 0, else the number of bits of the value, up to 63."""
    bits = 0
    while value >= 256:
        value >>= 8
        bits += 8
    while value > 0:
        value >>= 1
        bits += 1
    return bits


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
) -> None:
    bins[place, B_MAX] = highest
    bins[place, B_MIN] = lowest
    bins[place, B_END] = live
    bins[place, B_USABLE] = usable
    bins[place, B_MAPPED] = mapped
    bins[place, B_BLOCKS] = blocks


@_compile
def run(  # noqa: D417 (columns come as codes, 16-, 32- and 64-bit values)
    operations: Any,
    threads_codes: Any, threads_16: Any, threads_32: Any, threads_64: Any,
    ticks_codes: Any, ticks_16: Any, ticks_32: Any, ticks_64: Any,
    ages_codes: Any, ages_16: Any, ages_32: Any, ages_64: Any,
    shapes_codes: Any, shapes_16: Any, shapes_32: Any, shapes_64: Any,
    stacks_codes: Any, stacks_16: Any, stacks_32: Any, stacks_64: Any,
    shape_values: Any, shape_class: Any, shape_count: Any,
    heap_keys: Any, mapped_keys: Any,
    no_stack_row: int,
    numbers: Any, levels: Any, keys: Any, threads: Any, last_objects: Any, classes: Any, lifetimes: Any, bins: Any,
    edges: Any, dirty: Any, slots: Any, free_slots: Any, page_of: Any, pages: Any, page_live: Any, free_pages: Any,
    stop_tick: int, tick_ns: int, stacks_sampled: bool, ending_rows: Any, watches_ending: bool,
) -> int:  # fmt: skip
    """Go through the events of a batch until its end or the first event at or behind `stop_tick`.

    Args:
        operations: (n,) uint8; every other column as its codes and its wider values.
        shape_values: (m, 6) float64: bytes, blocks, usable bytes that one allocation stands for in the process, then
            variance, bytes and blocks that it stands for among those of its stack.
        shape_class: (m,) int64 size class.
        shape_count: (m,) int64, counted up.
        heap_keys: Key of each of the batch's stacks, for blocks of the heap; (1,) where the batch has no stacks.
        mapped_keys: The same for mappings.
        no_stack_row: Row of those keys that stands for no stack; -1 where there is none.
        numbers: `N_COUNT` whole numbers; levels: `F_COUNT`; the others as their columns say.
        edges: (n_bins,) int64: ticks at which the bins end.
        page_of: Page of each `PAGE` objects, -1 where all of them have died.
        stop_tick: In ticks since the start of the trace.
        tick_ns: Length of a tick.
        stacks_sampled: All events are there, but only those with a stack stand for something among stacks.
        ending_rows: (as heap_keys,) bool: whether a stack says that the interpreter takes itself down.
        watches_ending: Leave behind the first such event.

    Returns:
        `DONE`, `EDGE`, `ENDING` or `DAMAGED`.
    """
    n = len(operations)
    has_stacks = len(stacks_codes) > 0
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
    result = DONE
    highest = bins[place_bin, B_MAX]
    lowest = bins[place_bin, B_MIN]
    while i < n:
        code = np.int64(ticks_codes[i])
        saved = numbers[N_WIDE + 3 * 1 + code - 253] if code >= 253 else np.int64(0)
        delta = code if code < 253 else _wide(code, 1, numbers, ticks_16, ticks_32, ticks_64)
        if delta < 0:
            result = DAMAGED
            break
        if tick + delta >= stop_tick:
            if code >= 253:
                numbers[N_WIDE + 3 * 1 + code - 253] = saved
            result = EDGE
            break
        tick += delta
        while place_bin < last_bin and tick >= edges[place_bin]:
            _end_bin(bins, place_bin, highest, lowest, live, usable, mapped, blocks)
            place_bin += 1
            highest = lowest = live
        code = np.int64(threads_codes[i])
        thread = code if code < 253 else _wide(code, 0, numbers, threads_16, threads_32, threads_64)
        if thread < 0 or thread >= len(threads):
            result = DAMAGED
            break
        flags = np.int64(operations[i])
        operation = flags & 0x3F
        if operation > 9:
            i += 1
            continue
        if (_DIED_MASK >> operation) & 1:
            at = n_death
            if at >= len(ages_codes):
                result = DAMAGED
                break
            n_death = at + 1
            code = np.int64(ages_codes[at])
            age = code if code < 253 else _wide(code, 2, numbers, ages_16, ages_32, ages_64)
            number = n_object - age
            is_free = operation == 3
            if age < 0 or number < 0:
                result = DAMAGED
                break
            page = np.int64(-1)
            slot = np.int64(-1)
            if age > 0 and (number >> PAGE_SHIFT) < len(page_of):
                page = np.int64(page_of[number >> PAGE_SHIFT])
                if page >= 0:
                    slot = np.int64(pages[page, number & (PAGE - 1)])
            if slot < 0:
                if age > 0:
                    numbers[N_TWICE] += 1
                elif operation != _UNMAP:
                    numbers[N_UNKNOWN] += 1
                if is_free:
                    threads[thread, T_FREES] += 1
                    bins[place_bin, B_FREES] += 1
            else:
                pages[page, number & (PAGE - 1)] = -1
                page_live[page] -= 1
                if page_live[page] == 0 and (number >> PAGE_SHIFT) != (n_object >> PAGE_SHIFT):
                    page_of[number >> PAGE_SHIFT] = -1
                    free_pages[numbers[N_FREE_PAGES]] = page
                    numbers[N_FREE_PAGES] += 1
                free_slots[n_free_slots] = slot
                n_free_slots += 1
                w = slots[slot, S_BYTES]
                c = slots[slot, S_BLOCKS]
                key = np.int64(slots[slot, S_KEY])
                kind = np.int64(slots[slot, S_CLASS])
                birth_thread = np.int64(slots[slot, S_THREAD])
                life = tick - np.int64(slots[slot, S_TICK])
                kw = slots[slot, S_KEY_BYTES]
                kc = slots[slot, S_KEY_BLOCKS]
                n_dirty = _touch(keys, key, epoch, interval, dirty, n_dirty)
                keys[key, K_LIVE_BYTES] -= kw
                keys[key, K_LIVE_BLOCKS] -= kc
                if kind & _ZERO_MAPPED:
                    mapped -= w
                    levels[F_MAPPED_BLOCKS] -= c
                    keys[key, K_LIFE_TICKS] += life * kc
                    keys[key, K_DIED] += kc
                else:
                    place = kind & 0xFFFF
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
                        bins[place_bin, B_FREES] += c
                    if is_free and birth_thread == thread and last_objects[thread] == number:
                        keys[key, K_TEMPORARY] += kc
                        keys[key, K_TEMPORARY_BYTES] += kw
                        levels[F_TEMPORARY] += c
                        levels[F_TEMPORARY_BYTES] += w
                        threads[thread, T_TEMPORARY] += c
                    keys[key, K_LIFE_TICKS] += life * kc
                    keys[key, K_DIED] += kc
                    doubling = _doubling(life * tick_ns)
                    lifetimes[doubling, L_BLOCKS] += c
                    lifetimes[doubling, L_BYTES] += w
                    doubling = _doubling(age)
                    lifetimes[doubling, L_AGE_BLOCKS] += c
                    lifetimes[doubling, L_AGE_BYTES] += w
        if (_BORN_MASK >> operation) & 1:
            at = n_birth
            if at >= len(shapes_codes):
                result = DAMAGED
                break
            n_birth = at + 1
            code = np.int64(shapes_codes[at])
            shape = code if code < 253 else _wide(code, 3, numbers, shapes_16, shapes_32, shapes_64)
            if shape < 0 or shape >= len(shape_class):
                result = DAMAGED
                break
            row = np.int64(0)
            if has_stacks:
                if at >= len(stacks_codes):
                    result = DAMAGED
                    break
                code = np.int64(stacks_codes[at])
                row = code if code < 253 else _wide(code, 4, numbers, stacks_16, stacks_32, stacks_64)
                if row < 0 or row >= len(heap_keys):
                    result = DAMAGED
                    break
            if watches_ending and ending_rows[row]:
                # This event is gone through to its end; its block is none of those that live at the moment.
                watches_ending = False
                result = ENDING
            shape_count[shape] += 1
            w = shape_values[shape, 0]
            c = shape_values[shape, 1]
            v = shape_values[shape, 3]
            kw = shape_values[shape, 4]
            kc = shape_values[shape, 5]
            if stacks_sampled and row == no_stack_row:
                v = kw = kc = 0.0
            number = n_object
            n_object = number + 1
            page = np.int64(page_of[number >> PAGE_SHIFT])
            if page < 0:
                if numbers[N_FREE_PAGES] > 0:
                    numbers[N_FREE_PAGES] -= 1
                    page = np.int64(free_pages[numbers[N_FREE_PAGES]])
                else:
                    page = numbers[N_PAGES]
                    numbers[N_PAGES] += 1
                page_of[number >> PAGE_SHIFT] = page
            n_free_slots -= 1
            slot = np.int64(free_slots[n_free_slots])
            pages[page, number & (PAGE - 1)] = slot
            page_live[page] += 1
            slots[slot, S_BYTES] = w
            slots[slot, S_BLOCKS] = c
            slots[slot, S_USABLE] = shape_values[shape, 2]
            slots[slot, S_TICK] = tick
            slots[slot, S_THREAD] = thread
            slots[slot, S_VARIANCE] = v
            slots[slot, S_KEY_BYTES] = kw
            slots[slot, S_KEY_BLOCKS] = kc
            kind = shape_class[shape]
            if operation == _MAP:
                key = np.int64(mapped_keys[row])
                slots[slot, S_KEY] = key
                slots[slot, S_CLASS] = kind | _ZERO_MAPPED
                n_dirty = _touch(keys, key, epoch, interval, dirty, n_dirty)
                keys[key, K_ALLOCATIONS] += kc
                keys[key, K_BYTES] += kw
                keys[key, K_LIVE_BYTES] += kw
                keys[key, K_LIVE_BLOCKS] += kc
                if keys[key, K_LIVE_BYTES] > keys[key, K_OWN_PEAK]:
                    keys[key, K_OWN_PEAK] = keys[key, K_LIVE_BYTES]
                mapped += w
                levels[F_MAPPED_BLOCKS] += c
                if mapped > levels[F_MAPPED_PEAK]:
                    levels[F_MAPPED_PEAK] = mapped
            else:
                key = np.int64(heap_keys[row])
                slots[slot, S_KEY] = key
                slots[slot, S_CLASS] = kind | (_PYTHON if flags & 0x40 else 0)
                last_objects[thread] = number
                n_dirty = _touch(keys, key, epoch, interval, dirty, n_dirty)
                _touch_class(classes, kind, epoch)
                keys[key, K_ALLOCATIONS] += kc
                keys[key, K_BYTES] += kw
                keys[key, K_LIVE_BYTES] += kw
                keys[key, K_LIVE_BLOCKS] += kc
                if keys[key, K_LIVE_BYTES] > keys[key, K_OWN_PEAK]:
                    keys[key, K_OWN_PEAK] = keys[key, K_LIVE_BYTES]
                if v > 0:
                    keys[key, K_VARIANCE] += v
                    keys[key, K_LIVE_VARIANCE] += v
                    levels[F_VARIANCE] += v
                classes[kind, C_ALLOCATIONS] += c
                classes[kind, C_BYTES] += w
                classes[kind, C_LIVE_BLOCKS] += c
                classes[kind, C_LIVE_BYTES] += w
                threads[thread, T_ALLOCATIONS] += c
                threads[thread, T_BYTES] += w
                threads[thread, T_LIVE_BYTES] += w
                if threads[thread, T_LIVE_BYTES] > threads[thread, T_LIVE_PEAK]:
                    threads[thread, T_LIVE_PEAK] = threads[thread, T_LIVE_BYTES]
                if flags & 0x40:
                    python += w
                else:
                    malloc += w
                live += w
                usable += shape_values[shape, 2]
                blocks += c
                levels[F_ALLOCATIONS] += c
                levels[F_BYTES] += w
                bins[place_bin, B_ALLOCATIONS] += c
                bins[place_bin, B_BYTES] += w
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
    _end_bin(bins, place_bin, highest, lowest, live, usable, mapped, blocks)
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

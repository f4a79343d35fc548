"""The passes that turn events into a plan's words: compiled, because every event depends on those before it.

An object is *shared* when another thread than its own frees it. Blocks of unshared objects change places in the player's
table as their thread allocates and frees; places of shared ones are used again only when every thread has passed the
moment of the free, so that a thread that is ahead cannot take the block before for the one it waits for.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

SYNC: Final = 0
WIDE: Final = 1
ALLOCATE: Final = 2
ZEROED: Final = 3
ALIGNED: Final = 4
FREE: Final = 5
TAKE: Final = 6
REALLOCATE: Final = 7
UNTIL: Final = 8
REST: Final = 9
NOTHING: Final = 15
"""In `kinds`: the event is no call of malloc's family."""
MOST_WORDS: Final = 8
"""Of one event."""
_SYNC_CALLS: Final = 32
_LARGE_BYTES: Final = 64 * 1024
SYNC_EVENTS: Final = 1024
"""A thread tells its place at least this often, in events; the window has to be larger."""
_SHARED: Final = np.uint32(1 << 31)
_NOBODY: Final = np.uint32(0x7FFFFFFF)
_END: Final = np.uint32(0xFFFFFFFF)

Words = NDArray[np.uint64]


@numba.njit(cache=True)
def find_owners(
    kinds: NDArray[np.uint8],
    thread: NDArray[np.uint32],
    born: NDArray[np.int64],
    died: NDArray[np.int64],
    owners: NDArray[np.uint32],
) -> None:
    """First pass: whose each object is, and whether it is shared; `owners` has one entry per object."""
    for i in range(len(kinds)):
        if kinds[i] == NOTHING:
            continue
        dead = died[i]
        if dead >= 0 and owners[dead] & _NOBODY != thread[i]:
            owners[dead] |= _SHARED
        if born[i] >= 0:
            owners[born[i]] = thread[i]


@numba.njit(cache=True)
def _take_slot(
    state: Any, freed_at: Any, following: Any, heads: Any, thread: int, shared: bool, order: int
) -> int:
    """Find a place: `state` is [places, first shared free one, last, window]."""
    if shared:
        first = state[1]
        if first != _END and freed_at[first] + 3 * state[3] < order:
            state[1] = following[first]
            if state[1] == _END:
                state[2] = _END
            return first
    elif heads[thread] != _END:
        found = heads[thread]
        heads[thread] = following[found]
        return found
    found = state[0]
    state[0] += 1
    return found


@numba.njit(cache=True)
def _leave_slot(
    state: Any, freed_at: Any, following: Any, heads: Any, thread: int, shared: bool, order: int, slot: int
) -> None:
    if shared:
        freed_at[slot] = order
        following[slot] = _END
        if state[2] == _END:
            state[1] = slot
        else:
            following[state[2]] = slot
        state[2] = slot
    else:
        following[slot] = heads[thread]
        heads[thread] = slot


@numba.njit(cache=True)
def write_words(
    kinds: NDArray[np.uint8],
    thread: NDArray[np.uint32],
    born: NDArray[np.int64],
    died: NDArray[np.int64],
    size_bytes: NDArray[np.uint64],
    alignment: NDArray[np.uint8],
    time_ns: NDArray[np.int64],
    first_order: int,
    owners: NDArray[np.uint32],
    slot_of: NDArray[np.uint32],
    state: NDArray[np.int64],
    freed_at: NDArray[np.int64],
    following: NDArray[np.uint32],
    heads: NDArray[np.uint32],
    synced_at: NDArray[np.int64],
    calls_since: NDArray[np.int64],
    paced_at: NDArray[np.int64],
    pace: NDArray[np.float64],
    rest_number: NDArray[np.int64],
    cursor: NDArray[np.int64],
    words: Words,
) -> int:
    """Second pass: write each thread's words at its cursor; answers how many calls there are.

    `pace` is [events per time to keep a factor of, ns; 0: none, gaps longer than this become rests, ns; 0: none],
    `rest_number` is [rests so far, time of the event before, whether the latest rest has nobody yet who decides when it
    begins, ns of the latest rest].
    """
    calls = 0
    for i in range(len(kinds)):
        order = first_order + i
        if pace[1] > 0:
            gap = time_ns[i] - rest_number[1]
            if rest_number[1] >= 0 and gap > pace[1]:
                rest_number[0] += 1
                rest_number[2] = 1
                rest_number[3] = gap
            rest_number[1] = time_ns[i]
        kind = kinds[i]
        if kind == NOTHING:
            continue
        dead = died[i]
        if dead >= 0 and slot_of[dead] == _END:
            dead = -2
        if kind == FREE and dead < 0:
            continue
        t = thread[i]
        at = cursor[t]
        # Who decides when a rest begins waits for all before it: it has to know its own order.
        rested = pace[1] > 0 and rest_number[0] > 0 and paced_at[t] < rest_number[0]
        if rested or calls_since[t] >= _SYNC_CALLS or order - synced_at[t] >= SYNC_EVENTS or synced_at[t] < 0:
            words[at] = np.uint64(order) << np.uint64(4) | np.uint64(SYNC)
            at += 1
            synced_at[t] = order
            calls_since[t] = 0
        if rested:
            decides = np.uint64(rest_number[2])
            rest_number[2] = 0
            number = np.uint64(rest_number[0] - 1)
            words[at] = number << np.uint64(32) | decides << np.uint64(4) | np.uint64(REST)
            words[at + 1] = np.uint64(rest_number[3])
            at += 2
            paced_at[t] = rest_number[0]
        if pace[0] > 0:
            until = np.int64(time_ns[i] / pace[0])
            if until - paced_at[t] >= 100_000:
                words[at] = np.uint64(until) << np.uint64(4) | np.uint64(UNTIL)
                at += 1
                paced_at[t] = until
        calls_since[t] += 1
        calls += 1
        if dead >= 0:
            slot = slot_of[dead]
            slot_of[dead] = _END
            remove = FREE if kind == FREE else TAKE
            words[at] = np.uint64(slot) << np.uint64(32) | np.uint64(remove)
            at += 1
            _leave_slot(state, freed_at, following, heads, t, (owners[dead] & _SHARED) != 0, order, int(slot))
        if born[i] >= 0:
            if kind == REALLOCATE and dead < 0:
                kind = ALLOCATE
            size = size_bytes[i]
            low = size & np.uint64(0xFFFFFFF)
            high = size >> np.uint64(28)
            if high > 0 or alignment[i] > 0:
                words[at] = high << np.uint64(32) | np.uint64(alignment[i]) << np.uint64(4) | np.uint64(WIDE)
                at += 1
            slot = _take_slot(state, freed_at, following, heads, t, (owners[born[i]] & _SHARED) != 0, order)
            slot_of[born[i]] = slot
            if size >= _LARGE_BYTES:
                # The next call tells its place, and so has the resident bytes looked at.
                calls_since[t] = _SYNC_CALLS
            words[at] = np.uint64(slot) << np.uint64(32) | low << np.uint64(4) | np.uint64(kind)
            at += 1
        cursor[t] = at
    return calls


@numba.njit(cache=True)
def follow_live(
    kinds: NDArray[np.uint8],
    born: NDArray[np.int64],
    died: NDArray[np.int64],
    size_bytes: NDArray[np.uint64],
    first_order: int,
    sizes: NDArray[np.uint64],
    state: NDArray[np.int64],
    every: int,
    orders: NDArray[np.int64],
    live: NDArray[np.int64],
) -> int:
    """Follow requested live bytes; `state` is [live, peak, order of the peak]; answers how many points were written."""
    points = 0
    for i in range(len(kinds)):
        if kinds[i] != NOTHING:
            if died[i] >= 0:
                state[0] -= np.int64(sizes[died[i]])
                sizes[died[i]] = 0
            if born[i] >= 0:
                sizes[born[i]] = size_bytes[i]
                state[0] += np.int64(size_bytes[i])
                if state[0] > state[1]:
                    state[1] = state[0]
                    state[2] = first_order + i
        if (first_order + i) % every == 0:
            orders[points] = first_order + i
            live[points] = state[0]
            points += 1
    return points

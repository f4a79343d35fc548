"""The malloc of the GNU C library: the baseline, and what most programs have.

Knobs go through ``GLIBC_TUNABLES`` (since 2.26) or the older ``MALLOC_..._`` variables where the library is
older. Setting a threshold also ends glibc's habit of raising both thresholds when a large block is freed
(mallopt(3)).
"""

from __future__ import annotations

from typing import Final

from heapsmith.peers.allocator import Allocator, Start, Values, Variables, tells
from heapsmith.peers.knobs import Knob, Version
from heapsmith.units import GiB, KiB, MiB

_TUNABLES_SINCE: Final = (2, 26)
_OLD_VARIABLES: Final = {
    "arena_max": "MALLOC_ARENA_MAX",
    "mmap_threshold": "MALLOC_MMAP_THRESHOLD_",
    "mmap_max": "MALLOC_MMAP_MAX_",
    "trim_threshold": "MALLOC_TRIM_THRESHOLD_",
    "top_pad": "MALLOC_TOP_PAD_",
}


def _spell(values: Values, version: Version | None) -> Variables:
    if not values:
        return {}
    if version is not None and version < _TUNABLES_SINCE:
        return {
            _OLD_VARIABLES[name]: str(int(value)) for name, value in values.items() if name in _OLD_VARIABLES
        }
    return {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={int(value)}" for name, value in values.items())}


ALLOCATOR: Final = Allocator(
    name="glibc",
    title="GNU C library malloc",
    identified_by="glibc",
    variables=("GLIBC_TUNABLES", *_OLD_VARIABLES.values(), "MALLOC_ARENA_TEST"),
    spell=_spell,
    knobs=(
        Knob(
            name="arena_max",
            kind="count",
            help="at most so many arenas: fewer keep less, and threads wait more",
            default_note="8 per processor",
            lowest=1,
            tries=(1, 2, 4),
        ),
        Knob(
            name="mmap_threshold",
            kind="bytes",
            help="blocks from here on are mapped one by one and released when freed; before 2.35 32 MiB at most",
            default_note="128 KiB, rising up to 32 MiB as mapped blocks are freed",
            lowest=0,
            tries=(64 * KiB, 128 * KiB, 1 * MiB, 32 * MiB, 1 * GiB),
        ),
        Knob(
            name="trim_threshold",
            kind="bytes",
            help="free bytes at the top of an arena that are kept before they go back",
            default_note="128 KiB, rising to twice mmap_threshold",
            lowest=0,
            tries=(64 * KiB, 128 * KiB, 1 * MiB, 64 * MiB, 1 * GiB),
        ),
        Knob(
            name="top_pad",
            kind="bytes",
            help="take so many bytes more than needed whenever an arena grows",
            default=128 * KiB,
            lowest=0,
            tries=(64 * KiB, 1 * MiB, 16 * MiB, 64 * MiB),
        ),
        Knob(
            name="mmap_max",
            kind="count",
            help="at most so many blocks mapped one by one; 0: never",
            default=65536,
            lowest=0,
            highest=2**31 - 1,
        ),
        Knob(
            name="tcache_count",
            kind="count",
            help="free blocks of each size class that a thread keeps for itself",
            default=7,
            lowest=0,
            highest=65535,
            since=_TUNABLES_SINCE,
            tries=(0, 32, 256),
        ),
        Knob(
            name="hugetlb",
            kind="count",
            help="1: ask for transparent huge pages; 2: use reserved ones",
            default=0,
            lowest=0,
            since=(2, 35),
            tries=(1,),
        ),
    ),
    starts=(
        Start((("arena_max", 1),), "memory"),
        Start((("arena_max", 1), ("mmap_threshold", 64 * KiB), ("trim_threshold", 64 * KiB)), "memory"),
        Start((("mmap_threshold", 128 * KiB), ("trim_threshold", 128 * KiB)), "memory"),
        Start((("arena_max", 2),), "memory"),
        Start((("arena_max", 1), ("trim_threshold", 64 * KiB)), "memory", python="malloc"),
        Start((("mmap_threshold", 32 * MiB), ("trim_threshold", 64 * MiB)), "time"),
        Start((("hugetlb", 1),), "time"),
        Start((("mmap_threshold", 1 * GiB), ("trim_threshold", 1 * GiB)), "time"),
        Start((("mmap_threshold", 1 * GiB), ("trim_threshold", 1 * GiB), ("hugetlb", 1)), "time"),
    ),
    fields=tells(
        current_allocated_heap_size="approximate", committed_bytes="exact", free_cached_bytes="approximate"
    ),
    meanings={
        "current_allocated_heap_size": "chunk bytes, with the words before each block; blocks in thread caches as in use",
        "free_cached_bytes": "without what thread caches hold",
    },
    note="no preload needed",
)

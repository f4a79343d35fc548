"""``heapsmith.h`` from Python: its structures, and the library that answers in this process."""

from __future__ import annotations

import ctypes
import enum
import functools
from typing import Any, ClassVar, Final

from heapsmith.errors import HeapsmithError
from heapsmith.native import library

OK: Final = 0
FAILURE: Final = 1
INVALID_PARAMETER: Final = 3
OUT_OF_MEMORY: Final = 5
UNSUPPORTED: Final = 16

FAST: Final = 0
EXACT: Final = 1
LIMIT_FORCE: Final = 1


class Field(enum.IntFlag):
    """The bits of ``valid`` and ``exact``."""

    LIMIT = 1 << 0
    CURRENT = 1 << 1
    PEAK = 1 << 2
    AVAILABLE = 1 << 3
    LARGEST_BLOCK = 1 << 4
    SOFT_LIMIT = 1 << 5
    RESIDENT = 1 << 6
    COMMITTED = 1 << 7
    RESERVED = 1 << 8
    METADATA = 1 << 9
    FREE_CACHED = 1 << 10
    MAPPED = 1 << 11
    PYTHON_ARENAS = 1 << 12
    PYTHON = 1 << 13
    POOLS = 1 << 14
    BLOCKS = 1 << 15
    ALLOCATIONS = 1 << 16
    FREES = 1 << 17
    ALLOCATED = 1 << 18
    FREED = 1 << 19
    FAILURES = 1 << 20
    LAST_FAILED = 1 << 21
    THREADS = 1 << 22
    ALLOCATOR_CURRENT = 1 << 23


SOURCES: Final = (
    None,
    "cap",
    "region",
    "rlimit_data",
    "rlimit_as",
    "cgroup2",
    "cgroup1",
    "physical",
    "allocator",
)
EFFECTS: Final = (None, "null", "kill", "throttle")
UNITS: Final = (None, "usable", "requested", "chunk", "page")
MODES: Final = (None, "watched", "forged", "asked")


class Stats(ctypes.Structure):
    """``hs_stats_t``."""

    _fields_: ClassVar = [
        ("size", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        *(
            (name, ctypes.c_uint64)
            for name in (
                "valid",
                "exact",
                "time_ns",
                "sequence",
                "limit_bytes",
                "current_bytes",
                "peak_bytes",
                "available_bytes",
                "largest_block_bytes",
                "soft_limit_bytes",
                "resident_bytes",
                "committed_bytes",
                "reserved_bytes",
                "metadata_bytes",
                "free_cached_bytes",
                "mapped_bytes",
                "python_arena_bytes",
                "python_bytes",
                "pool_bytes",
                "live_blocks",
                "allocations",
                "frees",
                "allocated_bytes",
                "freed_bytes",
                "failures",
                "last_failed_bytes",
                "threads",
                "allocator_current_bytes",
            )
        ),
        *(
            (name, ctypes.c_uint32)
            for name in (
                "limit_source",
                "limit_effect",
                "count_unit",
                "allocator_unit",
                "mode",
                "reserved_word",
            )
        ),
        ("error_bound_bytes", ctypes.c_uint64),
        ("peak_error_bound_bytes", ctypes.c_uint64),
        ("allocator", ctypes.c_char * 32),
    ]


class PeakScope(ctypes.Structure):
    """``hs_peak_t``."""

    _fields_: ClassVar = [("scope", ctypes.c_uint32), ("generation", ctypes.c_uint32)]


class NativeCrossing(ctypes.Structure):
    """``hs_crossing_t``."""

    _fields_: ClassVar = [
        ("watch", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("threshold_bytes", ctypes.c_uint64),
        ("current_bytes", ctypes.c_uint64),
        ("time_ns", ctypes.c_uint64),
    ]


_ARGUMENTS: Final[dict[str, list[Any]]] = {
    "hs_stats_get": [ctypes.POINTER(Stats), ctypes.c_uint],
    "hs_peak_reset": [ctypes.POINTER(PeakScope)],
    "hs_peak_read": [
        ctypes.POINTER(PeakScope),
        ctypes.POINTER(ctypes.c_uint64),
        ctypes.POINTER(ctypes.c_uint64),
    ],
    "hs_peak_end": [
        ctypes.POINTER(PeakScope),
        ctypes.POINTER(ctypes.c_uint64),
        ctypes.POINTER(ctypes.c_uint64),
    ],
    "hs_limit_set": [ctypes.c_uint64, ctypes.c_uint],
    "hs_watch": [
        ctypes.c_uint64,
        ctypes.c_uint64,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_uint32),
    ],
    "hs_watch_wait": [ctypes.c_uint32, ctypes.c_uint64, ctypes.POINTER(NativeCrossing)],
    "hs_watch_end": [ctypes.c_uint32],
}


@functools.cache
def answering_library() -> Any:
    """The library that answers here: the preloaded one where the process is watched, else our own that asks the allocator.

    Raises:
        HeapsmithError: The installation has no such library.
    """
    found = ctypes.CDLL(None)
    if not hasattr(found, "hs_stats_get"):
        found = ctypes.CDLL(str(library("libheapsmith.so")))
    for name, arguments in _ARGUMENTS.items():
        function = getattr(found, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int
    return found


def read_stats(flags: int = EXACT) -> Stats | None:
    """Ask once; None where this way of asking is not supported."""
    stats = Stats(size=ctypes.sizeof(Stats))
    result = answering_library().hs_stats_get(ctypes.byref(stats), flags)
    if result == UNSUPPORTED:
        return None
    if result != OK:
        raise HeapsmithError("this process's heap cannot be read", f"hs_stats_get answered {result}")
    return stats

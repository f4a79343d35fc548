"""``abi/local_heap.h`` from Python: its structures, its library, and a heap made from a spec.

Calls keep the interpreter's lock (``PyDLL``): they are shorter than handing it over.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from heapsmith.errors import HeapsmithError, SpecError
from heapsmith.native import library
from heapsmith.spec import (
    HeapSpec,
    HugePages,
    Limit,
    Prefault,
    PurgeAfter,
    PurgeAtOnce,
    PurgeOnDemand,
    load_spec,
)
from heapsmith.units import parse_bytes

NO_LIMIT: Final = (1 << 64) - 1
HUGE_NEVER: Final = 0
HUGE_LARGE: Final = 1
HUGE_ALWAYS: Final = 2
LARGEST_ALIGNMENT: Final = 2 << 20


class ClosedError(HeapsmithError, ValueError):
    """A heap, an arena or a mark was used after its end."""


class Options(ctypes.Structure):
    """``hs_local_options_t``."""

    _fields_: ClassVar = [
        ("size", ctypes.c_uint32),
        ("class_count", ctypes.c_uint32),
        ("class_bytes", ctypes.POINTER(ctypes.c_uint32)),
        ("limit_bytes", ctypes.c_uint64),
        ("retain_bytes", ctypes.c_uint64),
        ("retain_ms", ctypes.c_uint64),
        ("huge_pages", ctypes.c_uint32),
        ("prefault", ctypes.c_uint32),
    ]


class Stats(ctypes.Structure):
    """``hs_local_stats_t``."""

    _fields_: ClassVar = [
        ("size", ctypes.c_uint32),
        ("reserved_word", ctypes.c_uint32),
        *(
            (name, ctypes.c_uint64)
            for name in (
                "live_bytes",
                "live_bytes_peak",
                "live_blocks",
                "allocations",
                "frees",
                "failures",
                "limit_bytes",
                "committed_bytes",
                "kept_bytes",
            )
        ),
    ]


class LocalStatistics(msgspec.Struct, frozen=True):
    """What a local heap holds, exactly.

    Args:
        live_bytes: Usable bytes of live blocks.
        live_bytes_peak: The highest that has been.
        live_blocks: How many blocks are live.
        allocations: How many there have been.
        frees: How many blocks have been freed.
        failures: How many allocations were refused.
        limit_bytes: What live bytes may not exceed; None without a limit.
        committed_bytes: What the heap has taken from the system.
        kept_bytes: Of these, freed large blocks that wait to be used again.
    """

    live_bytes: int
    live_bytes_peak: int
    live_blocks: int
    allocations: int
    frees: int
    failures: int
    limit_bytes: int | None
    committed_bytes: int
    kept_bytes: int


_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "hs_local_create": (ctypes.c_void_p, [ctypes.POINTER(Options)]),
    "hs_local_retire": (None, [ctypes.c_void_p]),
    "hs_local_allocate": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]),
    "hs_local_free": (None, [ctypes.c_void_p]),
    "hs_local_usable_bytes": (ctypes.c_size_t, [ctypes.c_void_p]),
    "hs_local_trim": (ctypes.c_size_t, [ctypes.c_void_p]),
    "hs_local_stats": (None, [ctypes.c_void_p, ctypes.POINTER(Stats)]),
    "hs_local_bind": (None, [ctypes.c_void_p]),
    "hs_local_numpy_handler": (ctypes.c_void_p, [ctypes.c_void_p]),
}


@functools.cache
def local_library() -> Any:
    """Return the library of local heaps, ready to be called.

    Raises:
        HeapsmithError: The installation has no such library.
    """
    found = ctypes.PyDLL(str(library("libheapsmith_local.so")))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype = result
        function.argtypes = arguments
    found.hs_local_bind(ctypes.cast(ctypes.pythonapi.PyCapsule_GetPointer, ctypes.c_void_p))
    return found


@functools.cache
def address_of(name: str) -> int:
    """Return where a function of the library is, for C to call."""
    return ctypes.cast(getattr(local_library(), name), ctypes.c_void_p).value or 0


def read_bytes(wanted: int | str, what: str, *, least: int = 0) -> int:
    """Read a number of bytes as a caller gives it.

    Raises:
        HeapsmithError: It is none, or below ``least``.

    Example:
        >>> read_bytes("4KiB", "a block")
        4096
    """
    if type(wanted) is int and wanted >= least:
        return wanted
    value = parse_bytes(wanted) if isinstance(wanted, str) else wanted
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise HeapsmithError(f"{what} of {wanted!r} bytes cannot be", hint=f"give {least} or more bytes")
    return int(value)


def read_alignment(alignment: int) -> int:
    """Check an alignment.

    Raises:
        HeapsmithError: It is no power of two, or above 2 MiB.

    Example:
        >>> read_alignment(64)
        64
    """
    if type(alignment) is not int or not 0 < alignment <= LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise HeapsmithError(
            f"blocks cannot be aligned to {alignment!r}", hint="use a power of two, 2 MiB at most"
        )
    return alignment


class HeapOptions(msgspec.Struct, frozen=True):
    """How a local heap is made, read from a spec and from what the caller said beside it."""

    class_bytes: tuple[int, ...]
    limit_bytes: int = NO_LIMIT
    retain_bytes: int = NO_LIMIT
    retain_ms: int = 1000
    huge_pages: int = HUGE_NEVER
    prefault: bool = False

    def create(self) -> int:
        """Make the heap and return its address; `hs_local_retire` ends it.

        Raises:
            MemoryError: There is no memory for it.
        """
        options = Options(
            size=ctypes.sizeof(Options),
            class_count=len(self.class_bytes),
            class_bytes=(ctypes.c_uint32 * len(self.class_bytes))(*self.class_bytes),
            limit_bytes=self.limit_bytes,
            retain_bytes=self.retain_bytes,
            retain_ms=self.retain_ms,
            huge_pages=self.huge_pages,
            prefault=int(self.prefault),
        )
        heap = local_library().hs_local_create(ctypes.byref(options))
        if not heap:
            raise MemoryError("there is no memory for another local heap")
        return heap


def read_spec(spec: HeapSpec | str | Path | None, limit: int | str | None) -> HeapOptions:
    """Take from a spec what concerns a heap of one owner: its size classes, and its pages.

    Cache, remote, lock and threads are about many threads, and mean nothing here.

    Raises:
        SpecError: The spec asks for hardening, which local heaps do not have, or is none.

    Example:
        >>> read_spec("pow2", "1MiB").class_bytes[:3]
        (16, 32, 64)
    """
    if spec is None:
        spec = HeapSpec()
    elif not isinstance(spec, HeapSpec):
        spec = load_spec(spec)
    if spec.hardening:
        raise SpecError(
            f"the heap {spec.name!r} cannot be a local heap",
            "local heaps have no hardening",
            "leave slot `hardening` out, or run the program on it: `heapsmith run --allocator`",
        )
    limit_bytes = NO_LIMIT if limit is None else read_bytes(limit, "a limit", least=1)
    options = HeapOptions(tuple(spec.sizes.class_bytes()), limit_bytes=limit_bytes)
    for stage in spec.pages.stages:
        match stage:
            case Limit():
                options = msgspec.structs.replace(
                    options, limit_bytes=min(options.limit_bytes, stage.limit_bytes)
                )
            case HugePages():
                huge = HUGE_ALWAYS if stage.after_bytes == 0 else HUGE_LARGE
                options = msgspec.structs.replace(options, huge_pages=huge)
            case Prefault():
                options = msgspec.structs.replace(options, prefault=True)
            case PurgeAfter():
                options = msgspec.structs.replace(options, retain_ms=stage.delay_ms)
            case PurgeAtOnce():
                options = msgspec.structs.replace(
                    options, retain_bytes=stage.threshold_bytes, retain_ms=NO_LIMIT
                )
            case PurgeOnDemand():
                options = msgspec.structs.replace(options, retain_ms=NO_LIMIT)
            case _:
                pass
    return options


def read_statistics(heap: int) -> LocalStatistics:
    """Read the figures of a heap by its address."""
    stats = Stats(size=ctypes.sizeof(Stats))
    local_library().hs_local_stats(heap, ctypes.byref(stats))
    values = {name: getattr(stats, name) for name in LocalStatistics.__struct_fields__}
    if values["limit_bytes"] == NO_LIMIT:
        values["limit_bytes"] = None
    return LocalStatistics(**values)

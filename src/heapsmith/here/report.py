"""Everything known of this process's heap now, as one frozen value."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import msgspec
import psutil

from heapsmith.here import calls
from heapsmith.here.calls import Field

_NAMES: Final = {
    Field.LIMIT: "limit_bytes",
    Field.CURRENT: "live_bytes",
    Field.PEAK: "live_bytes_peak",
    Field.AVAILABLE: "available_bytes",
    Field.LARGEST_BLOCK: "largest_block_bytes",
    Field.SOFT_LIMIT: "soft_limit_bytes",
    Field.RESIDENT: "resident_bytes",
    Field.COMMITTED: "committed_bytes",
    Field.RESERVED: "reserved_bytes",
    Field.METADATA: "metadata_bytes",
    Field.FREE_CACHED: "free_cached_bytes",
    Field.MAPPED: "mapped_bytes",
    Field.PYTHON_ARENAS: "python_arena_bytes",
    Field.PYTHON: "python_bytes",
    Field.POOLS: "pool_bytes",
    Field.BLOCKS: "live_blocks",
    Field.ALLOCATIONS: "allocations",
    Field.FREES: "frees",
    Field.ALLOCATED: "allocated_bytes",
    Field.FREED: "freed_bytes",
    Field.FAILURES: "failures",
    Field.LAST_FAILED: "last_failed_bytes",
    Field.THREADS: "threads",
    Field.ALLOCATOR_CURRENT: "allocator_live_bytes",
}
_NATIVE_NAMES: Final = {
    "live_bytes": "current_bytes",
    "live_bytes_peak": "peak_bytes",
    "allocator_live_bytes": "allocator_current_bytes",
}


class Part(msgspec.Struct, frozen=True):
    """A part of the resident bytes of the process.

    Args:
        name: ``native``, ``python arenas``, ``mapped``, ``pools``, ``files``, ``stacks`` or ``unexplained``.
        resident_bytes: At most so many of them are resident; what nothing else explains in the last part.
        note: What is in it.
    """

    name: str
    resident_bytes: int
    note: str


class Mallinfo(msgspec.Struct, frozen=True, kw_only=True):
    """The heap of this process at one moment; ``None`` is unknown, never 0.

    Args:
        allocator: Who answers malloc.
        mode: ``watched`` (counted by heapsmith), ``forged``, or ``asked`` (what the allocator tells).
        time_ns: CLOCK_MONOTONIC.
        live_bytes: Allocated and not yet freed.
        live_bytes_peak: The highest live_bytes of this process.
        limit_bytes: The most that this heap can hold, by the tightest hard bound.
        limit_source: Whose bound it is: ``cap``, ``rlimit_data``, ``rlimit_as``, ``cgroup2``, ``cgroup1``, ``physical``.
        limit_effect: What an allocation meets there: ``null`` (MemoryError) or ``kill``.
        count_unit: What live_bytes counts: ``usable``, ``chunk`` or ``page`` bytes.
        error_bound_bytes: The largest possible error of live_bytes; None where live_bytes is not counted.
        exact: The names of the fields that are exact.
    """

    allocator: str
    mode: str | None
    time_ns: int
    live_bytes: int | None = None
    live_bytes_peak: int | None = None
    limit_bytes: int | None = None
    limit_source: str | None = None
    limit_effect: str | None = None
    available_bytes: int | None = None
    largest_block_bytes: int | None = None
    soft_limit_bytes: int | None = None
    resident_bytes: int | None = None
    committed_bytes: int | None = None
    reserved_bytes: int | None = None
    metadata_bytes: int | None = None
    free_cached_bytes: int | None = None
    mapped_bytes: int | None = None
    python_arena_bytes: int | None = None
    python_bytes: int | None = None
    pool_bytes: int | None = None
    live_blocks: int | None = None
    allocations: int | None = None
    frees: int | None = None
    allocated_bytes: int | None = None
    freed_bytes: int | None = None
    failures: int | None = None
    last_failed_bytes: int | None = None
    threads: int | None = None
    allocator_live_bytes: int | None = None
    allocator_unit: str | None = None
    count_unit: str | None = None
    error_bound_bytes: int | None = None
    live_bytes_peak_error_bound: int | None = None
    exact: list[str] = []

    @property
    def max_total_heap_size(self) -> int | None:
        """Open Enclave's name of ``limit_bytes``."""
        return self.limit_bytes

    @property
    def current_allocated_heap_size(self) -> int | None:
        """Open Enclave's name of ``live_bytes``."""
        return self.live_bytes

    @property
    def peak_allocated_heap_size(self) -> int | None:
        """Open Enclave's name of ``live_bytes_peak``."""
        return self.live_bytes_peak

    def as_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return msgspec.to_builtins(self)

    def picture(self) -> list[Part]:
        """What the resident bytes are made of: they add up, and what nothing explains has a name.

        Empty where the kernel does not say what is resident. A part counts what was taken for it; where less of it is
        resident, ``unexplained`` is negative.

        Example:
            >>> info = mallinfo()
            >>> sum(part.resident_bytes for part in info.picture()) == info.resident_bytes
            True
        """
        if self.resident_bytes is None:
            return []
        parts = list[Part]()
        native_bytes = self.committed_bytes
        if native_bytes is not None:
            parts.append(
                Part("native", native_bytes, f"taken by {self.allocator} for malloc, free blocks included")
            )
        elif self.live_bytes is not None:
            python_bytes = min(self.python_bytes or 0, self.python_arena_bytes or 0)
            parts.append(Part("native", self.live_bytes - python_bytes, "live blocks of malloc"))
        arena_bytes = self.python_arena_bytes or 0
        if arena_bytes:
            parts.append(
                Part("python arenas", arena_bytes, "CPython's own small objects, free pools included")
            )
        if self.mapped_bytes is not None:
            parts.append(
                Part(
                    "mapped",
                    max(0, self.mapped_bytes - arena_bytes),
                    "anonymous memory that the program mapped itself",
                )
            )
        if self.pool_bytes:
            parts.append(Part("pools", self.pool_bytes, "registered by the program"))
        with contextlib.suppress(psutil.Error, OSError):
            shared_bytes = int(psutil.Process().memory_info().shared)
            parts.append(Part("files", shared_bytes, "code and mapped files, shared with others"))
        explained = sum(part.resident_bytes for part in parts)
        rest = self.resident_bytes - explained
        return [
            *parts,
            Part(
                "unexplained", rest, "stacks, private copies of the libraries' data, heaps nobody registered"
            ),
        ]


def mallinfo(*, exact: bool = True) -> Mallinfo:
    """Tell what is known of this process's heap.

    Args:
        exact: Sum all threads and ask allocator and kernel (well under a millisecond); else only what can be told in a
            hundred nanoseconds, which needs ``heapsmith run``.

    Raises:
        HeapsmithError: The heap cannot be read at all.

    Example:
        >>> info = mallinfo()
        >>> info.limit_bytes is None or info.limit_bytes >= (info.live_bytes or 0)
        True
    """
    stats = calls.read_stats(calls.EXACT if exact else calls.FAST) or calls.read_stats(calls.EXACT)
    assert stats is not None
    valid, exactly = Field(stats.valid), Field(stats.exact)
    mode = calls.MODES[int(stats.mode)]
    fields = {
        name: int(getattr(stats, _NATIVE_NAMES.get(name, name)))
        for bit, name in _NAMES.items()
        if bit in valid
    }
    counted = Field.CURRENT in valid and mode != "asked"
    return Mallinfo(
        allocator=stats.allocator.decode(errors="replace") or "unknown",
        mode=mode,
        time_ns=stats.time_ns,
        limit_source=calls.SOURCES[int(stats.limit_source)],
        limit_effect=calls.EFFECTS[int(stats.limit_effect)],
        count_unit=calls.UNITS[int(stats.count_unit)],
        allocator_unit=calls.UNITS[int(stats.allocator_unit)],
        error_bound_bytes=stats.error_bound_bytes if counted else None,
        live_bytes_peak_error_bound=stats.peak_error_bound_bytes if Field.PEAK in valid else None,
        exact=[name for bit, name in _NAMES.items() if bit in exactly],
        **fields,
    )

"""What is known of a watched process at one moment: typed values, ``None`` for unknown (never 0).

The names are the keys of the JSON documents; a process is what ``run --json``, ``ps --json`` and ``info --json`` print.
"""

from __future__ import annotations

from typing import Final

import msgspec

RUN_SCHEMA: Final = "heapsmith.run/1"


class SizeClass(msgspec.Struct, frozen=True):
    """One size class of a thread or of a process, native blocks and Python's objects together.

    Args:
        class_bytes: The largest usable bytes of the class; ``None`` for the last, open one.
        allocations: Blocks handed out (a reallocation is a free and an allocation).
        frees: Blocks taken back.
        remote_frees: Of those, blocks that another thread had allocated (estimated from followed blocks).
        live_blocks: Allocated and not yet freed; of a thread, less the blocks that others freed for it.
        live_bytes: Their usable bytes.
        live_bytes_peak: High-water mark of the usable bytes in this row.
        requested_live_bytes: What was asked for by the live blocks (estimated within the class).
        python_live_blocks: Of the live blocks, CPython's own objects.
        python_live_bytes: Of the live bytes, CPython's own objects.
    """

    class_bytes: int | None
    allocations: int
    frees: int
    remote_frees: int
    live_blocks: int
    live_bytes: int
    live_bytes_peak: int
    requested_live_bytes: int
    python_live_blocks: int = 0
    python_live_bytes: int = 0


class Thread(msgspec.Struct, frozen=True):
    """The counters of one thread; all threads that have ended are one row with ``alive`` false and no ``tid``."""

    tid: int | None
    name: str
    alive: bool
    allocations: int
    frees: int
    remote_frees: int
    live_blocks: int
    live_bytes: int
    size_classes: list[SizeClass]


class Exit(msgspec.Struct, frozen=True):
    """How a process ended; what only its parent was told is ``None`` for processes that are not our children."""

    code: int | None
    signal: int | None
    oom_killed: bool | None


class Event(msgspec.Struct, frozen=True):
    """A warning, a refusal or a failure inside the program.

    Args:
        time_s: Seconds since the process started.
        kind: ``warning``, ``refused``, ``out_of_memory`` or ``limit_changed``.
        tid: The thread it happened in.
        live_bytes: Of the process, at that moment.
        threshold_bytes: The limit or threshold that was met.
        requested_bytes: Of the allocation that met it.
        sequence: Its number in the process, from 1.
    """

    time_s: float
    kind: str
    tid: int
    live_bytes: int
    threshold_bytes: int
    requested_bytes: int
    sequence: int = 0


class PythonHeap(msgspec.Struct, frozen=True):
    """CPython's own small objects: the arenas they lie in, and the objects where they are counted.

    Args:
        version: For example ``3.12.1``.
        arena_bytes: Mapped for arenas now.
        arena_bytes_peak: High-water mark of it.
        blocks: Live objects counted; ``None`` where they are not counted.
        live_bytes: Their usable bytes; ``None`` where they are not counted.
        note: Why objects are not counted; empty where they are.
    """

    version: str
    arena_bytes: int
    arena_bytes_peak: int
    blocks: int | None
    live_bytes: int | None
    note: str


class Pool(msgspec.Struct, frozen=True):
    """A private pool that the program registered with ``hs_pool_register``.

    Args:
        name: What the program calls it.
        live_bytes: As it last said.
        live_bytes_peak: High-water mark of it.
        in_heap: Its memory comes from malloc and is in the live bytes of the process already.
    """

    name: str
    live_bytes: int
    live_bytes_peak: int
    in_heap: bool


class SpanClass(msgspec.Struct, frozen=True):
    """The spans of one size class of a forged heap, or all its runs of pages of one kind.

    Args:
        kind: ``blocks``, ``large`` (one block each), ``dirty`` (free, may be resident) or ``purged`` (free, given back).
        class_bytes: The size of the blocks; ``None`` for runs of pages.
        spans: How many there are.
        span_bytes: All of them together.
        used_blocks: Blocks that are with the program or in a thread's cache.
        spans_by_occupancy: Spans by tenths of their blocks that are in use, emptiest first.
    """

    kind: str
    class_bytes: int | None
    spans: int
    span_bytes: int
    used_blocks: int
    spans_by_occupancy: list[int]


class Process(msgspec.Struct, frozen=True):
    """Everything known of one process image at one moment (see the module for ``None``).

    Times are seconds: ``time_s`` since the image started; ``start_time_s`` since the epoch.
    """

    pid: int
    ppid: int
    image: int
    """1 for the first program that ran under this pid, 2 after its first exec, ..."""
    name: str
    command: list[str]
    allocator: str
    """``glibc``, ``jemalloc``, ... or the file name of the object that answers malloc."""
    start_time_s: float
    time_s: float
    exit: Exit | None
    """``None`` while alive."""
    live_bytes: int
    live_bytes_peak: int
    live_bytes_peak_at_s: float | None
    live_bytes_peak_error_bound: int
    live_blocks: int
    requested_live_bytes: int
    mapped_bytes: int
    mapped_bytes_peak: int
    limit_bytes: int | None
    warn_at_bytes: int | None
    allocations: int
    frees: int
    reallocations: int
    remote_frees: int
    failures: int
    """Allocations that gave NULL: refused for the limit, or by the allocator itself."""
    refused: int
    """Of the failures, those refused for the limit."""
    overflowed: int
    """Of the failures, those of more bytes than any heap could hold."""
    last_failed_bytes: int | None
    warnings: int
    lost: int
    """Events that could not be counted; always shown when not 0."""
    resident_bytes: int | None
    resident_bytes_peak: int | None
    minor_faults: int | None
    major_faults: int | None
    threads_started: int
    threads_alive: int
    temporary_ratio: float | None
    """Freed allocations of all allocations, 0 to 1."""
    python: PythonHeap | None
    notes: list[str]
    """What cannot be seen in this process, and why: one line each."""
    events: list[Event]
    threads: list[Thread]
    size_classes: list[SizeClass]
    exact: list[str]
    """The names of the fields that are exact."""
    committed_bytes: int | None = None
    """Taken by the allocator from the system: a forged heap tells by itself, others when asked (``hs_stats_get``)."""
    reserved_bytes: int | None = None
    metadata_bytes: int | None = None
    free_cached_bytes: int | None = None
    allocated_bytes: int | None = None
    """Of all allocations so far; estimated for large classes, whose blocks differ in size."""
    freed_bytes: int | None = None
    pools: list[Pool] = []
    live_bytes_error_bound: int = 0
    """How far ``live_bytes`` may be off: not 0 where a heap counts by the batch."""
    internal_fragmentation_ratio: float | None = None
    """Of the live bytes, the share that nobody asked for."""
    external_fragmentation_ratio: float | None = None
    """Of the committed bytes without metadata, the share that is not live."""
    spans: list[SpanClass] = []
    """What a forged heap's spans hold, by class; empty for other heaps."""

    @property
    def alive(self) -> bool:
        """Whether the process image is still running."""
        return self.exit is None


class RunResult(msgspec.Struct, frozen=True):
    """The document of ``run --json``: how the launched program ended, and every process seen, the launched one first."""

    schema: str
    command: list[str]
    exit: Exit
    duration_s: float
    processes: list[Process]

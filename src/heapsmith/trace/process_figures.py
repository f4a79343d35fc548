"""What one pass over the events of a process finds: tables of places, times, threads, sizes and lifetimes.

Exact where every allocation was recorded; where only a sample was, every figure is an unbiased estimate with the half
width of its 95 % interval beside it. Heap bytes are requested bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(slots=True)
class Places:
    """Figures of each distinct stack; every column has shape (n,). Stack 0: no stack was recorded.

    A stack is there twice if it both allocated blocks and made mappings.
    """

    stack: NDArray[np.int64]
    mapped: NDArray[np.bool_]
    allocations: Floats
    allocated_bytes: Floats
    live_bytes_at_peak: Floats
    live_blocks_at_peak: Floats
    live_bytes_at_exit: Floats
    live_blocks_at_exit: Floats
    temporary_allocations: Floats
    temporary_bytes: Floats
    live_bytes_peak: Floats
    """The highest that this place held, at whatever moment."""
    lifetime_s: Floats
    """Mean of those that died; NaN where none did."""
    allocated_bytes_error: Floats
    """Half of the 95 % interval; 0 where all events were recorded."""
    live_bytes_at_peak_error: Floats
    live_bytes_at_exit_error: Floats

    def __len__(self) -> int:
        return len(self.stack)


@dataclass(slots=True)
class TimeLine:
    """A process over time; every column has shape (n,). A bin's values are those at its end unless said otherwise."""

    ends_s: Floats
    """Since the start of the trace."""
    live_bytes: Floats
    live_bytes_highest: Floats
    """Within the bin: no peak is lost between two points."""
    live_bytes_lowest: Floats
    usable_live_bytes: Floats
    mapped_bytes: Floats
    live_blocks: Floats
    allocations: Floats
    """Within the bin."""
    allocated_bytes: Floats
    frees: Floats


@dataclass(slots=True)
class Moments:
    """What each place held at some moments, as changes since the moment before."""

    times_s: Floats
    """Shape (m,), since the start of the trace."""
    place: list[Integers]
    """For each moment the places that hold something else than at the moment before: rows of `Places`."""
    live_bytes: list[Floats]
    """What they hold then."""

    def at(self, moment: int, places: int) -> Floats:
        """Live bytes of each place at a moment, shape (places,)."""
        held = np.zeros(places)
        for index in range(moment + 1):
            held[self.place[index]] = self.live_bytes[index]
        return held


@dataclass(slots=True)
class ThreadFigures:
    """What one thread did."""

    index: int
    tid: int | None
    name: str
    allocations: float
    allocated_bytes: float
    frees: float
    remote_frees: float
    """Blocks of other threads that it freed."""
    freed_by_others: float
    live_bytes_at_exit: float
    live_bytes_peak: float
    temporary_allocations: float


@dataclass(slots=True)
class SizeClassFigures:
    """One size class: blocks of at most `class_bytes` usable bytes."""

    class_bytes: int | None
    allocations: float
    allocated_bytes: float
    live_blocks_at_peak: float
    live_bytes_at_peak: float
    live_blocks_at_exit: float
    live_bytes_at_exit: float


@dataclass(slots=True)
class Lifetimes:
    """Blocks that died, by how long they lived; bin i holds lifetimes of i bits (below 2**i, from 2**(i-1) on)."""

    blocks_by_time: Floats
    """Time in ns."""
    bytes_by_time: Floats
    blocks_by_allocations: Floats
    """Allocations of the process that the block outlived, its own included."""
    bytes_by_allocations: Floats


@dataclass(slots=True)
class ProcessFigures:
    """One process image of a trace, analysed."""

    index: int
    pid: int
    name: str
    command: list[str]
    start_s: float
    end_s: float
    exit_code: int | None
    signal: int | None
    ended: bool
    """Whether the trace says how it ended."""
    forked: bool
    events: int
    dropped_events: int
    allocations: float = 0.0
    frees: float = 0.0
    allocated_bytes: float = 0.0
    live_bytes_peak: float = 0.0
    live_bytes_peak_at_s: float = 0.0
    live_bytes_peak_event: int = 0
    live_blocks_at_peak: float = 0.0
    usable_live_bytes_at_peak: float = 0.0
    usable_live_bytes_peak: float = 0.0
    live_bytes_at_exit: float = 0.0
    """Of a Python program: before the interpreter took itself down."""
    live_bytes_at_end: float = 0.0
    """At its last event."""
    exit_s: float = 0.0
    """Since the start of the trace: the moment of what was live at exit."""
    interpreter_ended: bool = False
    """Whether that moment is the one at which CPython began to take itself down."""
    live_blocks_at_exit: float = 0.0
    usable_live_bytes_at_exit: float = 0.0
    malloc_bytes_at_peak: float = 0.0
    python_bytes_at_peak: float = 0.0
    python_bytes_at_exit: float = 0.0
    mapped_bytes_at_peak: float = 0.0
    mapped_bytes_peak: float = 0.0
    mapped_bytes_at_exit: float = 0.0
    allocated_bytes_error: float = 0.0
    live_bytes_peak_error: float = 0.0
    live_bytes_at_exit_error: float = 0.0
    temporary_allocations: float = 0.0
    temporary_bytes: float = 0.0
    remote_frees: float = 0.0
    unknown_frees: int = 0
    """Of blocks that were allocated before the recording began or inherited by fork, or whose allocation was dropped."""
    contradictions: int = 0
    """Frees of blocks that had been freed already: never in an undamaged trace."""
    unreadable: str = ""
    """Why the events end early, where they do."""
    places: Places | None = None
    time_line: TimeLine | None = None
    moments: Moments | None = None
    threads: list[ThreadFigures] = field(default_factory=list[ThreadFigures])
    size_classes: list[SizeClassFigures] = field(default_factory=list[SizeClassFigures])
    requested_sizes: list[tuple[int, int, float]] = field(default_factory=list[tuple[int, int, float]])
    """Requested bytes, usable bytes, allocations: the most frequent first."""
    distinct_sizes: int = 0
    lifetimes: Lifetimes | None = None
    memory: NDArray[np.void] | None = None
    """dtype `MEMORY_SAMPLE`."""
    marks: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    drops: list[tuple[float, float, int, str]] = field(default_factory=list[tuple[float, float, int, str]])
    notes: list[str] = field(default_factory=list[str])
    """What of it could not be recorded, for people."""

    @property
    def duration_s(self) -> float:
        """From its start to its end, or to its last event where the end is unknown."""
        return max(0.0, self.end_s - self.start_s)

    @property
    def churn(self) -> float | None:
        """Allocated bytes of the run / peak of live bytes."""
        return self.allocated_bytes / self.live_bytes_peak if self.live_bytes_peak else None

    @property
    def internal_fragmentation(self) -> float | None:
        """At the peak: the share of usable bytes that nobody asked for."""
        usable = self.usable_live_bytes_at_peak
        return None if usable <= 0 else max(0.0, 1 - self.live_bytes_peak / usable)

"""What watched processes did over time: bounded curves of polls, and baselines to count from.

A curve never outgrows its number of points: when it is full, older neighbours are merged, which keeps the
highest of each gauge and the last of each counter, so that no peak that a poll saw is ever smoothed away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from heapsmith.errors import HeapsmithError
from heapsmith.run.values import Process, SizeClass, Thread

Floats = npt.NDArray[np.float64]

GAUGES: Final = (
    "live_bytes",
    "live_bytes_peak",
    "mapped_bytes",
    "resident_bytes",
    "limit_bytes",
    "warn_at_bytes",
)
COUNTERS: Final = ("allocations", "frees", "failures", "warnings")
_COLUMNS: Final = ("time_s", *GAUGES, *COUNTERS)
_HIGHEST: Final = slice(1, 1 + len(GAUGES))
POINTS: Final = 1200
_RECENT_SHARE: Final = 10
"""One point in so many is always kept as it was polled: the newest."""
_FULL_AGAIN: Final = 0.75
CURVES: Final = 256
FASTEST_S: Final = 0.1
SLOWEST_S: Final = 60.0


def check_interval(seconds: float) -> float:
    """Answer an update interval that a person asked for, if it is one.

    Raises:
        HeapsmithError: It would keep a core busy, or never come (also for NaN).

    Example:
        >>> check_interval(0.5)
        0.5
    """
    if not FASTEST_S <= seconds <= SLOWEST_S:
        raise HeapsmithError(
            f"{seconds:g} s is no update interval", hint=f"{FASTEST_S:g} s to {SLOWEST_S:g} s are possible"
        )
    return seconds


class ProcessSource(Protocol):
    """Where processes come from, and where new limits go: `heapsmith.run.watch.Watcher`."""

    def poll(self) -> list[Process]:
        """Read all watched processes: the launched one first, ended ones kept."""
        ...

    def set_limit(self, pid: int, limit_bytes: int | None) -> None:
        """Set or remove the limit of a running process."""
        ...

    def set_warn_at(self, pid: int, warn_at_bytes: int | None) -> None:
        """Set or remove the warning threshold of a running process."""
        ...


class FromNowOn:
    """A source without the processes that had ended before it was first asked.

    Args:
        source: Where processes come from.
    """

    def __init__(self, source: ProcessSource) -> None:
        self._source = source
        self._past: frozenset[ProcessKey] | None = None

    def poll(self) -> list[Process]:
        """Read all watched processes that have not been over from the beginning."""
        processes = self._source.poll()
        if self._past is None:
            self._past = frozenset(key_of(process) for process in processes if not process.alive)
        return [process for process in processes if key_of(process) not in self._past]

    def set_limit(self, pid: int, limit_bytes: int | None) -> None:
        """Set or remove the limit of a running process."""
        self._source.set_limit(pid, limit_bytes)

    def set_warn_at(self, pid: int, warn_at_bytes: int | None) -> None:
        """Set or remove the warning threshold of a running process."""
        self._source.set_warn_at(pid, warn_at_bytes)


class ProcessKey(NamedTuple):
    """Which program of which process: a pid may run several (exec), and may be used again."""

    pid: int
    image: int
    start_time_s: float


def key_of(process: Process) -> ProcessKey:
    """Name a process image so that no other one has the same name."""
    return ProcessKey(process.pid, process.image, process.start_time_s)


class Curve:
    """The polls of one process image, oldest first, at most ``points`` of them.

    Args:
        points: Where merging begins; at least 20.

    Attributes:
        revision: Raised when points change; while it stays the same, they are only added at the end.

    Example:
        >>> Curve(points=600).times_s.shape
        (0,)
    """

    def __init__(self, points: int = POINTS) -> None:
        if points < 2 * _RECENT_SHARE:
            raise ValueError(f"a curve needs at least {2 * _RECENT_SHARE} points, not {points}")
        self._capacity = points
        self._values: Floats = np.empty((32, len(_COLUMNS)))
        self._polls: npt.NDArray[np.int64] = np.empty(32, np.int64)
        self._class_bytes: tuple[int | None, ...] = ()
        self._classes: npt.NDArray[np.float32] = np.empty((32, 0), np.float32)
        self._length = 0
        self._closed = False
        self.revision = 0

    def __len__(self) -> int:
        return self._length

    @property
    def times_s(self) -> Floats:
        """``(n_points,)`` seconds since the process image started."""
        return self._values[: self._length, 0]

    @property
    def class_bytes(self) -> tuple[int | None, ...]:
        """``(n_classes,)`` the columns of `class_live_bytes`, ascending, the open class last."""
        return self._class_bytes

    @property
    def class_live_bytes(self) -> npt.NDArray[np.float32]:
        """``(n_points, n_classes)`` live bytes of each size class; of merged polls, the highest."""
        return self._classes[: self._length]

    def column(self, name: str) -> Floats:
        """``(n_points,)`` one of `GAUGES` or `COUNTERS`; NaN is unknown."""
        return self._values[: self._length, _COLUMNS.index(name)]

    def rates(self, name: str) -> Floats:
        """``(n_points,)`` growth of a counter up to each point, per second; at the first, since the start."""
        grown = np.diff(self.column(name), prepend=0.0)
        elapsed = np.diff(self.times_s, prepend=0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(elapsed > 0, grown / elapsed, np.nan)

    def add(self, process: Process) -> None:
        """Add one poll; polls after the end of the process, or at the same moment, add no point."""
        if self._closed:
            return
        self._closed = not process.alive
        if self._length and process.time_s <= self._values[self._length - 1, 0]:
            self._length -= 1
            self.revision += 1
        if self._length == self._capacity:
            self._merge()
        if self._length == len(self._values):
            self._grow()
        row = self._length
        self._values[row] = [process.time_s, *_numbers(process, GAUGES), *_numbers(process, COUNTERS)]
        self._polls[row] = 1
        self._add_classes(row, process.size_classes)
        self._length += 1

    def _add_classes(self, row: int, rows: Sequence[SizeClass]) -> None:
        named = tuple(item.class_bytes for item in rows)
        if named != self._class_bytes:
            self._rename_classes(named)
        self._classes[row] = 0
        places = {class_bytes: place for place, class_bytes in enumerate(self._class_bytes)}
        for item in rows:
            self._classes[row, places[item.class_bytes]] = item.live_bytes

    def _rename_classes(self, named: Iterable[int | None]) -> None:
        together = set(named) | set(self._class_bytes)
        if len(together) == len(self._class_bytes):
            return
        wider = tuple(sorted(together, key=lambda value: (value is None, value or 0)))
        classes = np.zeros((len(self._values), len(wider)), np.float32)
        for place, class_bytes in enumerate(self._class_bytes):
            classes[: self._length, wider.index(class_bytes)] = self._classes[: self._length, place]
        self._class_bytes, self._classes = wider, classes

    def _grow(self) -> None:
        more = min(self._capacity, 2 * len(self._values)) - len(self._values)
        self._values = np.vstack([self._values, np.empty((more, len(_COLUMNS)))])
        self._polls = np.concatenate([self._polls, np.empty(more, np.int64)])
        self._classes = np.vstack([self._classes, np.zeros((more, len(self._class_bytes)), np.float32)])

    def _merge(self) -> None:
        most_polls = 2
        while self._length > _FULL_AGAIN * self._capacity:
            self._merge_up_to(most_polls)
            most_polls *= 2
        self.revision += 1

    def _merge_up_to(self, most_polls: int) -> None:
        older = self._length - self._capacity // _RECENT_SHARE
        starts: list[int] = []
        together = 0
        for row, polls in enumerate(self._polls[: self._length].tolist()):
            if starts and row < older and together + polls <= most_polls:
                together += polls
            else:
                starts.append(row)
                together = polls
        ends = np.append(starts[1:], self._length) - 1
        kept = len(starts)
        with np.errstate(invalid="ignore"):
            highest = np.fmax.reduceat(self._values[: self._length, _HIGHEST], starts, axis=0)
        self._values[:kept] = self._values[ends]
        self._values[:kept, _HIGHEST] = highest
        self._polls[:kept] = np.add.reduceat(self._polls[: self._length], starts)
        if self._class_bytes:
            self._classes[:kept] = np.maximum.reduceat(self._classes[: self._length], starts, axis=0)
        self._length = kept


def _numbers(process: Process, names: Sequence[str]) -> list[float]:
    values: list[int | None] = [getattr(process, name) for name in names]
    return [float("nan") if value is None else float(value) for value in values]


class History:
    """The latest poll of all processes, and a curve for each.

    Args:
        points: Points of each curve.
        curves: Curves kept; beyond it those of the processes that ended longest ago are dropped.

    Attributes:
        processes: The latest poll.
    """

    def __init__(self, points: int = POINTS, curves: int = CURVES) -> None:
        self._points = points
        self._most_curves = curves
        self._curves: dict[ProcessKey, Curve] = {}
        self.processes: list[Process] = []

    def add(self, processes: Sequence[Process]) -> None:
        """Take in one poll of all processes."""
        self.processes = list(processes)
        for process in processes:
            key = key_of(process)
            curve = self._curves.get(key)
            if curve is None:
                if not process.alive and len(self._curves) >= self._most_curves:
                    continue  # ended before it was ever seen, and there is no room
                curve = self._curves[key] = Curve(self._points)
            curve.add(process)
        self._drop_the_oldest()

    def find(self, key: ProcessKey | None) -> Process | None:
        """The latest values of one process image, or None if it is not among the processes."""
        return next((process for process in self.processes if key_of(process) == key), None)

    def curve(self, key: ProcessKey) -> Curve:
        """The curve of a process image; an empty one where none is kept."""
        return self._curves.get(key) or Curve(self._points)

    def _drop_the_oldest(self) -> None:
        excess = len(self._curves) - self._most_curves
        if excess <= 0:
            return
        alive = {key_of(process) for process in self.processes if process.alive}
        ended = [key for key in self._curves if key not in alive]
        for key in ended[:excess]:
            del self._curves[key]


Place = tuple[int | None, int | None]
"""A row of the table: thread (0 is the total, None the ended ones) and class."""
_TOTAL: Final = 0


class Baseline:
    """Counting from here on: the differences since a moment, without touching the program.

    Peaks since then are exact where the program reached a new high, otherwise the highest that a poll saw.

    Args:
        process: The values at that moment.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self._highest: dict[Place, int] = {}
        self._highest_live_bytes = process.live_bytes
        self._threads = {thread.tid: thread for thread in process.threads}
        self._totals = {row.class_bytes: row for row in process.size_classes}

    @property
    def key(self) -> ProcessKey:
        """The process image that it counts."""
        return key_of(self.process)

    def observe(self, process: Process) -> None:
        """Take in a poll: what was high at this moment."""
        self._highest_live_bytes = max(self._highest_live_bytes, process.live_bytes)
        self._note_highest(_TOTAL, process.size_classes)
        for thread in process.threads:
            self._note_highest(thread.tid, thread.size_classes)

    def since(self, process: Process) -> Process:
        """Compute the differences from the baseline to a later poll.

        Returns:
            A process whose counters, live values and peaks are growth (live values may be negative); what is
            no sum over events (resident, limit, mapped, times) stays as it is.
        """
        before = self.process
        ended = self._ended_before(process)
        threads = [
            self._thread_since(thread, ended if thread.tid is None else self._living_before(thread))
            for thread in process.threads
        ]
        classes = [
            self._class_since(_TOTAL, row, self._totals.get(row.class_bytes)) for row in process.size_classes
        ]
        allocations = process.allocations - before.allocations
        frees = process.frees - before.frees
        new_high = process.live_bytes_peak > before.live_bytes_peak
        highest = process.live_bytes_peak if new_high else self._highest_live_bytes
        return msgspec.structs.replace(
            process,
            live_bytes=process.live_bytes - before.live_bytes,
            live_bytes_peak=highest - before.live_bytes,
            live_blocks=process.live_blocks - before.live_blocks,
            requested_live_bytes=process.requested_live_bytes - before.requested_live_bytes,
            allocations=allocations,
            frees=frees,
            reallocations=process.reallocations - before.reallocations,
            remote_frees=process.remote_frees - before.remote_frees,
            failures=process.failures - before.failures,
            refused=process.refused - before.refused,
            overflowed=process.overflowed - before.overflowed,
            warnings=process.warnings - before.warnings,
            temporary_ratio=min(1.0, frees / allocations) if allocations else None,
            events=[event for event in process.events if event.time_s > before.time_s],
            threads=threads,
            size_classes=classes,
        )

    def _note_highest(self, thread: int | None, rows: Iterable[SizeClass]) -> None:
        for row in rows:
            place = (thread, row.class_bytes)
            if row.live_bytes > self._highest.get(place, 0):
                self._highest[place] = row.live_bytes

    def _living_before(self, thread: Thread) -> Thread | None:
        before = self._threads.get(thread.tid)
        # A kernel id that was given to a new thread starts below what the old one had.
        return before if before is not None and before.allocations <= thread.allocations else None

    def _ended_before(self, process: Process) -> Thread | None:
        """Part of the row of ended threads was, at the baseline, in threads of their own."""
        alive = {thread.tid: thread for thread in process.threads}
        gone = [
            thread
            for tid, thread in self._threads.items()
            if tid is None or tid not in alive or alive[tid].allocations < thread.allocations
        ]
        return None if not gone else gone[0] if len(gone) == 1 else _together(gone)

    def _thread_since(self, thread: Thread, before: Thread | None) -> Thread:
        rows = {} if before is None else {row.class_bytes: row for row in before.size_classes}
        return msgspec.structs.replace(
            thread,
            allocations=thread.allocations - (before.allocations if before else 0),
            frees=thread.frees - (before.frees if before else 0),
            remote_frees=thread.remote_frees - (before.remote_frees if before else 0),
            live_blocks=thread.live_blocks - (before.live_blocks if before else 0),
            live_bytes=thread.live_bytes - (before.live_bytes if before else 0),
            size_classes=[
                self._class_since(thread.tid, row, rows.get(row.class_bytes)) for row in thread.size_classes
            ],
        )

    def _class_since(self, thread: int | None, row: SizeClass, before: SizeClass | None) -> SizeClass:
        if before is None:
            return row
        highest = max(before.live_bytes, row.live_bytes, self._highest.get((thread, row.class_bytes), 0))
        if row.live_bytes_peak > before.live_bytes_peak:
            highest = row.live_bytes_peak
        return SizeClass(
            class_bytes=row.class_bytes,
            allocations=row.allocations - before.allocations,
            frees=row.frees - before.frees,
            remote_frees=row.remote_frees - before.remote_frees,
            live_blocks=row.live_blocks - before.live_blocks,
            live_bytes=row.live_bytes - before.live_bytes,
            live_bytes_peak=highest - before.live_bytes,
            requested_live_bytes=row.requested_live_bytes - before.requested_live_bytes,
            python_live_blocks=row.python_live_blocks - before.python_live_blocks,
            python_live_bytes=row.python_live_bytes - before.python_live_bytes,
        )


def _together(threads: Sequence[Thread]) -> Thread:
    """Add the counters of threads, as the program does when they end."""
    rows: dict[int | None, list[SizeClass]] = {}
    for thread in threads:
        for row in thread.size_classes:
            rows.setdefault(row.class_bytes, []).append(row)

    def total(of: Callable[[Thread], int]) -> int:
        return sum(map(of, threads))

    return Thread(
        tid=None,
        name="",
        alive=False,
        allocations=total(lambda thread: thread.allocations),
        frees=total(lambda thread: thread.frees),
        remote_frees=total(lambda thread: thread.remote_frees),
        live_blocks=total(lambda thread: thread.live_blocks),
        live_bytes=total(lambda thread: thread.live_bytes),
        size_classes=[_class_together(class_bytes, group) for class_bytes, group in rows.items()],
    )


def _class_together(class_bytes: int | None, rows: Sequence[SizeClass]) -> SizeClass:
    return SizeClass(
        class_bytes=class_bytes,
        allocations=sum(row.allocations for row in rows),
        frees=sum(row.frees for row in rows),
        remote_frees=sum(row.remote_frees for row in rows),
        live_blocks=sum(row.live_blocks for row in rows),
        live_bytes=sum(row.live_bytes for row in rows),
        live_bytes_peak=max(row.live_bytes_peak for row in rows),
        requested_live_bytes=sum(row.requested_live_bytes for row in rows),
        python_live_blocks=sum(row.python_live_blocks for row in rows),
        python_live_bytes=sum(row.python_live_bytes for row in rows),
    )

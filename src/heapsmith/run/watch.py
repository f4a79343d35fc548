"""The watched processes, polled: each region read, joined with what the kernel says, kept when its process has ended."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.errors import RunError
from heapsmith.run import kernel
from heapsmith.run.directory import region_files, run_directories
from heapsmith.run.region import Control, Region, RegionSnapshot, estimate_churn_bytes, read_exit
from heapsmith.run.values import Exit, Process, SizeClass, Thread
from heapsmith.units import format_bytes, format_count
from heapsmith.wire.region import CONTROL_MEMFD, REGION_MEMFD, RUN_VARIABLE

_UNTOLD: Final = Exit(code=None, signal=None, oom_killed=None)
_SEARCH_S: Final = 2.0
"""How often the descriptors of all processes are searched: far more work than listing a directory."""


@dataclass
class _Watched:
    """One process image: its region, and what polls saw that the region cannot tell."""

    region: Region
    pid: int
    image: int
    control_path: Path
    start_ticks: int | None = None
    names: dict[int, str] = field(default_factory=dict[int, str])
    view: kernel.KernelView | None = None
    class_peaks: dict[int | None, int] = field(default_factory=dict[int | None, int])
    ended: Process | None = None
    is_gone: bool = False
    """It was over when its region was found, and its id means another process here."""


class Watcher:
    """Reads the regions of a run directory, of some processes, or of all watched processes of this user.

    Args:
        directory: A run directory; None is every run of this user and every process that was preloaded by hand.
        pids: Only these processes; None is all.

    Example:
        >>> with contextlib.closing(Watcher(pids=[0])) as watcher:
        ...     watcher.poll()
        []
    """

    def __init__(self, directory: Path | None = None, pids: Sequence[int] | None = None) -> None:
        self._directory = directory
        self._pids = None if pids is None else frozenset(pids)
        # In a namespace of its own a process has another id, and its files are named after that.
        self._file_pids = None if pids is None else {*pids, *(kernel.inner_pid(pid) for pid in pids)}
        self._pid_namespace = kernel.pid_namespace()
        self._watched = dict[Path, _Watched]()
        self._known_memory_files = set[tuple[int, int]]()
        self._searched_s = -_SEARCH_S
        self._problems = dict[Path, str]()
        self._exits = dict[int, Exit]()
        self._lock = threading.Lock()

    @property
    def problems(self) -> list[str]:
        """Regions that are there and cannot be read, one line each."""
        return list(self._problems.values())

    def poll(self) -> list[Process]:
        """Look at every watched process image once.

        Returns:
            Processes in the order in which they were first seen; those that have ended stay, with their last values.
        """
        with self._lock:  # the launcher and the page look from threads of their own
            self._find_new()
            return [self._look(watched) for watched in self._watched.values()]

    def note_exit(self, pid: int, exit: Exit) -> None:
        """Say how a child of the launcher ended, which the kernel told only the launcher."""
        with self._lock:
            self._exits[pid] = exit
            for watched in self._watched.values():
                # Another thread may have seen the end before the launcher was told how it came.
                ended = watched.ended
                if ended is not None and watched.pid == pid and ended.exit == _UNTOLD:
                    watched.ended = msgspec.structs.replace(ended, exit=exit)

    def set_limit(self, pid: int, limit_bytes: int | None) -> None:
        """Set the hard limit on live bytes of a running process; None takes it away.

        Raises:
            RunError: The process is not watched, is gone, or cannot be reached.
        """
        self._control(pid).set(limit_bytes=limit_bytes or 0)

    def set_warn_at(self, pid: int, warn_at_bytes: int | None) -> None:
        """Set the warning threshold of a running process; None takes it away.

        Raises:
            RunError: The process is not watched, is gone, or cannot be reached.
        """
        self._control(pid).set(warn_at_bytes=warn_at_bytes or 0)

    def close(self) -> None:
        """Give the mappings back."""
        with self._lock:
            for watched in self._watched.values():
                watched.region.close()
            self._watched.clear()

    def _control(self, pid: int) -> Control:
        images = [watched for watched in self._watched.values() if watched.pid == pid]
        if not images:
            raise RunError(f"process {pid} is not watched", hint="see `heapsmith ps`")
        if images[-1].ended is not None:
            raise RunError(f"process {pid} has ended")
        try:
            return Control(images[-1].control_path)
        except OSError as error:
            raise RunError(f"process {pid} cannot be told", error.strerror or str(error)) from error

    def _find_new(self) -> None:
        directories: Iterable[Path] = [self._directory] if self._directory else run_directories()
        for directory in directories:
            for file in region_files(directory):
                if file.path not in self._watched and (
                    self._file_pids is None or file.pid in self._file_pids
                ):
                    self._open(file.path, file.pid, file.image, file.control_path)
        now_s = time.monotonic()
        if now_s - self._searched_s >= _SEARCH_S:
            self._searched_s = now_s
            self._find_memory_files()

    def _is_of_run(self, pid: int) -> bool:
        return self._directory is None or kernel.environment_variable(pid, RUN_VARIABLE) == str(
            self._directory
        )

    def _find_memory_files(self) -> None:
        """Find processes that were preloaded without a launcher, or whose launcher had no memory file system."""
        for pid in kernel.own_processes() if self._pids is None else self._pids:
            regions = kernel.open_memory_files(pid, REGION_MEMFD)
            controls = kernel.open_memory_files(pid, CONTROL_MEMFD)
            view = kernel.look_at(pid)
            if not regions or not controls or view is None:
                continue
            try:
                key = (pid, regions[0].stat().st_ino)
            except OSError:
                continue
            if key in self._known_memory_files or not self._is_of_run(pid):
                continue
            self._known_memory_files.add(key)
            image = 1 + sum(watched.pid == pid for watched in self._watched.values())
            self._open(regions[0], pid, image, controls[0], is_pid_here=True)

    def _open(
        self, path: Path, pid: int, image: int, control_path: Path, *, is_pid_here: bool = False
    ) -> None:
        try:
            region = Region(path)
        except RunError as error:
            self._problems[path] = str(error)
            return
        except OSError:
            return  # gone again, or another user's
        self._problems.pop(path, None)
        is_gone = False
        if not is_pid_here and region.pid_namespace not in (None, self._pid_namespace):
            here = kernel.find_in_namespace(pid, region.pid_namespace)
            pid, is_gone = here or pid, here is None
        view = None if is_gone else kernel.look_at(pid)
        if self._pids is not None and pid not in self._pids:
            region.close()
            return
        self._watched[path] = _Watched(
            region, pid, image, control_path, view.start_ticks if view else None, is_gone=is_gone
        )

    def _look(self, watched: _Watched) -> Process:
        if watched.ended is not None:
            return watched.ended
        # The kernel first: a process that is alive now has its counters read after it, so none of its last are missed.
        view = None if watched.is_gone else kernel.look_at(watched.pid)
        is_same = view is not None and (
            watched.start_ticks is None or view.start_ticks == watched.start_ticks
        )
        is_superseded = any(
            other.pid == watched.pid
            and other.image > watched.image
            and other.region.pid_namespace == watched.region.pid_namespace
            for other in self._watched.values()
        ) or (is_same and watched.region.is_of_another_image(kernel.image_mark(watched.pid)))
        alive = is_same and not is_superseded
        if alive:
            watched.view = view
            watched.start_ticks = view.start_ticks if view else None
            watched.names |= kernel.thread_names(watched.pid)
        snapshot = watched.region.read()
        process = self._describe(watched, snapshot, alive=alive, is_superseded=is_superseded)
        if not alive:
            watched.ended = process
        return process

    def _describe(
        self, watched: _Watched, snapshot: RegionSnapshot, *, alive: bool, is_superseded: bool
    ) -> Process:
        number = snapshot.number
        size_classes = [self._with_sampled_peak(watched, row) for row in snapshot.size_classes()]
        # A process that left by itself looked its threads' names up at the end.
        requested_live_bytes = sum(row.requested_live_bytes for row in size_classes)
        threads = snapshot.threads({} if number("exit_known") else watched.names)
        own = snapshot.own_rows()
        allocations, frees = int(own.allocations.sum()), int(own.frees.sum())
        refused, overflowed = number("refused"), number("overflowed")
        failures = refused + overflowed + number("out_of_memory")
        live_bytes = snapshot.live_bytes()
        peak_ns, start_ns = number("live_bytes_peak_ns"), number("start_ns")
        live_bytes_peak = max(live_bytes, number("live_bytes_peak"))
        peak_error_bound = max(0, number("live_bytes_peak_at_most") - live_bytes_peak)
        exit_known = bool(number("exit_known"))
        view = watched.view
        now_ns = number("exit_ns") if exit_known else time.monotonic_ns()
        command = snapshot.command
        main_thread = next((thread.name for thread in threads if thread.tid == watched.region.pid), "")
        return Process(
            pid=watched.pid,
            ppid=number("parent_pid")
            if view is None or watched.pid == watched.region.pid
            else view.parent_pid,
            image=watched.image,
            name=main_thread or (Path(command[0]).name if command else str(watched.pid)),
            command=command,
            allocator=snapshot.allocator,
            start_time_s=number("start_realtime_ns") / 1e9,
            time_s=max(0, now_ns - start_ns) / 1e9,
            exit=None if alive else self._exit(watched, snapshot, is_superseded=is_superseded),
            live_bytes=live_bytes,
            live_bytes_peak=live_bytes_peak,
            live_bytes_peak_at_s=max(0, peak_ns - start_ns) / 1e9 if peak_ns else None,
            live_bytes_peak_error_bound=peak_error_bound,
            live_blocks=sum(row.live_blocks for row in size_classes),
            requested_live_bytes=requested_live_bytes,
            mapped_bytes=number("mapped_bytes"),
            mapped_bytes_peak=number("mapped_bytes_peak"),
            limit_bytes=number("limit_bytes") or None,
            warn_at_bytes=number("warn_at_bytes") or None,
            allocations=allocations,
            frees=frees,
            reallocations=int(snapshot.slots["reallocations"].sum()),
            remote_frees=int(own.remote_frees.sum()),
            failures=failures,
            refused=refused,
            overflowed=overflowed,
            last_failed_bytes=number("last_failed_bytes") if failures else None,
            warnings=number("warnings"),
            lost=number("lost") + number("lost_mappings"),
            resident_bytes=view.resident_bytes if view and alive else None,
            resident_bytes_peak=_highest(
                view.resident_bytes_peak if view else None,
                number("exit_resident_bytes_peak") if exit_known else None,
            ),
            minor_faults=number("exit_minor_faults") if exit_known else view.minor_faults if view else None,
            major_faults=number("exit_major_faults") if exit_known else view.major_faults if view else None,
            threads_started=number("threads_started"),
            threads_alive=sum(thread.alive for thread in threads) if alive else 0,
            temporary_ratio=min(1.0, frees / allocations) if allocations else None,
            python=snapshot.python(),
            notes=_notes(snapshot),
            events=snapshot.events(),
            threads=threads if alive else [_ended(thread) for thread in threads],
            size_classes=size_classes,
            exact=_exact(snapshot, peak_error_bound),
            allocated_bytes=estimate_churn_bytes(own.allocations),
            freed_bytes=estimate_churn_bytes(own.frees),
            pools=snapshot.pools(),
            live_bytes_error_bound=number("live_bytes_error_bound"),
            spans=snapshot.spans(),
            **compute_fragmentation(snapshot, live_bytes, requested_live_bytes),
            **snapshot.told(),
        )

    def _exit(self, watched: _Watched, snapshot: RegionSnapshot, *, is_superseded: bool) -> Exit:
        if is_superseded:
            return Exit(code=None, signal=None, oom_killed=False)
        if known := self._exits.get(watched.pid):
            return known
        code = read_exit(snapshot.header)
        return Exit(code=code, signal=None, oom_killed=False if code is not None else None)

    def _with_sampled_peak(self, watched: _Watched, row: SizeClass) -> SizeClass:
        peak = max(row.live_bytes_peak, watched.class_peaks.get(row.class_bytes, 0))
        watched.class_peaks[row.class_bytes] = peak
        if peak == row.live_bytes_peak:
            return row
        return msgspec.structs.replace(row, live_bytes_peak=peak)


def _highest(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _ended(thread: Thread) -> Thread:
    return msgspec.structs.replace(thread, alive=False)


def compute_fragmentation(
    snapshot: RegionSnapshot, live_bytes: int, requested_live_bytes: int
) -> dict[str, float]:
    """Compute what shares of live and committed bytes nobody has a use for; left out where they are not known.

    Args:
        snapshot: Of the process.
        live_bytes: Usable bytes of all live blocks, CPython's small objects included.
        requested_live_bytes: What was asked for by them.
    """
    ratios: dict[str, float] = {}
    if live_bytes > 0:
        ratios["internal_fragmentation_ratio"] = max(0.0, (live_bytes - requested_live_bytes) / live_bytes)
    told = snapshot.told()
    committed_bytes = told.get("committed_bytes")
    if committed_bytes:
        python = snapshot.python()
        # CPython's small objects lie in arenas of its own, outside of the heap.
        native_bytes = live_bytes - ((python.live_bytes or 0) if python else 0)
        free_bytes = committed_bytes - told.get("metadata_bytes", 0) - native_bytes
        ratios["external_fragmentation_ratio"] = min(1.0, max(0.0, free_bytes / committed_bytes))
    return ratios


def _exact(snapshot: RegionSnapshot, peak_error_bound: int) -> list[str]:
    exact = [
        "live_bytes",
        "live_blocks",
        "allocations",
        "frees",
        "reallocations",
        "failures",
        "refused",
        "overflowed",
        "warnings",
    ]
    if not snapshot.number("malloc_is_ours"):
        return []
    if snapshot.is_counted_by_batches:
        return ["refused", "warnings"]
    if peak_error_bound == 0:
        exact.append("live_bytes_peak")
    if not snapshot.number("lost_mappings"):
        exact += ["mapped_bytes", "mapped_bytes_peak"]
    if snapshot.number("threads_started") <= 1 and not snapshot.number("forked"):
        exact.append("remote_frees")
    return exact


def _notes(snapshot: RegionSnapshot) -> list[str]:
    notes = list[str]()
    if not snapshot.number("malloc_is_ours"):
        why = "Valgrind answers malloc" if snapshot.is_redirected else "the program defines malloc itself"
        notes.append(f"{why}: its blocks cannot be seen from a preloaded library")
    if snapshot.is_counted_by_batches:
        notes.append(
            "the heap counts by the batch: live bytes are off by at most "
            f"{format_bytes(snapshot.number('live_bytes_error_bound'))}, allocations and frees are at least these; "
            "`heapsmith run --allocator` counts each call"
        )
    if note := snapshot.text("python_note"):
        notes.append(f"Python objects are not counted: {note}")
    if lost := snapshot.number("lost"):
        notes.append(f"{format_count(lost)} events could not be counted")
    if lost := snapshot.number("lost_mappings"):
        notes.append(f"{format_count(lost)} mappings could not be followed")
    return notes


def processes() -> list[Process]:
    """Look once at every watched process of this user.

    Example:
        >>> all(process.pid > 0 for process in processes())
        True
    """
    with contextlib.closing(Watcher()) as watcher:
        return watcher.poll()

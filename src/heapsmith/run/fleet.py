"""All watched processes of this user at once, read cheaply: the few numbers that operators follow, many times a minute.

A process that has ended stays for a stated time with its last values: its region outlives it.
"""

from __future__ import annotations

import collections
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heapsmith.errors import RunError
from heapsmith.run import kernel
from heapsmith.run.directory import region_files, run_directories
from heapsmith.run.gauges import GaugeReader
from heapsmith.run.limits import (
    HeapLimit,
    Machine,
    MemoryGroup,
    compute_tightest,
    largest_request_bytes,
    memory_groups,
    read_bounds,
)
from heapsmith.run.region import Region
from heapsmith.run.values import Pool
from heapsmith.wire.region import REGION_MEMFD, PythonState

_SEARCH_S: Final = 2.0
_LIMIT_S: Final = 2.0
_RECENT_S: Final = 60.0
_INTERPRETER: Final = re.compile(r"(python|pypy|ruby|perl|node|php)[0-9.]*$")


@dataclass(frozen=True)
class Ended:
    """How a process ended, as far as somebody who is not its parent can tell.

    Args:
        time_s: When it was noticed, seconds since the epoch.
        code: Its exit code; None when it was killed (it had no time to say).
        oom_killed: Whether the kernel killed for memory in its group meanwhile; None where nobody counts.
    """

    time_s: float
    code: int | None
    oom_killed: bool | None


@dataclass(frozen=True)
class Gauges:
    """One process at one moment; None is unknown. Sizes in bytes."""

    pid: int
    process: str
    worker: int
    allocator: str
    start_time_s: float
    live_bytes: int
    live_bytes_peak: int
    recent_live_bytes_peak: int
    live_blocks: int
    mapped_bytes: int
    allocations: int
    frees: int
    allocated_bytes: int
    freed_bytes: int
    refused: int
    out_of_memory: int
    overflowed: int
    warnings: int
    warn_at_bytes: int | None
    limit_bytes: int | None
    limit: HeapLimit | None
    resident_bytes: int | None
    told: dict[str, int]
    python_arena_bytes: int | None
    python_blocks: int | None
    pools: list[Pool]
    ended: Ended | None

    @property
    def failures(self) -> dict[str, int]:
        """Allocations that gave NULL, by who could not: heapsmith's limit, the allocator or system, nobody."""
        return {"limit": self.refused, "os": self.out_of_memory, "overflow": self.overflowed}

    @property
    def largest_block_bytes(self) -> int | None:
        """The largest single request that is expected to succeed now."""
        return (
            None if self.limit is None else largest_request_bytes(self.allocator, self.limit.available_bytes)
        )


@dataclass(frozen=True)
class GroupGauges:
    """A cgroup that watched processes are charged to."""

    name: str
    limits: dict[str, int]
    current_bytes: int | None
    working_set_bytes: int | None
    events: dict[str, int]
    stall_seconds: dict[str, float]


@dataclass
class _Watched:
    region: Region
    reader: GaugeReader
    path: Path
    pid: int
    process: str
    worker: int
    allocator: str
    start_ticks: int | None
    groups: list[MemoryGroup]
    oom_kills: int | None
    recent: collections.deque[tuple[float, int]] = field(default_factory=lambda: collections.deque())
    limit: HeapLimit | None = None
    limit_read_s: float = -_LIMIT_S
    last: Gauges | None = None
    ended_s: float = 0.0

    def close(self) -> None:
        self.reader.close()
        self.region.close()


class Fleet:
    """The watched processes of this user, found by themselves and read on demand.

    Example:
        >>> fleet = Fleet()
        >>> all(gauges.live_bytes_peak >= gauges.live_bytes for gauges in fleet.read())
        True

    Limits are read again every two seconds, and at once when a cgroup's limits or events are others than before.

    Args:
        keep_s: How long the last values of an ended process stay, in seconds.
        machine: Where the kernel tells limits.
    """

    def __init__(self, keep_s: float = 300.0, machine: Machine | None = None) -> None:
        self._keep_s = keep_s
        self._machine = machine or Machine()
        self._marks = dict[Path, object]()
        self._watched = dict[Path, _Watched]()
        self._forgotten = set[Path]()
        self._searched_s = -_SEARCH_S
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    def sample_every(self, interval_s: float) -> None:
        """Look by itself as well: for peaks between two reads, and for the last values of what is killed."""
        self._sampler = threading.Thread(
            target=self._sample, args=(interval_s,), name="heapsmith-fleet", daemon=True
        )
        self._sampler.start()

    def read(self) -> list[Gauges]:
        """Read every process, those included that ended less than the kept time ago."""
        with self._lock:
            return self._read()

    def read_groups(self) -> list[GroupGauges]:
        """Read the cgroups of the processes of the last read, each once."""
        with self._lock:
            groups = {
                group.directory: group for watched in self._watched.values() for group in watched.groups
            }
        return [gauges for group in groups.values() if (gauges := _read_group(group)) is not None]

    def close(self) -> None:
        """Stop looking and give the mappings back."""
        self._stop.set()
        if self._sampler is not None:
            self._sampler.join()
        with self._lock:
            for watched in self._watched.values():
                watched.close()
            self._watched.clear()

    def _sample(self, interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            self.read()

    def _read(self) -> list[Gauges]:
        now_s = time.monotonic()
        self._find(now_s)
        self._note_changed_groups()
        gauges = list[Gauges]()
        for path, watched in list(self._watched.items()):
            if watched.last is not None and watched.last.ended is not None:
                if now_s - watched.ended_s > self._keep_s:
                    self._forget(path)
                else:
                    gauges.append(watched.last)
                continue
            if watched.region.is_of_another_image(kernel.image_mark(watched.pid)):
                self._forget(path)  # it has executed a program that is not watched
                continue
            watched.last = self._look(watched, now_s)
            gauges.append(watched.last)
        return gauges

    def _note_changed_groups(self) -> None:
        groups = {group.directory: group for watched in self._watched.values() for group in watched.groups}
        marks: dict[Path, object] = {
            directory: (group.read_limits(), group.events()) for directory, group in groups.items()
        }
        for watched in self._watched.values():
            if any(self._marks.get(group.directory) != marks[group.directory] for group in watched.groups):
                watched.limit_read_s = -_LIMIT_S
        self._marks = marks

    def _forget(self, path: Path) -> None:
        self._watched.pop(path).close()
        self._forgotten.add(path)

    def _find(self, now_s: float) -> None:
        if now_s - self._searched_s < _SEARCH_S and self._watched:
            return
        self._searched_s = now_s
        for directory in run_directories():
            for file in region_files(directory):
                if file.path not in self._watched and file.path not in self._forgotten:
                    self._open(file.path, file.pid)
        known = {watched.pid for watched in self._watched.values()}
        for pid in kernel.own_processes():
            if pid not in known:
                for path in kernel.open_memory_files(pid, REGION_MEMFD)[:1]:
                    self._open(path, pid)

    def _open(self, path: Path, pid: int) -> None:
        view = kernel.look_at(pid)
        if view is None:
            return  # over before anybody looked
        try:
            region = Region(path)
        except (RunError, OSError):
            return
        for other_path, other in list(self._watched.items()):
            if other.pid == pid and other.start_ticks == view.start_ticks:  # it has executed another program
                self._forget(other_path)
        snapshot = region.read()
        process = _process_name(snapshot.command, pid)
        groups = list(memory_groups(pid, self._machine))
        self._watched[path] = _Watched(
            region=region,
            reader=GaugeReader(region),
            path=path,
            pid=pid,
            process=process,
            worker=self._free_worker(process),
            allocator=snapshot.allocator,
            start_ticks=view.start_ticks,
            groups=groups,
            oom_kills=_oom_kills(groups),
        )

    def _free_worker(self, process: str) -> int:
        """The lowest number that no process of this name has: workers that come and go keep few series."""
        taken = {watched.worker for watched in self._watched.values() if watched.process == process}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def _look(self, watched: _Watched, now_s: float) -> Gauges:
        start_ticks, resident_bytes = kernel.read_life(watched.pid)
        alive = start_ticks is not None and start_ticks == watched.start_ticks
        reader = watched.reader
        live_bytes = reader.live_bytes()
        totals = reader.totals()
        watched.recent.append((now_s, live_bytes))
        while now_s - watched.recent[0][0] > _RECENT_S:
            watched.recent.popleft()
        limit_bytes = reader.number("limit_bytes") or None
        warn_at_bytes = reader.number("warn_at_bytes") or None
        if alive and now_s - watched.limit_read_s > _LIMIT_S:
            watched.limit_read_s = now_s
            bounds = read_bounds(watched.pid, self._machine)
            watched.limit = compute_tightest(bounds, live_bytes, limit_bytes, warn_at_bytes)
            watched.groups = list(memory_groups(watched.pid, self._machine)) or watched.groups
        python_state = reader.number("python_state")
        if not alive:
            watched.ended_s = now_s
        return Gauges(
            pid=watched.pid,
            process=watched.process,
            worker=watched.worker,
            allocator=watched.allocator,
            start_time_s=reader.number("start_realtime_ns") / 1e9,
            live_bytes=live_bytes,
            live_bytes_peak=max(live_bytes, reader.number("live_bytes_peak")),
            recent_live_bytes_peak=max(value for _, value in watched.recent),
            live_blocks=totals.live_blocks,
            mapped_bytes=max(0, reader.number("mapped_bytes")),
            allocations=totals.allocations,
            frees=totals.frees,
            allocated_bytes=totals.allocated_bytes,
            freed_bytes=totals.freed_bytes,
            refused=reader.number("refused"),
            out_of_memory=reader.number("out_of_memory"),
            overflowed=reader.number("overflowed"),
            warnings=reader.number("warnings"),
            warn_at_bytes=warn_at_bytes,
            limit_bytes=limit_bytes,
            limit=watched.limit,
            resident_bytes=resident_bytes if alive else None,
            told=reader.told(),
            python_arena_bytes=None
            if python_state == PythonState.NO_PYTHON
            else max(0, reader.number("python_arena_bytes")),
            python_blocks=totals.python_blocks if python_state == PythonState.COUNTED else None,
            pools=reader.pools(),
            ended=None if alive else _describe_end(watched),
        )


def _describe_end(watched: _Watched) -> Ended:
    code = watched.reader.number("exit_code") if watched.reader.number("exit_known") else None
    before, after = watched.oom_kills, _oom_kills(watched.groups)
    oom_killed = None
    if code is not None:
        oom_killed = False
    elif before is not None and after is not None:
        oom_killed = after > before
    return Ended(time_s=time.time(), code=code, oom_killed=oom_killed)


def _process_name(command: list[str], pid: int) -> str:
    """What people call a process: the script, for an interpreter that runs one."""
    if not command:
        return str(pid)
    name = Path(command[0]).name
    words = [word for word in command[1:] if not word.startswith("-")]
    if not _INTERPRETER.match(name) or not words:
        return name
    if "-c" in command:
        return f"{name} -c"
    if "-m" in command[:-1]:
        return command[command.index("-m") + 1]
    return Path(words[0]).name


def _oom_kills(groups: list[MemoryGroup]) -> int | None:
    counts = [group.events().get("oom_kill") for group in groups]
    return next((count for count in counts if count is not None), None)


def _read_group(group: MemoryGroup) -> GroupGauges | None:
    current_bytes = group.current_bytes()
    if current_bytes is None:
        return None
    return GroupGauges(
        name=str(group.directory),
        limits=group.read_limits(),
        current_bytes=current_bytes,
        working_set_bytes=group.used_bytes(),
        events=group.events(),
        stall_seconds=group.stall_seconds(),
    )

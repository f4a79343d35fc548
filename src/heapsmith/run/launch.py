"""Starting a program, watched: the same standard streams, arguments, signals and exit code as without heapsmith."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from heapsmith.errors import RunError
from heapsmith.native import library
from heapsmith.run.directory import RunDirectory, create_run_directory
from heapsmith.run.launched import Launched, judge_command
from heapsmith.run.program import Watchability
from heapsmith.run.values import RUN_SCHEMA, Event, Exit, Process, RunResult
from heapsmith.run.watch import Watcher
from heapsmith.wire.region import RUN_VARIABLE

WATCH_LIBRARY: Final = "libheapsmith_watch.so"
POLL_S: Final = 0.25


@dataclass(frozen=True)
class Wishes:
    """What is wanted of a run.

    Args:
        limit_bytes: Refuse allocations that would take live bytes over this; None is no limit.
        warn_at_bytes: Note each upward crossing of this; None is no threshold.
        python_objects: Count CPython's own objects.
        heap: The library of the heap that the program runs on; None is its own.
        environment: Further variables of the program.
        counted_by_heap: The heap counts for itself, and wants to see who calls it: nothing is put before it.
    """

    limit_bytes: int | None = None
    warn_at_bytes: int | None = None
    python_objects: bool = True
    heap: Path | None = None
    environment: dict[str, str] = field(default_factory=dict[str, str])
    counted_by_heap: bool = False


class Run:
    """A program under watch; leaving the context waits for it.

    Args:
        command: The program and its arguments.
        wishes: What is wanted of the run.

    Raises:
        RunError: The command is not there (exit code 127) or cannot be executed (126).

    Example:
        >>> with Run(["true"]) as run:
        ...     result = run.wait()
        >>> result.exit.code
        0
    """

    def __init__(self, command: Sequence[str], wishes: Wishes | None = None) -> None:
        if not command:
            raise RunError("there is no command to run", hint="heapsmith run -- COMMAND")
        self.command = list(command)
        self.notes = list[str]()
        self._wishes = wishes or Wishes()
        watchability = judge_command(self.command)
        keeper = _who_has_a_heap(self.command, watchability) if self._wishes.heap is not None else ""
        if keeper:
            self.notes.append(f"{self.command[0]} keeps its own heap: {keeper}")
        if watchability.problem:
            self.notes.append(f"{self.command[0]} cannot be watched: {watchability.problem}")
        self.directory: RunDirectory = create_run_directory()
        if not self.directory.in_memory:
            self.notes.append(
                f"no memory file system to share through ({self.directory.why_not}): "
                "the last values of a process that is killed between two looks are lost"
            )
        self.directory.write_launch_block(
            python_objects=self._wishes.python_objects,
            limit_bytes=self._wishes.limit_bytes or 0,
            warn_at_bytes=self._wishes.warn_at_bytes or 0,
        )
        self._seen_events = dict[tuple[int, int], int]()
        try:
            self._launched = Launched(
                self.command,
                self._preload(keeps_its_heap=bool(keeper)) if watchability.preload else [],
                self.directory.path,
                self._wishes.environment | {RUN_VARIABLE: str(self.directory.path)},
            )
        except RunError:
            self.directory.remove()
            raise
        self.watcher = Watcher(self.directory.path)

    @property
    def pid(self) -> int:
        """The launched process."""
        return self._launched.pid

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._launched.exit

    def processes(self) -> list[Process]:
        """Look at all processes of the run, the launched one first."""
        found = self.watcher.poll()
        # Of several programs executed in the launched process, the last is the one that was meant.
        return sorted(
            found, key=lambda p: (p.pid != self.pid, -p.image if p.pid == self.pid else 0, p.start_time_s)
        )

    def wait(
        self,
        *,
        interval_s: float = POLL_S,
        on_poll: Callable[[list[Process]], None] | None = None,
        on_event: Callable[[Process, Event], None] | None = None,
    ) -> RunResult:
        """Watch until the launched process ends.

        Args:
            interval_s: Between two looks, in seconds.
            on_poll: Called with the processes after each look.
            on_event: Called once for each warning, refusal and failure.

        Returns:
            How it ended, and the last values of every process seen.
        """
        while self.exit is None:
            if ended := self._launched.wait(interval_s):
                self.watcher.note_exit(self.pid, ended)
            found = self.processes()
            if on_event:
                self._report(found, on_event)
            if on_poll:
                on_poll(found)
        return self.result()

    def result(self) -> RunResult:
        """What is known now; after the end, the last values of every process seen."""
        end_s = time.monotonic() if self._launched.end_s is None else self._launched.end_s
        return RunResult(
            schema=RUN_SCHEMA,
            command=self.command,
            exit=self.exit or Exit(code=None, signal=None, oom_killed=None),
            duration_s=end_s - self._launched.start_s,
            processes=self.processes(),
        )

    def send_signal(self, number: int) -> None:
        """Pass a signal on to the launched process, if it still runs."""
        self._launched.send_signal(number)

    def close(self) -> None:
        """Forget the run; the directory goes unless processes of it still run."""
        alive = any(process.alive for process in self.watcher.poll())
        self.watcher.close()
        self._launched.close()
        if not alive:
            self.directory.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self.exit is None:
            self.wait()
        self.close()

    def _preload(self, *, keeps_its_heap: bool) -> list[Path]:
        heap = None if keeps_its_heap else self._wishes.heap
        watch = [] if heap is not None and self._wishes.counted_by_heap else [library(WATCH_LIBRARY)]
        return [*watch, *([] if heap is None else [heap])]

    def _report(self, found: list[Process], on_event: Callable[[Process, Event], None]) -> None:
        for process in found:
            key = (process.pid, process.image)
            seen = self._seen_events.get(key, 0)
            for event in process.events:
                if event.sequence > seen:
                    on_event(process, event)
                    self._seen_events[key] = event.sequence


_TOOLS_WITH_A_HEAP: Final = frozenset({"valgrind"})


def _who_has_a_heap(command: Sequence[str], watchability: Watchability) -> str:
    """Say why a program must keep the heap it has, where another one would end it or be passed over; else nothing."""
    tool = Path(command[0]).name
    if tool in _TOOLS_WITH_A_HEAP:
        return f"{tool} has one that it looks into"
    return "" if watchability.preload else watchability.problem


def watch(
    command: Sequence[str],
    *,
    limit: int | None = None,
    warn_at: int | None = None,
    python_objects: bool = True,
) -> Run:
    """Start a program under watch.

    Args:
        command: The program and its arguments.
        limit: Hard limit on live bytes; None is none.
        warn_at: Warning threshold in bytes; None is none.
        python_objects: Count CPython's own objects.

    Returns:
        The run, a context manager: ``run.processes()`` looks, ``run.wait()`` waits and answers the result.

    Raises:
        RunError: The command is not there or cannot be executed.

    Example:
        >>> with watch(["python3", "-c", "x = bytearray(1 << 20)"]) as run:
        ...     result = run.wait()
        >>> result.processes[0].live_bytes_peak > 1 << 20
        True
    """
    return Run(command, Wishes(limit_bytes=limit, warn_at_bytes=warn_at, python_objects=python_objects))

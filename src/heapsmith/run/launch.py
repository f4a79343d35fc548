"""Starting a program, watched: the same standard streams, arguments, signals and exit code as without heapsmith."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from heapsmith.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, RunError
from heapsmith.native import library, preloadable
from heapsmith.run import kernel
from heapsmith.run.directory import RunDirectory, create_run_directory
from heapsmith.run.program import find_program, judge_program
from heapsmith.run.values import RUN_SCHEMA, Event, Exit, Process, RunResult
from heapsmith.run.watch import Watcher
from heapsmith.wire.region import RUN_VARIABLE

WATCH_LIBRARY: Final = "libheapsmith_watch.so"
GATE_LIBRARY: Final = "libheapsmith_gate.so"
"""Takes what stands before it in the list, and itself, from programs that would not start with them."""
PRELOAD_VARIABLE: Final = "LD_PRELOAD"
POLL_S: Final = 0.25

_FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
)
_FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
"""The terminal sends these to the program as well, and then the launcher only has to survive them."""


@dataclass(frozen=True)
class Wishes:
    """What is wanted of a run.

    Args:
        limit_bytes: Refuse allocations that would take live bytes over this; None is no limit.
        warn_at_bytes: Note each upward crossing of this; None is no threshold.
        python_objects: Count CPython's own objects.
        heap: The library of the heap that the program runs on; None is its own.
        environment: Further variables of the program.
    """

    limit_bytes: int | None = None
    warn_at_bytes: int | None = None
    python_objects: bool = True
    heap: Path | None = None
    environment: dict[str, str] = field(default_factory=dict[str, str])


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
        self._judgement()
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
        self._oom_kills_before = kernel.count_oom_kills()
        self._start_s = time.monotonic()
        self._end_s: float | None = None
        self._seen_events = dict[tuple[int, int], int]()
        self.exit: Exit | None = None
        self._child = self._start()
        self._pidfd = os.pidfd_open(self._child.pid)
        self.watcher = Watcher(self.directory.path)

    @property
    def pid(self) -> int:
        """The launched process."""
        return self._child.pid

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
            self._wait_for_exit(interval_s)
            found = self.processes()
            if on_event:
                self._report(found, on_event)
            if on_poll:
                on_poll(found)
        return self.result()

    def result(self) -> RunResult:
        """What is known now; after the end, the last values of every process seen."""
        end_s = time.monotonic() if self._end_s is None else self._end_s
        return RunResult(
            schema=RUN_SCHEMA,
            command=self.command,
            exit=self.exit or Exit(code=None, signal=None, oom_killed=None),
            duration_s=end_s - self._start_s,
            processes=self.processes(),
        )

    def send_signal(self, number: int) -> None:
        """Pass a signal on to the launched process, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Forget the run; the directory goes unless processes of it still run."""
        alive = any(process.alive for process in self.watcher.poll())
        self.watcher.close()
        os.close(self._pidfd)
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

    def _judgement(self) -> None:
        program = find_program(self.command[0])
        if program is None:
            raise RunError(f"{self.command[0]}: command not found", exit_code=EXIT_NOT_FOUND)
        if program.is_dir() or not os.access(program, os.X_OK):
            why = "it is a directory" if program.is_dir() else "permission denied"
            raise RunError(f"{self.command[0]} cannot be executed", why, exit_code=EXIT_NOT_EXECUTABLE)
        self._watchability = judge_program(program)
        if self._watchability.problem:
            self.notes.append(f"{self.command[0]} cannot be watched: {self._watchability.problem}")

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | self._wishes.environment | {RUN_VARIABLE: str(self.directory.path)}
        if self._watchability.preload:
            heap = [] if self._wishes.heap is None else [self._wishes.heap]
            own = [library(WATCH_LIBRARY), *heap, library(GATE_LIBRARY)]
            names = [str(preloadable(path, self.directory.path)) for path in own]
            before = environment.get(PRELOAD_VARIABLE)
            environment[PRELOAD_VARIABLE] = ":".join([*names, before] if before else names)
        try:
            # Descriptors that the shell opened for the program stay open, as without heapsmith.
            return subprocess.Popen(self.command, env=environment, close_fds=False)
        except OSError as error:
            self.directory.remove()
            not_found = error.errno == errno.ENOENT
            raise RunError(
                f"{self.command[0]} cannot be executed",
                error.strerror or str(error),
                exit_code=EXIT_NOT_FOUND if not_found else EXIT_NOT_EXECUTABLE,
            ) from error

    def _wait_for_exit(self, timeout_s: float) -> None:
        ready, _, _ = select.select([self._pidfd], [], [], timeout_s)
        if not ready:
            return
        _, status = os.waitpid(self._child.pid, 0)
        self._end_s = time.monotonic()
        self._child.returncode = os.waitstatus_to_exitcode(status)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        oom_kills = kernel.count_oom_kills()
        self.exit = Exit(
            code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=number,
            oom_killed=number == signal.SIGKILL
            and oom_kills is not None
            and self._oom_kills_before is not None
            and oom_kills > self._oom_kills_before,
        )
        self.watcher.note_exit(self._child.pid, self.exit)

    def _report(self, found: list[Process], on_event: Callable[[Process, Event], None]) -> None:
        for process in found:
            key = (process.pid, process.image)
            seen = self._seen_events.get(key, 0)
            for event in process.events:
                if event.sequence > seen:
                    on_event(process, event)
                    self._seen_events[key] = event.sequence


class SignalsPassedOn:
    """While open, signals to the launcher go to the program; those from the terminal reach it by themselves."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._before = dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None]()

    def __enter__(self) -> Self:
        for number in _FORWARDED:
            self._before[number] = signal.signal(number, lambda got, _: self._run.send_signal(got))
        for number in _FROM_TERMINAL:
            self._before[number] = signal.signal(number, lambda got, _: self._from_terminal_or_not(got))
        return self

    def _from_terminal_or_not(self, number: int) -> None:
        if not _is_in_foreground():
            self._run.send_signal(number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Whether the terminal's signals go to the group that this process is in."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


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

"""A program as it is started under heapsmith: judged, preloaded into, waited for, its signals passed on."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Protocol, Self

from heapsmith.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, RunError
from heapsmith.native import library, preloadable
from heapsmith.run import kernel
from heapsmith.run.program import Watchability, find_program, judge_program
from heapsmith.run.values import Exit

PRELOAD_VARIABLE: Final = "LD_PRELOAD"
GATE_LIBRARY: Final = "libheapsmith_gate.so"
"""Takes what stands before it in the list, and itself, from programs that would not start with them."""


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


def judge_command(command: Sequence[str]) -> Watchability:
    """Find out whether the command can be started, and preloaded into.

    Raises:
        RunError: It is not there (exit code 127) or cannot be executed (126).
    """
    program = find_program(command[0])
    if program is None:
        raise RunError(f"{command[0] or '(an empty word)'}: command not found", exit_code=EXIT_NOT_FOUND)
    if program.is_dir() or not os.access(program, os.X_OK):
        why = "it is a directory" if program.is_dir() else "permission denied"
        raise RunError(f"{command[0]} cannot be executed", why, exit_code=EXIT_NOT_EXECUTABLE)
    return judge_program(program)


class Launched:
    """A started program.

    Args:
        command: The program and its arguments.
        preload: The libraries to load into it, in this order; empty loads none.
        directory: The run directory.
        environment: Further variables.

    Raises:
        RunError: It cannot be executed.
    """

    def __init__(
        self, command: Sequence[str], preload: Sequence[Path], directory: Path, environment: Mapping[str, str]
    ) -> None:
        self._oom_kills_before = kernel.count_oom_kills()
        self.start_s = time.monotonic()
        self.end_s: float | None = None
        self.exit: Exit | None = None
        variables = os.environ | environment
        if preload:
            names = [str(preloadable(path, directory)) for path in [*preload, library(GATE_LIBRARY)]]
            before = variables.get(PRELOAD_VARIABLE)
            variables[PRELOAD_VARIABLE] = ":".join([*names, before] if before else names)
        try:
            # Descriptors that the shell opened for the program stay open, as without heapsmith.
            self._child = subprocess.Popen(command, env=variables, close_fds=False)
        except OSError as error:
            not_found = error.errno == errno.ENOENT
            raise RunError(
                f"{command[0]} cannot be executed",
                error.strerror or str(error),
                exit_code=EXIT_NOT_FOUND if not_found else EXIT_NOT_EXECUTABLE,
            ) from error
        self._pidfd = os.pidfd_open(self._child.pid)

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def send_signal(self, number: int) -> None:
        """Pass a signal on, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, timeout_s: float) -> Exit | None:
        """Wait for its end, but no longer than this; answers how it ended, or None while it runs."""
        if self.exit is not None:
            return self.exit
        ready, _, _ = select.select([self._pidfd], [], [], timeout_s)
        if not ready:
            return None
        _, status = os.waitpid(self._child.pid, 0)
        self.end_s = time.monotonic()
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
        return self.exit

    def close(self) -> None:
        """Let go of it; it is not ended."""
        os.close(self._pidfd)


class Receiver(Protocol):
    """Whoever signals are passed on to."""

    def send_signal(self, number: int) -> None:
        """Take this one."""


class SignalsPassedOn:
    """While open, signals to the launcher go to the program; those from the terminal reach it by themselves."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._before = dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None]()

    def __enter__(self) -> Self:
        for number in _FORWARDED:
            self._before[number] = signal.signal(number, lambda got, _: self._receiver.send_signal(got))
        for number in _FROM_TERMINAL:
            self._before[number] = signal.signal(number, lambda got, _: self._from_terminal_or_not(got))
        return self

    def _from_terminal_or_not(self, number: int) -> None:
        if not _is_in_foreground():
            self._receiver.send_signal(number)

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

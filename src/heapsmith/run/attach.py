"""Recording a process that runs already, with gdb's help: it loads the library into it and calls its beginning."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from heapsmith.errors import RunError
from heapsmith.native import library
from heapsmith.run.directory import RunDirectory, create_run_directory
from heapsmith.run.record import RECORD_LIBRARY, Recorder, RecordResult, RecordWishes, check_output

_GDB_SCRIPT: Final = Path(__file__).with_name("attach_gdb.py")
_GDB_TIMEOUT_S: Final = 60.0
_PTRACE_SCOPE: Final = Path("/proc/sys/kernel/yama/ptrace_scope")


class Interrupted:
    """While open, Ctrl-C and a request to end are counted instead of ending this process."""

    def __init__(self) -> None:
        self.times = 0

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._count) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.times += 1


def attach(
    pid: int,
    output: Path,
    wishes: RecordWishes,
    *,
    force: bool = False,
    is_over: Callable[[], bool] = lambda: False,
) -> RecordResult:
    """Record a running process until it ends, or until it has been recorded long enough.

    What it allocated before is not known; its frees of that are counted as unknown.

    Args:
        pid: The process.
        output: The trace file.
        wishes: What is wanted.
        force: Replace a file that is there.
        is_over: Asked a few times a second whether to end the recording; the process goes on.

    Raises:
        RunError: There is no such process, it cannot be entered, or the file cannot be written.
    """
    check_output(output, force=force)
    if not Path(f"/proc/{pid}").exists():
        raise RunError(
            f"there is no process {pid}", hint="`heapsmith ps` lists the watched ones, `ps -e` all"
        )
    if shutil.which("gdb") is None:
        raise RunError(f"process {pid} cannot be entered", "there is no gdb", "install gdb (apt install gdb)")
    command = [
        word.decode(errors="replace")
        for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if word
    ]
    directory: RunDirectory = create_run_directory()
    pidfd = os.pidfd_open(pid)
    try:
        recorder = Recorder(directory.path, output, wishes, command)
        try:
            _enter(pid, directory.path)
        except RunError:
            recorder.finish()
            output.unlink(missing_ok=True)
            raise
        while not is_over() and not select.select([pidfd], [], [], 0)[0]:
            recorder.look()
        recorder.finish(tell_running=False)
        return recorder.result(None)
    finally:
        os.close(pidfd)
        directory.remove()


def _enter(pid: int, directory: Path) -> None:
    words = ["gdb", "-batch", "-nx", "-p", str(pid), "-x", str(_GDB_SCRIPT)]
    environment = os.environ | {
        "HEAPSMITH_PID": str(pid),
        "HEAPSMITH_ATTACH_LIBRARY": str(library(RECORD_LIBRARY)),
        "HEAPSMITH_ATTACH_DIRECTORY": str(directory),
        "DEBUGINFOD_URLS": "",
    }
    started_s = time.monotonic()
    try:
        done = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GDB_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        waited_s = time.monotonic() - started_s
        raise RunError(
            f"process {pid} cannot be entered", f"gdb did not come to an end in {waited_s:.0f} s"
        ) from error
    said = done.stdout + done.stderr
    if "heapsmith: recording" in said:
        return
    if "Operation not permitted" in said or "ptrace" in said:
        scope = _PTRACE_SCOPE.read_text().strip() if _PTRACE_SCOPE.exists() else "0"
        hint = (
            "run as root, or allow it: sysctl kernel.yama.ptrace_scope=0"
            if scope != "0"
            else "run as its user"
        )
        raise RunError(f"process {pid} cannot be entered", "ptrace is not permitted here", hint)
    told = [line for line in said.splitlines() if line.startswith("heapsmith: ")]
    why = (
        told[-1].removeprefix("heapsmith: ")
        if told
        else (said.strip().splitlines() or ["gdb said nothing"])[-1]
    )
    raise RunError(f"process {pid} cannot be entered", why)

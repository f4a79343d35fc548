"""A watched process by its pid, or why it is none."""

from __future__ import annotations

from heapsmith.errors import RunError
from heapsmith.run import kernel
from heapsmith.run.values import Process
from heapsmith.run.watch import Watcher


def find_process(watcher: Watcher, pid: int) -> Process:
    """Find the program that a process runs now, or the last it ran.

    Raises:
        RunError: There is no such process, or it is not watched, or it is another user's.

    Example:
        >>> find_process(Watcher(pids=[0]), 0)
        Traceback (most recent call last):
        heapsmith.errors.RunError: there is no process 0 (see `heapsmith ps`)
    """
    found = [process for process in watcher.poll() if process.pid == pid]
    if found:
        return next((process for process in found if process.alive), found[-1])
    if watcher.problems:
        raise RunError(watcher.problems[0])
    if kernel.look_at(pid) is None and not kernel.is_hidden(pid):
        raise RunError(f"there is no process {pid}", hint="see `heapsmith ps`")
    if pid not in kernel.own_processes():
        raise RunError(f"process {pid} is another user's", hint="ask as that user")
    raise RunError(f"process {pid} is not watched", hint="start it with `heapsmith run -- COMMAND`")

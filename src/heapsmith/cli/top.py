"""``heapsmith top``: the live view in the terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

from cyclopts import Parameter

from heapsmith.errors import RunError
from heapsmith.run.find import find_process
from heapsmith.run.history import FromNowOn
from heapsmith.run.watch import Watcher
from heapsmith.show.tui import TopApp
from heapsmith.units import parse_seconds


def top(
    pid: Annotated[int | None, Parameter(help="Only this watched process (see `heapsmith ps`).")] = None,
    *,
    interval: Annotated[str, Parameter(help="How often to look; + and - change it.")] = "1s",
) -> int:
    """Show the watched processes in the terminal, live.

    Keys: t thread, s sort, i invert, r reset, p pause, w save, + and - interval, q quit; Tab and Enter
    choose a process.

    Example: heapsmith top --interval 500ms
    """
    # Textual draws on standard error, so that standard output could be piped; both ends must be a terminal.
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise RunError("top needs a terminal", "input or output is redirected", "see `heapsmith ps`")
    with contextlib.closing(Watcher(pids=None if pid is None else [pid])) as watcher:
        if pid is not None:
            find_process(watcher, pid)
        TopApp(FromNowOn(watcher) if pid is None else watcher, parse_seconds(interval)).run()
    return 0

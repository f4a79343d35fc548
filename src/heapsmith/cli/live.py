"""``heapsmith live``: the live page for all watched processes of this user, or for one."""

from __future__ import annotations

import contextlib
import signal
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from heapsmith.cli.run import DEFAULT_PORT
from heapsmith.run.find import find_process
from heapsmith.run.history import FromNowOn
from heapsmith.run.watch import Watcher
from heapsmith.show.page import serve
from heapsmith.units import parse_seconds


def live(
    pid: Annotated[int | None, Parameter(help="Only this watched process (see `heapsmith ps`).")] = None,
    *,
    host: Annotated[str, Parameter(help="Where to serve; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The next free one if it is taken; 0 is any.")] = DEFAULT_PORT,
    interval: Annotated[str, Parameter(help="How often to look, unless a browser asks otherwise.")] = "1s",
) -> int:
    """Serve the live page until Ctrl-C.

    Processes appear by themselves when they are started with `heapsmith run`.

    Example: heapsmith live --port 8700
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    with contextlib.closing(Watcher(pids=None if pid is None else [pid])) as watcher:
        if pid is not None:
            find_process(watcher, pid)
        page = serve(
            FromNowOn(watcher) if pid is None else watcher,
            host,
            port,
            on_ready=lambda url: console.print(f"heapsmith: live page at {url} (Ctrl-C ends it)"),
            interval_s=parse_seconds(interval),
        )
        if page.note:
            console.print(f"heapsmith: {page.note}")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        page.stop()
    return 0

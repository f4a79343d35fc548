"""``heapsmith ps``: the watched processes of this user."""

from __future__ import annotations

import contextlib
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from heapsmith.run.values import Process
from heapsmith.run.watch import Watcher
from heapsmith.show.terminal import print_json, print_text
from heapsmith.show.text import render_processes

_DETAILS = ("threads", "size_classes", "spans")


def ps(*, json: Annotated[bool, Parameter(help="One JSON document on standard output.")] = False) -> None:
    """List the watched processes, with limit, current and peak.

    Example: heapsmith ps --json
    """
    with contextlib.closing(Watcher()) as watcher:
        processes = [process for process in watcher.poll() if process.alive]
        problems = watcher.problems
    console = Console(stderr=True)
    for problem in problems:
        console.print(f"heapsmith: {problem}", highlight=False, markup=False, soft_wrap=True)
    if json:
        print_json([_without_details(process) for process in processes])
    else:
        print_text(render_processes(processes))


def _without_details(process: Process) -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(process)
    return {key: value for key, value in document.items() if key not in _DETAILS}

"""``heapsmith info PID``: the heap of one watched process; its limit can be changed while it runs."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from heapsmith.errors import RunError
from heapsmith.run import kernel
from heapsmith.run.limits import HeapLimit, compute_heap_limit
from heapsmith.run.values import Process
from heapsmith.run.watch import Watcher
from heapsmith.show.text import render_process
from heapsmith.units import format_bytes, parse_bytes

_SETTABLE = ("limit", "warn-at")
_NONE = ("none", "off", "0")


def info(
    pid: Annotated[int, Parameter(help="A watched process (see `heapsmith ps`).")],
    *,
    set: Annotated[
        list[str] | None,
        Parameter(
            help="Change it while it runs: limit=BYTES, warn-at=BYTES; `none` takes it away.", name="--set"
        ),
    ] = None,
    json: Annotated[bool, Parameter(help="One JSON document on standard output.")] = False,
) -> None:
    """Show the heap statistics of one watched process, or change its limit.

    Example: heapsmith info 4711 --set limit=512MiB
    """
    wishes = [_parse_wish(text) for text in set or []]
    with contextlib.closing(Watcher(pids=[pid])) as watcher:
        process = _find(watcher, pid)
        for key, value in wishes:
            if not process.alive:
                raise RunError(f"process {pid} has ended")
            if key == "limit":
                watcher.set_limit(pid, value)
            else:
                watcher.set_warn_at(pid, value)
        if wishes:
            time.sleep(0.05)  # a program that allocates has seen it by then
            process = _find(watcher, pid)
    limit = compute_heap_limit(process) if process.alive else None
    if json:
        print(msgspec.json.encode(_document(process, limit)).decode())  # noqa: T201
    else:
        Console().print(render_process(process, _details(limit)))


def _parse_wish(text: str) -> tuple[str, int | None]:
    key, separator, value = text.partition("=")
    if not separator or key not in _SETTABLE:
        raise RunError(
            f"--set {text} is not understood", hint="write --set limit=512MiB or --set warn-at=256MiB"
        )
    return key, None if value in _NONE else parse_bytes(value)


def _find(watcher: Watcher, pid: int) -> Process:
    found = watcher.poll()
    if found:
        return next((process for process in found if process.alive), found[-1])
    if watcher.problems:
        raise RunError(watcher.problems[0])
    if kernel.look_at(pid) is None:
        raise RunError(f"there is no process {pid}", hint="see `heapsmith ps`")
    if pid not in kernel.own_processes():
        raise RunError(f"process {pid} is another user's", hint="ask as that user")
    raise RunError(f"process {pid} is not watched", hint="start it with `heapsmith run -- COMMAND`")


def _document(process: Process, limit: HeapLimit | None) -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(process)
    return document | {
        "max_total_heap_size": limit.heap_bytes if limit else None,
        "current_allocated_heap_size": process.live_bytes,
        "peak_allocated_heap_size": process.live_bytes_peak,
        "limit_source": limit.source if limit else None,
        "limit_effect": limit.effect if limit else None,
        "available_bytes": limit.available_bytes if limit else None,
        # What only an allocator of our own, or one asked from inside, could tell.
        "largest_block_bytes": None,
        "committed_bytes": None,
        "reserved_bytes": None,
        "metadata_bytes": None,
        "free_cached_bytes": None,
    }


def _details(limit: HeapLimit | None) -> dict[str, str]:
    if limit is None:
        return {}
    return {
        "Heap limit": f"{format_bytes(limit.heap_bytes)} by {limit.source} (then: {limit.effect})",
        "Available": format_bytes(limit.available_bytes),
    }

"""``heapsmith info PID``: the heap of one watched process; its limit can be changed while it runs."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated

import msgspec
from cyclopts import Parameter

from heapsmith.errors import RunError
from heapsmith.run.find import find_process
from heapsmith.run.limits import (
    HeapLimit,
    compute_heap_limit,
    largest_request_bytes,
    refuse_limit_below_live,
)
from heapsmith.run.values import Process
from heapsmith.run.watch import Watcher
from heapsmith.show.terminal import print_json, print_text
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
            help="Change it while it runs: limit=BYTES, warn-at=BYTES; `none` takes it away.",
            name="--set",
            negative="",
        ),
    ] = None,
    force: Annotated[
        bool, Parameter(help="Set a limit below what is live: the next allocation fails.", negative="")
    ] = False,
    json: Annotated[bool, Parameter(help="One JSON document on standard output.")] = False,
) -> None:
    """Show the heap statistics of one watched process, or change its limit.

    Example: heapsmith run --no-summary -- sh -c 'heapsmith info $$ --set limit=512MiB'
    """
    wishes = [_parse_wish(text) for text in set or []]
    with contextlib.closing(Watcher(pids=[pid])) as watcher:
        process = find_process(watcher, pid)
        for key, value in wishes:
            if not process.alive:
                raise RunError(f"process {pid} has ended")
            if key == "limit":
                if value is not None and not force:
                    refuse_limit_below_live(process, value)
                watcher.set_limit(pid, value)
            else:
                watcher.set_warn_at(pid, value)
        if wishes:
            time.sleep(0.05)  # a program that allocates has seen it by then
            process = find_process(watcher, pid)
    limit = compute_heap_limit(process) if process.alive else None
    if json:
        print_json(_document(process, limit))
    else:
        print_text(render_process(process, _details(process, limit) | _waiting(process, wishes)))


def _parse_wish(text: str) -> tuple[str, int | None]:
    key, separator, value = text.partition("=")
    if not separator or key not in _SETTABLE:
        raise RunError(
            f"--set {text} is not understood", hint="write --set limit=512MiB or --set warn-at=256MiB"
        )
    return key, None if value in _NONE else parse_bytes(value)


def _waiting(process: Process, wishes: list[tuple[str, int | None]]) -> dict[str, str]:
    """Say what a program that allocates nothing just now has not seen yet."""
    now = {"limit": process.limit_bytes, "warn-at": process.warn_at_bytes}
    names = [key for key, value in wishes if now[key] != value]
    return {"Not yet seen": f"{' and '.join(names)}: at the program's next growth"} if names else {}


def _document(process: Process, limit: HeapLimit | None) -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(process)
    return document | {
        "max_total_heap_size": limit.heap_bytes if limit else None,
        "current_allocated_heap_size": process.live_bytes,
        "peak_allocated_heap_size": process.live_bytes_peak,
        "limit_source": limit.source if limit else None,
        "limit_effect": limit.effect if limit else None,
        "available_bytes": limit.available_bytes if limit else None,
        "limit_place": limit.place if limit else None,
        "soft_limit_bytes": limit.soft_bytes if limit else None,
        "largest_block_bytes": _largest(process, limit) if limit else None,
    }


def _largest(process: Process, limit: HeapLimit) -> int:
    return largest_request_bytes(process.allocator, limit.available_bytes)


def _details(process: Process, limit: HeapLimit | None) -> dict[str, str]:
    if limit is None:
        return {}
    details = {
        "Heap limit": f"{format_bytes(limit.heap_bytes)} by {limit.source} (then: {limit.effect})",
        "Available": f"{format_bytes(limit.available_bytes)}, "
        f"in one block about {format_bytes(_largest(process, limit))}",
    }
    if limit.soft_bytes is not None:
        details["Soft limit"] = f"{format_bytes(limit.soft_bytes)} by {limit.soft_source}"
    for pool in process.pools:
        details[f"Pool {pool.name}"] = (
            f"{format_bytes(pool.live_bytes)}, peak {format_bytes(pool.live_bytes_peak)}"
        )
    return details

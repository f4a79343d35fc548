"""``heapsmith run``: a program, watched, with a summary at its end."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from heapsmith.errors import RunError
from heapsmith.run.launch import Run, SignalsPassedOn, Wishes
from heapsmith.run.values import Event, Process
from heapsmith.show.text import render_event, render_run_summary
from heapsmith.units import parse_bytes

DEFAULT_PORT = 8642


def run(
    *command: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="The program and its arguments, after `--`.")
    ],
    limit: Annotated[
        str | None, Parameter(help="Refuse allocations that take live bytes over this (512MiB).")
    ] = None,
    warn_at: Annotated[str | None, Parameter(help="Say so each time live bytes rise over this.")] = None,
    live: Annotated[
        bool, Parameter(help="Serve the live page while it runs, and after, until Ctrl-C.")
    ] = False,
    host: Annotated[str, Parameter(help="Where to serve the live page.")] = "127.0.0.1",
    port: Annotated[
        int, Parameter(help="The port of the live page; the next free one if it is taken.")
    ] = DEFAULT_PORT,
    python_objects: Annotated[
        bool, Parameter(help="Count CPython's own objects, which malloc never sees.")
    ] = True,
    json: Annotated[Path | None, Parameter(help="Write the result to this file as well.")] = None,
    summary: Annotated[bool, Parameter(help="Print the summary (to standard error).")] = True,
) -> int:
    """Run a program and watch its heap.

    Its output, signals and exit code stay its own; the summary goes to standard error.

    Example: heapsmith run --limit 1GiB -- python3 -c "print(sum(range(10**6)))"
    """
    wishes = Wishes(
        limit_bytes=_positive(limit, "--limit"),
        warn_at_bytes=_positive(warn_at, "--warn-at"),
        python_objects=python_objects,
    )
    if json is not None:
        _must_be_writable(json)
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        watched = stack.enter_context(contextlib.closing(Run(command, wishes)))
        with SignalsPassedOn(watched):
            for note in watched.notes:
                console.print(f"heapsmith: {note}", highlight=False, markup=False, soft_wrap=True)
            server = None
            if live:
                from heapsmith.show.page import serve

                server = serve(watched.watcher, host, port, on_ready=lambda url: _announce(console, url))
                stack.callback(server.stop)
            result = watched.wait(on_event=lambda process, event: _say(console, process, event))
        if summary:
            console.print(render_run_summary(result))
        if json is not None:
            json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
        if server is not None:
            console.print(f"heapsmith: the page stays at {server.url} until Ctrl-C", highlight=False)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    if result.exit.signal is not None:
        return 128 + result.exit.signal
    return result.exit.code or 0


def _positive(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    value = parse_bytes(text)
    if value == 0:
        raise RunError(
            f"{option} 0 makes no sense", "no program runs without a heap", "leave it out for no limit"
        )
    return value


def _must_be_writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise RunError(f"{path} cannot be written", f"there is no directory {path.parent}")
    if path.is_dir():
        raise RunError(f"{path} cannot be written", "it is a directory")


def _announce(console: Console, url: str) -> None:
    console.print(f"heapsmith: live page at {url}", highlight=False, markup=False, soft_wrap=True)


def _say(console: Console, process: Process, event: Event) -> None:
    line = render_event(process, event)
    if line:
        console.print(f"heapsmith: {line}", highlight=False, markup=False, soft_wrap=True)

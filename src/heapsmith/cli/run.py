"""``heapsmith run``: a program, watched, with a summary at its end."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from heapsmith.errors import RunError
from heapsmith.outputs import write_output
from heapsmith.run.launch import POLL_S, Run, Wishes
from heapsmith.run.launched import SignalsPassedOn
from heapsmith.run.limits import compute_auto_limit
from heapsmith.run.values import Event, Process
from heapsmith.show.terminal import encode_json
from heapsmith.show.text import render_event, render_run_summary
from heapsmith.units import format_bytes, format_seconds, parse_bytes, parse_seconds

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8642
_STANDARD_OUTPUT = Path("-")
LEAKS_VARIABLE: Final = "HEAPSMITH_LEAKS"
_ORIGINS_MARK: Final = b"heapsmith: records origins"


def run(
    *command: Annotated[str, Parameter(help="The program and its arguments, after `--`.")],
    allocator: Annotated[
        str | None,
        Parameter(
            help="Run it on this heap: a preset, a spec.toml, jemalloc, ..., or a library; its own if left out."
        ),
    ] = None,
    leaks: Annotated[
        Path | None,
        Parameter(help="With a heap of ours: write what is live at the end, by size class, to this file."),
    ] = None,
    limit: Annotated[
        str | None,
        Parameter(
            help="Refuse allocations that take live bytes over this (512MiB); `auto`: three quarters of what the "
            "container or machine allows, so that Python gets MemoryError before the kernel kills."
        ),
    ] = None,
    warn_at: Annotated[str | None, Parameter(help="Say so each time live bytes rise over this.")] = None,
    live: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="Serve the live page, at HOST:PORT if given; a port in use gives way to the next free one.",
        ),
    ] = None,
    linger: Annotated[
        str | None,
        Parameter(help="How long the page stays after the program has ended; until Ctrl-C if left out."),
    ] = None,
    python_objects: Annotated[
        bool, Parameter(help="Count CPython's own objects, which malloc never sees.")
    ] = True,
    shadow: Annotated[
        str | None,
        Parameter(
            help="Keep its own allocator, and say at the end what this heap (SPEC.toml, a preset) would have held."
        ),
    ] = None,
    json: Annotated[
        Path | None,
        Parameter(
            help="Write the result to this file as well; `-` is standard output.", allow_leading_hyphen=True
        ),
    ] = None,
    summary: Annotated[bool, Parameter(help="Print the summary (to standard error).")] = True,
) -> int:
    """Run a program and watch its heap.

    Its output, signals and exit code stay its own; the summary goes to standard error.

    Example: heapsmith run --limit 1GiB -- python3 -c "print(sum(range(10**6)))"
    """
    if shadow is not None:
        beside = {
            "--allocator": allocator,
            "--leaks": leaks,
            "--limit": limit,
            "--warn-at": warn_at,
            "--live": live,
            "--linger": linger,
        }
        for option, value in beside.items():
            if value is not None:
                raise RunError(f"--shadow and {option} exclude each other", hint="run the program twice")
        return _run_in_shadow(command, shadow, json)
    auto = compute_auto_limit() if limit == "auto" else None
    heap, variables = _subject_of(allocator)
    wishes = Wishes(
        limit_bytes=auto[0] if auto else _positive(limit, "--limit"),
        warn_at_bytes=_positive(warn_at, "--warn-at"),
        python_objects=python_objects,
        heap=heap,
        environment=variables | _leaks_of(allocator, leaks),
        counted_by_heap=leaks is not None and heap is not None and records_origins(heap),
    )
    if json is not None:
        _must_be_writable(json)
    page_at = None if live is None else parse_address(live)
    linger_s = None if linger is None else parse_seconds(linger)
    if linger_s is not None and page_at is None:
        raise RunError("--linger is how long a page stays", hint="add --live")
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        watched = stack.enter_context(contextlib.closing(Run(command, wishes)))
        with SignalsPassedOn(watched):
            if auto:
                note = f"limit {format_bytes(auto[0])}, a share of {format_bytes(auto[1].limit_bytes)} by {auto[1].place}"
                console.print(f"heapsmith: {note}", highlight=False, markup=False, soft_wrap=True)
            for note in watched.notes:
                console.print(f"heapsmith: {note}", highlight=False, markup=False, soft_wrap=True)
            server = None
            if page_at is not None:
                # The page's libraries take as long to load as a small program runs.
                from heapsmith.show.page import serve

                server = serve(watched.watcher, *page_at, on_ready=lambda url: _announce(console, url))
                if server.note:
                    console.print(f"heapsmith: {server.note}", highlight=False, markup=False, soft_wrap=True)
                stack.callback(server.stop)
            # The page looks for itself: then this only has to hear of events.
            interval_s = POLL_S if server is None else 4 * POLL_S
            result = watched.wait(
                interval_s=interval_s, on_event=lambda process, event: _say(console, process, event)
            )
        if summary:
            console.print(render_run_summary(result))
        if json is not None:
            _write(json, encode_json(result))
        if server is not None:
            _keep_page(console, server.url, linger_s)
    if result.exit.signal is not None:
        return 128 + result.exit.signal
    return result.exit.code or 0


def _run_in_shadow(command: Sequence[str], heap: str, json: Path | None) -> int:
    # The simulator takes a while to load, and few runs need it.
    from heapsmith.show.shadow import render_shadow
    from heapsmith.spec import load_spec
    from heapsmith.tune.shadow import run_in_shadow

    spec = load_spec(heap)
    if json is not None:
        _must_be_writable(json)
    console = Console(stderr=True, highlight=False)

    def tell() -> None:
        console.print(
            "heapsmith: compiling the simulator, at its first use here, for about half a minute; then the program starts"
        )

    result = run_in_shadow(command, spec, compiles=tell)
    console.print(render_shadow(result))
    if json is not None:
        _write(json, encode_json(result))
    return result.exit_code or 0


def _subject_of(allocator: str | None) -> tuple[Path | None, dict[str, str]]:
    """Answer the library of a heap, and what its knobs put into the environment."""
    if allocator is None:
        return None, {}
    from heapsmith.lab.subjects import resolve_subject  # loads the forge, which few runs need

    subject = resolve_subject(allocator)
    return subject.library, dict(subject.variables)


def _leaks_of(allocator: str | None, leaks: Path | None) -> dict[str, str]:
    if leaks is None:
        return {}
    if allocator is None:
        raise RunError("--leaks needs a heap that can tell", hint="add --allocator default")
    _must_be_writable(leaks)
    leaks.unlink(missing_ok=True)  # the first process of the run makes it
    return {LEAKS_VARIABLE: str(leaks.absolute())}


def records_origins(library: Path) -> bool:
    """Tell whether a heap was forged to remember who made each block.

    Example:
        >>> records_origins(Path("/etc/hostname"))
        False
    """
    return _ORIGINS_MARK in library.read_bytes()


def parse_address(words: Sequence[str]) -> tuple[str, int]:
    """Read where to serve: nothing, ``HOST``, ``PORT`` or ``HOST:PORT``.

    Raises:
        RunError: It is none of these.

    Example:
        >>> parse_address([]), parse_address(["9000"]), parse_address(["0.0.0.0:80"])
        (('127.0.0.1', 8642), ('127.0.0.1', 9000), ('0.0.0.0', 80))
    """
    if len(words) > 1:
        raise RunError(f"{words[1]!r} is one word too many", hint="write the command after `--`")
    host, _, port = "".join(words).rpartition(":")
    if not port:
        return host or DEFAULT_HOST, DEFAULT_PORT
    if not (port.isascii() and port.isdigit()):
        host, port = port, str(DEFAULT_PORT)
    if int(port) > 65535:
        raise RunError(f"{port} is not a port", hint="write --live HOST:PORT")
    return host or DEFAULT_HOST, int(port)


def _keep_page(console: Console, url: str, linger_s: float | None) -> None:
    if linger_s == 0:
        return
    until = "until Ctrl-C" if linger_s is None else f"for {format_seconds(linger_s)}"
    console.print(
        f"heapsmith: the page stays at {url} {until}", highlight=False, markup=False, soft_wrap=True
    )
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(linger_s) if linger_s is not None else signal.pause()


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
    """Find out before the program runs, and leave what is there as it is."""
    if path == _STANDARD_OUTPUT:
        return
    if str(path).startswith("-"):
        raise RunError("--json names no file", hint=f"write --json ./{path} if this is one")
    is_new = not path.exists()
    if not is_new and not path.is_file() and not path.is_dir():
        return  # who reads a pipe would take a trial for the end
    try:
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise RunError(f"{path} cannot be written", error.strerror or str(error)) from error


def _write(path: Path, document: bytes) -> None:
    if path == _STANDARD_OUTPUT:
        sys.stdout.write(document.decode())
        return
    write_output(path, document)


def _announce(console: Console, url: str) -> None:
    console.print(f"heapsmith: live page at {url}", highlight=False, markup=False, soft_wrap=True)


def _say(console: Console, process: Process, event: Event) -> None:
    line = render_event(process, event)
    if line:
        console.print(f"heapsmith: {line}", highlight=False, markup=False, soft_wrap=True)

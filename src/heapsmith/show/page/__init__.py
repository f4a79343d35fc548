"""The live page: a Bokeh server in the launcher's process, never in the program under study.

The browser gets everything from this server, nothing from the internet.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import Server
from tornado.ioloop import IOLoop

from heapsmith.errors import RunError
from heapsmith.run.history import ProcessSource, check_interval
from heapsmith.show.page.door import Doorkeeper, names_of_host
from heapsmith.show.page.hub import Hub
from heapsmith.show.page.session import Session

_PORTS_TRIED: Final = 64
_STOP_S: Final = 5.0
_LOGGERS: Final = ("bokeh", "tornado")


class PageServer:
    """A page that is being served.

    Attributes:
        url: Where it is.
        port: The port it got.
        note: Why it is not on the port that was asked for; empty if it is.
    """

    def __init__(
        self, url: str, port: int, note: str, loop: asyncio.AbstractEventLoop, thread: threading.Thread
    ) -> None:
        self.url = url
        self.port = port
        self.note = note
        self._loop = loop
        self._thread = thread

    def stop(self) -> None:
        """End the page; what browsers show stays, with a line that says so."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_S)


def serve(
    watcher: ProcessSource,
    host: str,
    port: int,
    *,
    on_ready: Callable[[str], None],
    interval_s: float = 1.0,
) -> PageServer:
    """Serve the live page of a watcher, in a thread of its own.

    Args:
        watcher: Where processes come from.
        host: Address or name to listen on.
        port: Port to listen on; when in use, the next free one is taken (see `PageServer.note`); 0 is any.
        on_ready: Called with the address of the page once it answers.
        interval_s: How often it is brought up to date, unless a browser asks otherwise.

    Raises:
        RunError: The page cannot be served there.
        HeapsmithError: The interval is too short or too long.
    """
    if not 0 <= port <= 65535:
        raise RunError(f"cannot serve the page on {host}:{port}", "ports go from 0 to 65535")
    check_interval(interval_s)
    for name in _LOGGERS:
        # The terminal belongs to the program under study: what a browser does wrong is no news there.
        logging.getLogger(name).setLevel(logging.ERROR)
    started: list[tuple[int, asyncio.AbstractEventLoop] | Exception] = []
    ready = threading.Event()

    def run() -> None:
        events = asyncio.new_event_loop()
        asyncio.set_event_loop(events)
        hub = Hub(watcher, interval_s)
        try:
            server, got = _listen(hub, host, port, IOLoop.current())
        except Exception as error:  # noqa: BLE001 (raised again in the thread that waits)
            started.append(error)
            ready.set()
            return
        hub.start(events)
        server.start()
        started.append((got, events))
        events.call_soon(ready.set)
        try:
            events.run_forever()
        finally:
            hub.stop()
            server.stop()
            IOLoop.current().close(all_fds=True)

    thread = threading.Thread(target=run, name="heapsmith-page", daemon=True)
    thread.start()
    ready.wait()
    outcome = started[0]
    if isinstance(outcome, OSError):
        why = outcome.strerror or str(outcome)
        raise RunError(f"cannot serve the page on {host}:{port}", why, "choose another host or port")
    if isinstance(outcome, Exception):
        raise outcome
    got, events = outcome
    shown = "localhost" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
    note = f"port {port} is in use, so the page is on port {got}" if port not in (0, got) else ""
    page = PageServer(f"http://{shown}:{got}/", got, note, events, thread)
    on_ready(page.url)
    return page


def _listen(hub: Hub, host: str, port: int, loop: IOLoop) -> tuple[Server, int]:
    hosts = names_of_host(host)

    def make_document(document: Any) -> None:
        Session(document, hub)

    first = port or _find_free_port(host)
    for candidate in range(first, min(first + _PORTS_TRIED, 65536)):
        # Bokeh cannot spell an IPv6 address as an origin; the doorkeeper compares origin and host anyway.
        spelled = [f"{name}:{candidate}" for name in sorted(hosts) if not name.startswith("[")]
        try:
            server = Server(
                {"/": Application(FunctionHandler(make_document))},
                io_loop=loop,
                address=host,
                port=candidate,
                allow_websocket_origin=[*spelled, "*"] if len(spelled) < len(hosts) else spelled,
                auth_provider=Doorkeeper(hosts),
                check_unused_sessions_milliseconds=5_000,
                unused_session_lifetime_milliseconds=10_000,
                use_index=False,
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return server, candidate
    raise RunError(
        f"cannot serve the page on {host}:{port}",
        f"this port and the {_PORTS_TRIED - 1} after it are in use",
        "choose another with --port or --live HOST:PORT",
    )


def _find_free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])

"""``heapsmith metrics``: one Prometheus endpoint for all watched processes."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType
from typing import Annotated, Final

from cyclopts import Parameter
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from rich.console import Console

from heapsmith.errors import HeapsmithError
from heapsmith.run.fleet import Fleet
from heapsmith.show.metrics import HeapCollector, read_alerts, read_dashboard
from heapsmith.units import parse_seconds

DEFAULT_PORT: Final = 9466
_SAMPLE_S: Final = 0.25


def metrics(
    *,
    host: Annotated[str, Parameter(help="Where to serve; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Serve /metrics here; 0 is any free one.")] = DEFAULT_PORT,
    keep: Annotated[str, Parameter(help="How long the last values of an ended process stay.")] = "5m",
    label_pid: Annotated[
        bool,
        Parameter(
            help="Label each series with the pid: one more for every process that ever was.", negative=""
        ),
    ] = False,
    once: Annotated[
        bool, Parameter(help="Print the metrics to standard output and end.", negative="")
    ] = False,
    otlp: Annotated[
        str | None,
        Parameter(help="Send them to this OpenTelemetry collector as well (http://host:4318/v1/metrics)."),
    ] = None,
    interval: Annotated[str, Parameter(help="How often to send them there.")] = "15s",
    dashboard: Annotated[bool, Parameter(help="Print the Grafana dashboard (JSON).", negative="")] = False,
    alerts: Annotated[bool, Parameter(help="Print the alert rules (YAML).", negative="")] = False,
) -> int:
    """Serve the heaps of all watched processes of this user to Prometheus until Ctrl-C.

    Processes appear by themselves when they are started with `heapsmith run`, the workers of a pre-fork server included.

    Example: heapsmith metrics --once
    """
    if dashboard or alerts:
        sys.stdout.write(read_dashboard() if dashboard else read_alerts())
        return 0
    if once and otlp is not None:
        raise HeapsmithError(
            "--once and --otlp exclude each other", hint="a collector is sent to until Ctrl-C"
        )
    registry = CollectorRegistry()
    with contextlib.closing(Fleet(parse_seconds(keep))) as fleet:
        registry.register(HeapCollector(fleet, label_pid=label_pid))
        if once:
            sys.stdout.write(generate_latest(registry).decode())
            return 0
        with contextlib.ExitStack() as stack:
            if otlp is not None:
                from heapsmith.show.telemetry import start_export

                stack.callback(start_export(fleet, otlp, parse_seconds(interval), _say).shutdown)
            _serve(registry, host, port)
            fleet.sample_every(_SAMPLE_S)
            _wait_for_the_end()
    return 0


def _serve(registry: CollectorRegistry, host: str, port: int) -> None:
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise HeapsmithError(
            f"metrics cannot be served at {host}:{port}",
            error.strerror or str(error),
            "choose another --port",
        ) from error
    except OverflowError as error:
        raise HeapsmithError(f"metrics cannot be served at port {port}", str(error)) from error
    _say(f"metrics at http://{host}:{server.server_port}/metrics (Ctrl-C ends it)")


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"heapsmith: {text}")


def _wait_for_the_end() -> None:
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    with contextlib.suppress(KeyboardInterrupt):
        ended.wait()

"""The same numbers for OpenTelemetry: observable instruments over all watched processes (the extra ``[otel]``)."""

from __future__ import annotations

import logging
import urllib.parse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from heapsmith.errors import HeapsmithError
from heapsmith.run.fleet import Fleet, Gauges

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

_LONGEST_EXPORT_S: Final = 10.0
Reading = tuple[float | None, dict[str, str]]
_GAUGES: Final[tuple[tuple[str, str, str, Callable[[Gauges], Iterable[Reading]]], ...]] = (
    (
        "heapsmith.memory.used",
        "By",
        "Bytes allocated and not yet freed.",
        lambda g: [(g.live_bytes, {}), *_pools(g)],
    ),
    (
        "heapsmith.memory.used.peak",
        "By",
        "The highest heapsmith.memory.used so far.",
        lambda g: [(g.live_bytes_peak, {})],
    ),
    (
        "heapsmith.memory.committed",
        "By",
        "Taken by the allocator from the system.",
        lambda g: [(g.told.get("committed_bytes"), {})],
    ),
    ("heapsmith.memory.resident", "By", "Resident bytes of the process.", lambda g: [(g.resident_bytes, {})]),
    (
        "heapsmith.memory.limit",
        "By",
        "The most that the heap can hold; omitted when there is no limit.",
        lambda g: [(g.limit.heap_bytes, {"heapsmith.limit.source": g.limit.source.value})] if g.limit else [],
    ),
)
_COUNTERS: Final[tuple[tuple[str, str, str, Callable[[Gauges], Iterable[Reading]]], ...]] = (
    ("heapsmith.memory.allocated", "By", "Bytes of all allocations.", lambda g: [(g.allocated_bytes, {})]),
    ("heapsmith.memory.allocations", "{allocation}", "Blocks handed out.", lambda g: [(g.allocations, {})]),
    (
        "heapsmith.memory.failures",
        "{failure}",
        "Allocations that gave NULL.",
        lambda g: [(count, {"heapsmith.failure.reason": reason}) for reason, count in g.failures.items()],
    ),
)


def _pools(gauges: Gauges) -> list[Reading]:
    return [
        (pool.live_bytes, {"heapsmith.pool.name": pool.name}) for pool in gauges.pools if not pool.in_heap
    ]


def register_instruments(meter: Meter, fleet: Fleet) -> None:
    """Make the instruments; each is read from the fleet when the SDK collects.

    Args:
        meter: Of the SDK's provider.
        fleet: Where the numbers come from.
    """
    from opentelemetry.metrics import CallbackOptions, Observation

    def observe(
        read: Callable[[Gauges], Iterable[Reading]],
    ) -> Callable[[CallbackOptions], list[Observation]]:
        def callback(_: CallbackOptions) -> list[Observation]:
            return [
                Observation(
                    value,
                    {
                        "process.executable.name": gauges.process,
                        "heapsmith.worker": str(gauges.worker),
                        **attributes,
                    },
                )
                for gauges in fleet.read()
                if gauges.ended is None
                for value, attributes in read(gauges)
                if value is not None
            ]

        return callback

    for name, unit, description, read in _GAUGES:
        make = (
            meter.create_observable_gauge
            if name.endswith("peak")
            else meter.create_observable_up_down_counter
        )
        make(name, [observe(read)], unit, description)
    for name, unit, description, read in _COUNTERS:
        meter.create_observable_counter(name, [observe(read)], unit, description)


def start_export(fleet: Fleet, endpoint: str, interval_s: float, say: Callable[[str], None]) -> Any:
    """Send the metrics to a collector by OTLP over HTTP until the answer's ``shutdown()``.

    Args:
        fleet: Where the numbers come from.
        endpoint: For example ``http://127.0.0.1:4318/v1/metrics``.
        interval_s: Between two exports, in seconds; an export that takes longer has failed.
        say: Told when the collector stops answering, and when it answers again.

    Raises:
        HeapsmithError: The extra is not installed, the endpoint is no address, or the interval is none.
    """
    address = urllib.parse.urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise HeapsmithError(
            f"{endpoint!r} is no address of a collector", hint="write http://HOST:4318/v1/metrics"
        )
    if interval_s <= 0:
        raise HeapsmithError("metrics cannot be sent every 0 s", hint="give --interval, for example 15s")
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
    except ImportError as error:
        raise HeapsmithError(
            "OpenTelemetry is not installed", str(error), "pip install 'heapsmith[otel]'"
        ) from error
    # Said here, in a sentence, and not with each export.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    answers = True

    class Exporter(OTLPMetricExporter):
        def export(self, *words: Any, **options: Any) -> MetricExportResult:
            nonlocal answers
            parent: Any = super()
            result = parent.export(*words, **options)
            if answers != (result is MetricExportResult.SUCCESS):
                answers = not answers
                say(f"{endpoint} {'takes metrics again' if answers else 'takes no metrics; trying on'}")
            return result

    reader = PeriodicExportingMetricReader(
        Exporter(endpoint=endpoint, timeout=min(interval_s, _LONGEST_EXPORT_S)),
        export_interval_millis=interval_s * 1000,
    )
    provider = MeterProvider(metric_readers=[reader])
    register_instruments(provider.get_meter("heapsmith"), fleet)
    return provider

"""The watched processes as metrics: one Prometheus endpoint, or OpenTelemetry, for all of them.

Series are labelled by ``process`` (its program or script) and ``worker`` (a small number, given anew when a worker is
replaced), so that a pre-fork service keeps as many series as it has workers; by ``pid`` only if asked.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import heapsmith
from heapsmith.run.fleet import Fleet, Gauges, GroupGauges


class Kind(enum.Enum):
    """Goes both ways, or only grows."""

    GAUGE = GaugeMetricFamily
    COUNTER = CounterMetricFamily


@dataclass(frozen=True)
class ProcessMetric:
    """A metric of each process.

    Args:
        name: As Prometheus has it, without the ``_total`` of counters.
        kind: Gauge or counter.
        help: One sentence for the exposition.
        read: From the gauges of a process to ``(further labels, value)``; nothing where it is unknown.
        labels: Names of the further labels.
    """

    name: str
    kind: Kind
    help: str
    read: Callable[[Gauges], Iterable[tuple[tuple[str, ...], float]]]
    labels: tuple[str, ...] = ()


def _known(value: float | None) -> list[tuple[tuple[str, ...], float]]:
    return [] if value is None else [((), float(value))]


def _told(field: str) -> Callable[[Gauges], list[tuple[tuple[str, ...], float]]]:
    return lambda gauges: _known(gauges.told.get(field))


def _limit(gauges: Gauges) -> list[tuple[tuple[str, ...], float]]:
    found = gauges.limit
    return [] if found is None else [((found.source.value, found.effect.value), float(found.heap_bytes))]


def _soft_limit(gauges: Gauges) -> list[tuple[tuple[str, ...], float]]:
    found = gauges.limit
    if found is None or found.soft_bytes is None or found.soft_source is None:
        return []
    return [((found.soft_source.value,), float(found.soft_bytes))]


PROCESS_METRICS: Final = (
    ProcessMetric(
        "heapsmith_heap_allocated_bytes",
        Kind.GAUGE,
        "Bytes allocated and not yet freed, as malloc_usable_size counts them.",
        lambda g: _known(g.live_bytes),
    ),
    ProcessMetric(
        "process_heap_bytes",
        Kind.GAUGE,
        "Process heap size in bytes: the standard name of heapsmith_heap_allocated_bytes.",
        lambda g: _known(g.live_bytes),
    ),
    ProcessMetric(
        "heapsmith_heap_allocated_peak_bytes",
        Kind.GAUGE,
        "The highest heapsmith_heap_allocated_bytes of the process so far.",
        lambda g: _known(g.live_bytes_peak),
    ),
    ProcessMetric(
        "heapsmith_heap_allocated_peak_recent_bytes",
        Kind.GAUGE,
        "The highest heapsmith_heap_allocated_bytes seen in the last minute (sampled).",
        lambda g: _known(g.recent_live_bytes_peak),
    ),
    ProcessMetric(
        "heapsmith_heap_limit_bytes",
        Kind.GAUGE,
        "The most that this heap can hold by the tightest hard bound; absent when there is none.",
        _limit,
        ("source", "effect"),
    ),
    ProcessMetric(
        "heapsmith_heap_soft_limit_bytes",
        Kind.GAUGE,
        "The lower of the warning threshold and what memory.high leaves to this heap; absent when there is none.",
        _soft_limit,
        ("source",),
    ),
    ProcessMetric(
        "heapsmith_heap_available_bytes",
        Kind.GAUGE,
        "How much more the tightest bound allows now.",
        lambda g: _known(g.limit.available_bytes if g.limit else None),
    ),
    ProcessMetric(
        "heapsmith_heap_largest_block_bytes",
        Kind.GAUGE,
        "The largest single request that is expected to succeed now.",
        lambda g: _known(g.largest_block_bytes),
    ),
    ProcessMetric(
        "heapsmith_heap_resident_bytes",
        Kind.GAUGE,
        "Resident bytes of the whole process, as the kernel says.",
        lambda g: _known(g.resident_bytes),
    ),
    ProcessMetric(
        "heapsmith_heap_committed_bytes",
        Kind.GAUGE,
        "Taken by the allocator from the system, as it told last; absent when nobody asked it.",
        _told("committed_bytes"),
    ),
    ProcessMetric(
        "heapsmith_heap_reserved_bytes",
        Kind.GAUGE,
        "Address space of the allocator, as it told last; absent when it does not tell.",
        _told("reserved_bytes"),
    ),
    ProcessMetric(
        "heapsmith_heap_metadata_bytes",
        Kind.GAUGE,
        "What the allocator needs for itself, as it told last; absent when it does not tell.",
        _told("metadata_bytes"),
    ),
    ProcessMetric(
        "heapsmith_heap_free_cached_bytes",
        Kind.GAUGE,
        "Committed and free, as the allocator told last; absent when it does not tell.",
        _told("free_cached_bytes"),
    ),
    ProcessMetric(
        "heapsmith_heap_mapped_bytes",
        Kind.GAUGE,
        "Anonymous memory that the program mapped itself, CPython's arenas included.",
        lambda g: _known(g.mapped_bytes),
    ),
    ProcessMetric("heapsmith_heap_blocks", Kind.GAUGE, "Live blocks.", lambda g: _known(g.live_blocks)),
    ProcessMetric(
        "heapsmith_heap_pool_bytes",
        Kind.GAUGE,
        "Live bytes of a private pool that the program registered.",
        lambda g: [((pool.name,), float(pool.live_bytes)) for pool in g.pools],
        ("pool",),
    ),
    ProcessMetric(
        "heapsmith_allocations", Kind.COUNTER, "Blocks handed out.", lambda g: _known(g.allocations)
    ),
    ProcessMetric("heapsmith_frees", Kind.COUNTER, "Blocks taken back.", lambda g: _known(g.frees)),
    ProcessMetric(
        "heapsmith_allocated_bytes",
        Kind.COUNTER,
        "Bytes of all allocations (estimated for blocks above 1 KiB).",
        lambda g: _known(g.allocated_bytes),
    ),
    ProcessMetric(
        "heapsmith_freed_bytes",
        Kind.COUNTER,
        "Bytes of all frees (estimated for blocks above 1 KiB).",
        lambda g: _known(g.freed_bytes),
    ),
    ProcessMetric(
        "heapsmith_allocation_failures",
        Kind.COUNTER,
        "Allocations that gave NULL: refused for heapsmith's limit, by the allocator, or because no heap could hold them.",
        lambda g: [((reason,), float(count)) for reason, count in g.failures.items()],
        ("reason",),
    ),
    ProcessMetric(
        "heapsmith_threshold_crossings",
        Kind.COUNTER,
        "Upward crossings of the warning threshold.",
        lambda g: [((str(g.warn_at_bytes),), float(g.warnings))] if g.warn_at_bytes else [],
        ("threshold",),
    ),
    ProcessMetric(
        "heapsmith_python_arena_bytes",
        Kind.GAUGE,
        "Mapped for CPython's small objects.",
        lambda g: _known(g.python_arena_bytes),
    ),
    ProcessMetric(
        "heapsmith_python_blocks",
        Kind.GAUGE,
        "Live objects of CPython's own allocator.",
        lambda g: _known(g.python_blocks),
    ),
)
"""One line for each metric of a process; the collector, OpenTelemetry, the tests and the docs read this table."""

GROUP_GAUGES: Final[dict[str, tuple[str, Callable[[GroupGauges], float | None]]]] = {
    "heapsmith_cgroup_memory_max_bytes": (
        "The cgroup's hard limit; absent when there is none.",
        lambda group: group.limits.get("max"),
    ),
    "heapsmith_cgroup_memory_high_bytes": (
        "Above this the kernel throttles the cgroup; absent when there is none.",
        lambda group: group.limits.get("high"),
    ),
    "heapsmith_cgroup_memory_current_bytes": (
        "Charged to the cgroup, page cache included.",
        lambda group: group.current_bytes,
    ),
    "heapsmith_cgroup_memory_working_set_bytes": (
        "Charged to the cgroup, without idle page cache.",
        lambda group: group.working_set_bytes,
    ),
}

METRIC_NAMES: Final = frozenset(
    {
        "heapsmith_info",
        "heapsmith_process_exit_info",
        "heapsmith_process_start_time_seconds",
        "heapsmith_cgroup_memory_events_total",
        "heapsmith_cgroup_memory_stall_seconds_total",
        *GROUP_GAUGES,
        *(metric.name + ("_total" if metric.kind is Kind.COUNTER else "") for metric in PROCESS_METRICS),
    }
)
"""Every name that a scrape may show."""


class HeapCollector(Collector):
    """A collector for `prometheus_client` over all watched processes.

    Args:
        fleet: Where the numbers come from.
        label_pid: Give each series the pid as well: one series for every process that ever was.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> registry = CollectorRegistry()
        >>> registry.register(HeapCollector(Fleet()))
    """

    def __init__(self, fleet: Fleet, *, label_pid: bool = False) -> None:
        self._fleet = fleet
        self._label_pid = label_pid

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: what there is depends on who runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read every process once and yield the families."""
        every = self._fleet.read()
        alive = [gauges for gauges in every if gauges.ended is None]
        yield self._info(alive)
        yield self._start_times(alive)
        for metric in PROCESS_METRICS:
            # The last values of what has ended would go on in sums: they are labels of its exit.
            family = metric.kind.value(metric.name, metric.help, labels=(*self._names, *metric.labels))
            for gauges in alive:
                for labels, value in metric.read(gauges):
                    family.add_metric((*self._labels(gauges), *labels), value)
            if family.samples:
                yield family
        yield self._exits([gauges for gauges in every if gauges.ended is not None])
        yield from _collect_groups(self._fleet.read_groups())

    @property
    def _names(self) -> tuple[str, ...]:
        return ("process", "worker", "pid") if self._label_pid else ("process", "worker")

    def _labels(self, gauges: Gauges) -> tuple[str, ...]:
        labels = (gauges.process, str(gauges.worker))
        return (*labels, str(gauges.pid)) if self._label_pid else labels

    def _info(self, alive: list[Gauges]) -> Metric:
        names = (*self._names, "version", "allocator", "mode", "count_unit")
        family = GaugeMetricFamily("heapsmith_info", "Who is watched, and how.", labels=names)
        for gauges in alive:
            family.add_metric(
                (*self._labels(gauges), heapsmith.__version__, gauges.allocator, "preload", "usable"), 1
            )
        return family

    def _start_times(self, alive: list[Gauges]) -> Metric:
        name = "heapsmith_process_start_time_seconds"
        family = GaugeMetricFamily(name, "Start time of the process, unix time.", labels=self._names)
        for gauges in alive:
            family.add_metric(self._labels(gauges), gauges.start_time_s)
        return family

    def _exits(self, ended: list[Gauges]) -> Metric:
        names = (
            *("process", "worker", "pid", "exit_code", "oom_killed"),
            *("allocated_bytes", "peak_bytes", "limit_bytes", "blocks", "failures"),
        )
        family = GaugeMetricFamily(
            "heapsmith_process_exit_info",
            "When a process ended (unix time), with its last values as labels; kept for a while.",
            labels=names,
        )
        for gauges in ended:
            if gauges.ended is None:
                continue
            values = (
                *(gauges.process, gauges.worker, gauges.pid, gauges.ended.code, gauges.ended.oom_killed),
                *(gauges.live_bytes, gauges.live_bytes_peak, gauges.limit_bytes, gauges.live_blocks),
                sum(gauges.failures.values()),
            )
            family.add_metric(tuple(_label(value) for value in values), gauges.ended.time_s)
        return family


def _label(value: Any) -> str:
    return "unknown" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _collect_groups(groups: list[GroupGauges]) -> Iterator[Metric]:
    for name, (help, read) in GROUP_GAUGES.items():
        family = GaugeMetricFamily(name, help, labels=("cgroup",))
        for group in groups:
            value = read(group)
            if value is not None:
                family.add_metric((group.name,), value)
        if family.samples:
            yield family
    events = CounterMetricFamily(
        "heapsmith_cgroup_memory_events", "How often the cgroup met its limits.", labels=("cgroup", "event")
    )
    stalls = CounterMetricFamily(
        "heapsmith_cgroup_memory_stall_seconds",
        "How long tasks of the cgroup have waited for memory (PSI).",
        labels=("cgroup", "kind"),
    )
    for group in groups:
        for event, count in group.events.items():
            events.add_metric((group.name, event), count)
        for kind, seconds in group.stall_seconds.items():
            stalls.add_metric((group.name, kind), seconds)
    yield from (family for family in (events, stalls) if family.samples)


def read_dashboard() -> str:
    """The Grafana dashboard, as JSON."""
    return (resources.files("heapsmith.show") / "grafana" / "dashboard.json").read_text()


def read_alerts() -> str:
    """The alert rules for Prometheus, as YAML."""
    return (resources.files("heapsmith.show") / "grafana" / "alerts.yml").read_text()

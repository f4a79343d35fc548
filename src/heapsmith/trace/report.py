"""A report as a value: processes, one tree of named stacks, the places that matter, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.trace.analysis import DOUBLINGS, MOMENTS, analyse, check_readable
from heapsmith.trace.caches import CacheRules
from heapsmith.trace.event_pass import Progress, stacks_are_sampled
from heapsmith.trace.findings import Finding, find
from heapsmith.trace.layout import FrameKind
from heapsmith.trace.places import Forest, NameFrames
from heapsmith.trace.process_figures import Floats, Integers, Places, ProcessFigures
from heapsmith.trace.reader import Damage, Trace
from heapsmith.trace.records import Manifest
from heapsmith.trace.sites import Site, find_sites, judge_forest

MEASURES: Final = (
    "live_bytes_at_peak",
    "live_bytes_at_exit",
    "allocated_bytes",
    "temporary_bytes",
    "allocations",
    "temporary_allocations",
)
_TAKES_DOWN: Final = ("Py_FinalizeEx", "Py_Finalize", "finalize_modules", "wait_for_thread_shutdown")


@dataclass(slots=True)
class ReportedProcess:
    """A process of the report.

    Attributes:
        trace: Index of its trace.
        figures: Of its pass.
        node: Node of each row of ``figures.places``.
        sites: Its places, by what they held at the peak, allocated or left behind.
    """

    trace: int
    figures: ProcessFigures
    node: NDArray[np.int64]
    sites: list[Site]

    @property
    def places(self) -> Places:
        """The figures of its distinct stacks."""
        assert self.figures.places is not None
        return self.figures.places


@dataclass(slots=True)
class Report:
    """Everything that a view of some traces shows."""

    paths: list[str]
    manifests: list[Manifest]
    damages: list[Damage | None]
    complete: list[bool]
    """Whether each trace ends as a recording that ended well."""
    forest: Forest
    processes: list[ReportedProcess]
    findings: list[Finding]
    events: int
    dropped_events: int
    unnamed_modules: dict[str, str]
    totals_exact: bool
    """False where only a sample of the allocations was recorded."""

    @property
    def sampled(self) -> bool:
        """Whether figures are estimates."""
        return any(manifest.sample_every_bytes is not None for manifest in self.manifests)


def build_report(
    traces: Sequence[Trace],
    name_frames: NameFrames,
    rules: CacheRules,
    *,
    executor: Executor | None = None,
    class_bytes: Sequence[int | None] = DOUBLINGS,
    moments: int = MOMENTS,
    on_events: Progress | None = None,
) -> Report:
    """Analyse traces, name their stacks, and find out what a person should know.

    Args:
        traces: Open traces; several of them (a fleet) become one report.
        name_frames: Gives frames names, for example `heapsmith.symbols.FrameNames`.
        rules: What is kept on purpose.
        executor: As in `analyse`.
        class_bytes: As in `analyse`.
        moments: As in `analyse`.
        on_events: As in `analyse`.

    Raises:
        TraceError: A trace holds no process.
    """
    check_readable(traces)
    analysed = analyse(
        traces,
        executor=executor,
        class_bytes=class_bytes,
        moments=moments,
        ending_stacks=[find_ending_stacks(trace, name_frames) for trace in traces],
        on_events=on_events,
    )
    forest = Forest()
    nodes_of: list[NDArray[np.int64]] = []
    for trace, figures_of in zip(traces, analysed, strict=True):
        asked = [figures.places.stack for figures in figures_of if figures.places is not None]
        stacks: Integers = np.concatenate(asked) if asked else np.zeros(0, np.int64)
        nodes_of.append(forest.add_trace(trace, stacks, name_frames))
    of_forest = judge_forest(forest, rules)
    processes: list[ReportedProcess] = []
    for index, (node_of, figures_of) in enumerate(zip(nodes_of, analysed, strict=True)):
        for figures in figures_of:
            assert figures.places is not None
            node = node_of[figures.places.stack]
            sites = find_sites(forest, figures, node, len(processes), of_forest)
            processes.append(ReportedProcess(index, figures, node, sites))
    findings = [
        finding
        for place, process in enumerate(processes)
        for finding in find(place, process.figures, process.sites)
    ]
    largest = sorted(range(len(processes)), key=lambda place: -processes[place].figures.live_bytes_peak)
    rank = {place: order for order, place in enumerate(largest)}
    findings.sort(key=lambda finding: rank[finding.process])
    return Report(
        paths=[str(trace.path) for trace in traces],
        manifests=[trace.manifest for trace in traces],
        damages=[trace.damage for trace in traces],
        complete=[trace.end is not None for trace in traces],
        forest=forest,
        processes=processes,
        findings=findings,
        events=sum(trace.events for trace in traces),
        dropped_events=sum(trace.dropped_events for trace in traces),
        unnamed_modules=dict(getattr(name_frames, "problems", {})),
        totals_exact=all(
            trace.manifest.sample_every_bytes is None or stacks_are_sampled(trace) for trace in traces
        ),
    )


def find_ending_stacks(trace: Trace, name_frames: NameFrames) -> NDArray[np.bool_]:
    """Tell for each stack of a trace whether CPython is taking itself down in it.

    Args:
        trace: The open trace.
        name_frames: Gives frames names; without names nothing is told.
    """
    frames = trace.frames
    ending = np.zeros(len(trace.stacks), np.bool_)
    if not (frames["kind"] == FrameKind.PYTHON).any():
        return ending
    native = np.flatnonzero(frames["kind"] == FrameKind.NATIVE).tolist()
    names = name_frames(trace, native)
    takes_down = np.zeros(len(frames) + 1, np.bool_)
    for frame, labels in names.items():
        takes_down[frame] = any(label.function.startswith(_TAKES_DOWN) for label in labels)
    own = takes_down[np.minimum(trace.stacks["frame"], len(frames))]
    if not own.any():
        return ending
    parents: list[int] = trace.stacks["parent"].tolist()
    for stack, (parent, is_own) in enumerate(zip(parents, own.tolist(), strict=True)):
        ending[stack] = is_own or (parent < stack and bool(ending[parent]))
    return ending


def total_time_line(
    processes: Sequence[ReportedProcess], points: int = 1000
) -> tuple[Floats, Floats, Floats]:
    """Live bytes of processes together, at even times.

    Args:
        processes: Of one trace: the times of several traces have nothing to do with each other.
        points: How many times.

    Returns:
        Times in s since the start of the trace, the sum of live bytes then, and the sum of mapped bytes, each (points,).
    """
    lines = [
        (process.figures, process.figures.time_line) for process in processes if process.figures.time_line
    ]
    start = min((figures.start_s for figures, _ in lines), default=0.0)
    end = max((figures.end_s for figures, _ in lines), default=0.0)
    times = np.linspace(start, max(end, start), points + 1)[1:]
    live, mapped = np.zeros(points), np.zeros(points)
    for figures, line in lines:
        assert line is not None
        place = np.searchsorted(line.ends_s, times + 1e-12, side="right") - 1
        known = (place >= 0) & (times <= figures.end_s + 1e-9)
        live[known] += line.live_bytes[place[known]]
        mapped[known] += line.mapped_bytes[place[known]]
    return times, live, mapped


def node_values(report: Report, process: int, measure: str, *, mapped: bool = False) -> Floats:
    """What each node of the tree holds by itself in one process.

    Args:
        report: The report.
        process: Index in it.
        measure: One of `MEASURES`.
        mapped: Of mappings, not of blocks.

    Returns:
        Shape (n_nodes,), without what is below.
    """
    chosen = report.processes[process]
    rows = chosen.places.mapped == mapped
    weights: Floats = getattr(chosen.places, measure)[rows]
    return np.bincount(chosen.node[rows], weights, len(report.forest.parents)).astype(np.float64)


def moment_values(report: Report, process: int) -> list[tuple[Integers, Floats]]:
    """For each moment the nodes that hold something else than before, and by how many bytes more or less."""
    chosen = report.processes[process]
    moments = chosen.figures.moments
    if moments is None:
        return []
    held = np.zeros(len(chosen.node))
    heap = ~chosen.places.mapped
    changes: list[tuple[Integers, Floats]] = []
    for rows, values in zip(moments.place, moments.live_bytes, strict=True):
        kept = heap[rows]
        rows, values = rows[kept], values[kept]
        changes.append((chosen.node[rows], values - held[rows]))
        held[rows] = values
    return changes

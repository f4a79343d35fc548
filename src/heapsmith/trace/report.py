"""A report as a value: processes, one tree of named stacks, the places that matter, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.trace.analysis import DOUBLINGS, MOMENTS, analyse, check_readable
from heapsmith.trace.caches import CacheRules
from heapsmith.trace.event_pass import Progress, stacks_are_sampled
from heapsmith.trace.layout import FrameKind
from heapsmith.trace.places import NO_STACK, Forest, Label, NameFrames
from heapsmith.trace.process_figures import Floats, Integers, Places, ProcessFigures
from heapsmith.trace.reader import Damage, Trace
from heapsmith.trace.records import Manifest
from heapsmith.units import KiB, MiB

MEASURES: Final = (
    "live_bytes_at_peak",
    "live_bytes_at_exit",
    "allocated_bytes",
    "temporary_bytes",
    "allocations",
    "temporary_allocations",
)
_TELLING_SHARE: Final = 0.05
_TAKES_DOWN: Final = ("Py_FinalizeEx", "Py_Finalize", "finalize_modules", "wait_for_thread_shutdown")
_SPIKE_RATIO: Final = 2.0
_SPIKE_BYTES: Final = 4 * MiB
_SPIKE_TIME_SHARE: Final = 0.25
_STORM_SHARE: Final = 0.3
_STORM_PLACE_SHARE: Final = 0.4
_STORM_ALLOCATIONS: Final = 10_000
_STEPS: Final = 20
_GROWTH_BYTES: Final = 256 * KiB
_RESIDENT_RATIO: Final = 1.5
_RESIDENT_SHARE: Final = 0.4
_RESIDENT_BYTES: Final = 8 * MiB
_SLACK_SHARE: Final = 0.2


@dataclass(slots=True)
class Site:
    """A place in the source (or what else is known of it), with all the stacks that end there.

    Attributes:
        label: Its function, file and line.
        mapped: It made mappings, not blocks.
        node: The node of its heaviest stack (the whole one: `Forest.path` leads from the innermost frame outwards).
        process: Index of the process in the report.
        cache: Name of the known cache it is; None where it is none.
        growing: It held more and more over the whole run.
    """

    label: Label
    mapped: bool
    node: int
    process: int
    allocations: float = 0.0
    allocated_bytes: float = 0.0
    live_bytes_at_peak: float = 0.0
    live_blocks_at_peak: float = 0.0
    live_bytes_at_exit: float = 0.0
    live_blocks_at_exit: float = 0.0
    temporary_allocations: float = 0.0
    temporary_bytes: float = 0.0
    live_bytes_peak: float = 0.0
    """At most; the sum of its stacks' own peaks."""
    lifetime_s: float | None = None
    live_bytes_at_peak_error: float = 0.0
    live_bytes_at_exit_error: float = 0.0
    allocated_bytes_error: float = 0.0
    stacks: int = 0
    growing: bool = False
    cache: str | None = None
    course: Floats = field(default_factory=lambda: np.zeros(0))
    """Live bytes at the moments of the trace, shape (m,)."""

    @property
    def grew_and_stayed(self) -> bool:
        """It grew, and at the end half of what it had held and more was still there."""
        return self.growing and self.live_bytes_at_exit >= float(self.course.max(initial=0.0)) / 2


@dataclass(slots=True)
class Finding:
    """One thing that a person should know, most important first.

    Attributes:
        kind: ``peak``, ``leak``, ``growth``, ``spike``, ``churn``, ``fragmentation``, ``slack`` or ``clean``.
        process: Index of the process in the report.
        sites: The places it is about, the heaviest first.
        figures: What is said of it, by name.
    """

    kind: str
    process: int
    sites: list[Site]
    figures: dict[str, float]


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
    of_forest = _judge_forest(forest, rules)
    processes: list[ReportedProcess] = []
    for index, (node_of, figures_of) in enumerate(zip(nodes_of, analysed, strict=True)):
        for figures in figures_of:
            assert figures.places is not None
            node = node_of[figures.places.stack]
            sites = _find_sites(forest, figures, node, len(processes), of_forest)
            processes.append(ReportedProcess(index, figures, node, sites))
    findings = [
        finding
        for place, process in enumerate(processes)
        for finding in _find(place, process.figures, process)
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


@dataclass(frozen=True, slots=True)
class _OfForest:
    """Of each node: its site, and the number of the cache's name that its stack falls under."""

    site: Integers
    cache: Integers
    names: list[str | None]


def _judge_forest(forest: Forest, rules: CacheRules) -> _OfForest:
    found = rules.find(forest)
    names = [None, *dict.fromkeys(name for name in found if name is not None)]
    number = {name: place for place, name in enumerate(names)}
    return _OfForest(forest.sites(), np.array([number[name] for name in found], np.int64), names)


def _find_sites(
    forest: Forest, figures: ProcessFigures, nodes: NDArray[np.int64], process: int, of_forest: _OfForest
) -> list[Site]:
    places = figures.places
    assert places is not None
    labels = np.array(forest.label_of, np.int64)[of_forest.site]
    key = (labels * len(of_forest.names) + of_forest.cache)[nodes] * 2 + places.mapped
    keys, first, site_of_row = np.unique(key, return_index=True, return_inverse=True)
    sites = [
        Site(
            forest.labels[labels[node]],
            bool(number & 1),
            node,
            process,
            cache=of_forest.names[of_forest.cache[node]],
        )
        for number, node in zip(keys.tolist(), nodes[first].tolist(), strict=True)
    ]
    for name in _ADDED:
        sums: list[float] = np.bincount(site_of_row, getattr(places, name), len(sites)).tolist()
        for site, value in zip(sites, sums, strict=True):
            setattr(site, name, value)
    held = np.maximum(places.live_bytes_at_peak, places.live_bytes_at_exit)
    order = np.argsort(np.maximum(held, places.allocated_bytes * 1e-6), kind="stable")
    heaviest = np.zeros(len(sites), np.int64)
    heaviest[site_of_row[order]] = order  # of several the last one stays: the heaviest
    for site, row, stacks in zip(
        sites, heaviest.tolist(), np.bincount(site_of_row, minlength=len(sites)).tolist(), strict=True
    ):
        site.node, site.stacks = int(nodes[row]), stacks
    _add_errors(places, site_of_row, sites)
    _add_courses(figures, site_of_row, sites)
    return sorted(sites, key=lambda s: (-max(s.live_bytes_at_peak, s.live_bytes_at_exit), -s.allocated_bytes))


_ADDED: Final = (
    "allocations",
    "allocated_bytes",
    "live_bytes_at_peak",
    "live_blocks_at_peak",
    "live_bytes_at_exit",
    "live_blocks_at_exit",
    "temporary_allocations",
    "temporary_bytes",
    "live_bytes_peak",
)


def _add_errors(places: Places, site_of_row: Integers, sites: list[Site]) -> None:
    """Errors of independent estimates add up as squares; lifetimes as means weighed by blocks."""
    for name in ("live_bytes_at_peak_error", "live_bytes_at_exit_error", "allocated_bytes_error"):
        squares: Floats = np.square(getattr(places, name))
        if squares.any():
            for site, square in zip(
                sites, np.bincount(site_of_row, squares, len(sites)).tolist(), strict=True
            ):
                setattr(site, name, square**0.5)
    died = np.where(np.isfinite(places.lifetime_s), places.allocations - places.live_blocks_at_exit, 0.0)
    died = np.maximum(died, np.where(np.isfinite(places.lifetime_s), 1e-9, 0.0))
    lived = np.where(died > 0, places.lifetime_s, 0.0) * died
    blocks = np.bincount(site_of_row, died, len(sites))
    totals = np.bincount(site_of_row, lived, len(sites))
    for site, total, count in zip(sites, totals.tolist(), blocks.tolist(), strict=True):
        site.lifetime_s = total / count if count > 0 else None


def _add_courses(figures: ProcessFigures, site_of_row: Integers, sites: list[Site]) -> None:
    """What each place held over time, from the changes of its stacks; and whether it only ever grew."""
    moments = figures.moments
    if moments is None or not len(moments.times_s):
        return
    held = np.zeros(len(site_of_row))
    by_site = np.zeros(len(sites))
    course = np.zeros((len(moments.times_s), len(sites)), np.float32)
    for moment, (rows, values) in enumerate(zip(moments.place, moments.live_bytes, strict=True)):
        np.add.at(by_site, site_of_row[rows], values - held[rows])
        held[rows] = values
        course[moment] = by_site
    alive = (moments.times_s >= figures.start_s) & (moments.times_s <= figures.exit_s)
    for place, site in enumerate(sites):
        site.course = course[:, place].astype(np.float64)
        site.growing = _is_growing(site.course[alive], figures)


def _is_growing(course: Floats, figures: ProcessFigures) -> bool:
    """It grew step by step from its first block to its peak, for a part of the run that tells, and never fell far.

    Steps are counted, not measured: a program that waits in between grows all the same.
    """
    held = np.flatnonzero(course > 0)
    highest = int(np.argmax(course)) if len(course) else 0
    if not len(held) or highest - held[0] < max(_STEPS, 0.15 * len(course)):
        return False
    levels = np.array([float(part[-1]) for part in np.array_split(course[held[0] : highest + 1], _STEPS)])
    rises = np.diff(levels, prepend=0.0)
    total = float(levels[-1])
    if total < max(_GROWTH_BYTES, 0.01 * figures.live_bytes_peak):
        return False
    steps = np.flatnonzero(rises > 0.01 * total)
    return (
        len(steps) >= _STEPS / 3
        and int(steps[-1]) >= 0.8 * _STEPS
        and float(rises.max()) <= 0.5 * total
        and 0.15 <= float(levels[_STEPS // 2]) / total <= 0.85
    )


def _find(place: int, figures: ProcessFigures, process: ReportedProcess) -> list[Finding]:
    found: list[Finding] = []
    sites = [site for site in process.sites if not site.mapped]
    peak = figures.live_bytes_peak
    if not figures.allocations:
        return [Finding("empty", place, [], {})]
    by_peak = _heaviest(sites, "live_bytes_at_peak", peak)
    found.append(
        Finding(
            "peak",
            place,
            by_peak,
            {
                "bytes": peak,
                "at_s": figures.live_bytes_peak_at_s - figures.start_s,
                "blocks": figures.live_blocks_at_peak,
                "error_bytes": figures.live_bytes_peak_error,
            },
        )
    )
    leaks = _find_leaks(place, figures, process.sites)
    found += leaks
    # What grew and stayed is told as a leak, with its rate.
    told = {id(site) for leak in leaks for site in leak.sites if site.grew_and_stayed}
    found += _find_growth(place, figures, [site for site in process.sites if id(site) not in told])
    found += _find_spike(place, figures, process)
    found += _find_storm(place, figures, sites)
    found += _find_fragmentation(place, figures, process.sites)
    return found


def _heaviest(sites: Sequence[Site], name: str, whole: float, count: int = 3) -> list[Site]:
    ranked = sorted(sites, key=lambda site: -getattr(site, name))[:count]
    return [
        site for site in ranked if getattr(site, name) > _TELLING_SHARE * whole and site.label != NO_STACK
    ]


def _find_leaks(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    heap = [site for site in sites if not site.mapped]
    left = [site for site in heap if site.cache is None and site.live_bytes_at_exit > 0]
    total = sum(site.live_bytes_at_exit for site in left)
    heaviest = _heaviest(left, "live_bytes_at_exit", total)
    growing = [site for site in heaviest if site.grew_and_stayed]
    cached = sum(site.live_bytes_at_exit for site in heap if site.cache is not None)
    return [
        Finding(
            "leak",
            place,
            heaviest,
            {
                "bytes": total,
                "still_s": _still_s(growing[0], figures) if growing else 0.0,
                "cached_bytes": cached,
                "share": total / figures.live_bytes_peak if figures.live_bytes_peak else 0.0,
                "blocks": sum(site.live_blocks_at_exit for site in left),
                "error_bytes": figures.live_bytes_at_exit_error,
                "duration_s": figures.duration_s,
            },
        )
    ]


def _still_s(site: Site, figures: ProcessFigures) -> float:
    """How long before the exit a place made the last hundredth of what it held at most."""
    assert figures.moments is not None
    whole = int(np.argmax(site.course > 0.99 * float(site.course.max(initial=0.0))))
    return max(0.0, figures.exit_s - float(figures.moments.times_s[whole]))


def _find_growth(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    growing = [site for site in sites if site.growing and site.cache is None]
    growing.sort(key=lambda site: -float(site.course.max(initial=0.0)))
    if not growing:
        return []
    highest = float(growing[0].course.max())
    if growing[0].label == NO_STACK:
        return []
    rate = highest / figures.duration_s if figures.duration_s > 0 else 0.0
    return [Finding("growth", place, growing[:3], {"bytes": highest, "bytes_per_s": rate})]


def _find_spike(place: int, figures: ProcessFigures, process: ReportedProcess) -> list[Finding]:
    line = figures.time_line
    if line is None or not figures.live_bytes_peak:
        return []
    usual = float(np.median(line.live_bytes))
    high = float(np.mean(line.live_bytes_highest > (usual + figures.live_bytes_peak) / 2))
    # What is high until the program ends is no spike: what is left after it is only the taking down.
    before_exit = (line.ends_s <= figures.exit_s) & (line.ends_s <= figures.end_s - 0.03 * figures.duration_s)
    middle = (usual + figures.live_bytes_peak) / 2
    over = bool(before_exit.any()) and float(line.live_bytes[before_exit][-1]) < middle
    least = max(_SPIKE_RATIO * usual, usual + _SPIKE_BYTES)
    if figures.live_bytes_peak < least or high > _SPIKE_TIME_SHARE or not over:
        return []
    before = line.ends_s[(line.live_bytes_highest < middle) & (line.ends_s < figures.live_bytes_peak_at_s)]
    since_s = float(before[-1]) if len(before) else figures.start_s
    times = figures.moments.times_s if figures.moments else np.zeros(0)
    moment = int(np.searchsorted(times, since_s, side="right")) - 1
    sites = [site for site in process.sites if not site.mapped]
    gained = {
        id(site): site.live_bytes_at_peak - (float(site.course[moment]) if moment >= 0 else 0.0)
        for site in sites
    }
    ranked = sorted(sites, key=lambda site: -gained[id(site)])[:3]
    rise = figures.live_bytes_peak - usual
    told = [site for site in ranked if gained[id(site)] > _TELLING_SHARE * rise]
    said = {
        "bytes": figures.live_bytes_peak,
        "usual_bytes": usual,
        "at_s": figures.live_bytes_peak_at_s - figures.start_s,
        "lasting_s": high * figures.duration_s,
    }
    return [Finding("spike", place, told, said)]


def _find_storm(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    own = [site for site in sites if site.cache is None]
    temporary = sum(site.temporary_allocations for site in own)
    share = temporary / max(1.0, sum(site.allocations for site in own))
    told = _heaviest(own, "temporary_allocations", temporary)
    if temporary < _STORM_ALLOCATIONS or share < _STORM_SHARE:
        return []
    # Every program makes temporary blocks here and there; a storm has a place, where places are known.
    heaviest = told[0].temporary_allocations if told else 0.0
    if heaviest < _STORM_PLACE_SHARE * temporary and any(site.label != NO_STACK for site in own):
        return []
    said = {
        "temporary_allocations": temporary,
        "share": share,
        "churn": figures.churn or 0.0,
        "allocated_bytes": figures.allocated_bytes,
    }
    return [Finding("churn", place, told, said)]


def _find_fragmentation(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    found: list[Finding] = []
    held = external_fragmentation(figures)
    if held is not None and len(held):
        times_s, resident, explained = held[:, 0], held[:, 1], held[:, 2]
        # Only what was live before and is free now can be a matter of fragmentation; the rest is code, stacks and the like.
        line = figures.time_line
        assert line is not None
        accumulate: Any = np.maximum.accumulate
        highest: Floats = accumulate(line.usable_live_bytes)
        place_in_line = np.minimum(np.searchsorted(line.ends_s, times_s), len(line.ends_s) - 1)
        extra = np.minimum(resident, highest[place_in_line]) - explained
        # The first look of all may be before anything was counted; and at the end everybody frees without giving back.
        later = times_s > figures.start_s + 0.1 * figures.duration_s
        later &= times_s < min(figures.exit_s, figures.end_s - 0.03 * figures.duration_s)
        if later.any():
            worst = int(np.argmax(np.where(later, extra, -np.inf)))
            least = max(_RESIDENT_BYTES, _RESIDENT_SHARE * figures.usable_live_bytes_peak)
            if extra[worst] > least and resident[worst] > _RESIDENT_RATIO * explained[worst]:
                moment_sites = _live_at(figures, sites, float(times_s[worst]))
                found.append(
                    Finding(
                        "fragmentation",
                        place,
                        moment_sites,
                        {
                            "at_s": float(times_s[worst]) - figures.start_s,
                            "resident_bytes": float(resident[worst]),
                            "live_bytes": float(explained[worst]),
                        },
                    )
                )
    slack = figures.internal_fragmentation
    if slack is not None and slack > _SLACK_SHARE and figures.usable_live_bytes_at_peak > MiB:
        found.append(
            Finding(
                "slack",
                place,
                [],
                {"share": slack, "bytes": figures.usable_live_bytes_at_peak - figures.live_bytes_peak},
            )
        )
    return found


def _live_at(figures: ProcessFigures, sites: Sequence[Site], time_s: float) -> list[Site]:
    if figures.moments is None or not len(figures.moments.times_s):
        return []
    moment = min(int(np.searchsorted(figures.moments.times_s, time_s)), len(figures.moments.times_s) - 1)
    ranked = sorted(
        (site for site in sites if not site.mapped), key=lambda site: -float(site.course[moment])
    )[:3]
    whole = sum(float(site.course[moment]) for site in ranked)
    return [site for site in ranked if whole and site.course[moment] > 0.1 * whole]


def external_fragmentation(figures: ProcessFigures) -> Floats | None:
    """Resident anonymous bytes against what is live, as the recorder saw it.

    Returns:
        Shape (n, 3): time in s since the start of the trace, anonymous resident bytes, usable live and mapped bytes; None
        where the recorder did not look. CPython's arenas are mappings, so objects in them are not counted twice.
    """
    memory, line = figures.memory, figures.time_line
    if memory is None or line is None or not len(memory) or not len(line.ends_s):
        return None
    times_s = memory["time_ns"].astype(np.float64) * 1e-9
    place = np.minimum(np.searchsorted(line.ends_s, times_s), len(line.ends_s) - 1)
    live = line.usable_live_bytes[place]
    resident = memory["anonymous_bytes"].astype(np.float64)
    resident = np.where(resident > 0, resident, memory["resident_bytes"].astype(np.float64))
    return np.stack([times_s, resident, live], axis=1)


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

"""Places in the source: the stacks that end at one place added up, with what it held over time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.trace.caches import CacheRules
from heapsmith.trace.places import Forest, Label
from heapsmith.trace.process_figures import Floats, Integers, Places, ProcessFigures
from heapsmith.units import KiB

_STEPS: Final = 20
_GROWTH_BYTES: Final = 256 * KiB


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


@dataclass(frozen=True, slots=True)
class OfForest:
    """Of each node: its site, and the number of the cache's name that its stack falls under."""

    site: Integers
    cache: Integers
    names: list[str | None]


def judge_forest(forest: Forest, rules: CacheRules) -> OfForest:
    """Tell for each node of a tree of stacks to which site and under which cache it falls."""
    found = rules.find(forest)
    names = [None, *dict.fromkeys(name for name in found if name is not None)]
    number = {name: place for place, name in enumerate(names)}
    return OfForest(forest.sites(), np.array([number[name] for name in found], np.int64), names)


def find_sites(
    forest: Forest, figures: ProcessFigures, nodes: NDArray[np.int64], process: int, of_forest: OfForest
) -> list[Site]:
    """Add up the stacks of a process by the site they end at.

    Args:
        forest: The tree of named stacks.
        figures: Of the pass over the process.
        nodes: Node of each row of ``figures.places``.
        process: Its index in the report.
        of_forest: As `judge_forest` found.

    Returns:
        Those first that held most at the peak or at the exit.
    """
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

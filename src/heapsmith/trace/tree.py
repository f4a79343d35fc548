"""The tree of stacks as a page can show it: the parts that can be seen, and honest sums of those that cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.trace.places import with_callers
from heapsmith.trace.process_figures import Floats, Integers
from heapsmith.trace.report import Report, moment_values, node_values

SHOWN: Final = (
    "live_bytes_at_peak",
    "live_bytes_at_exit",
    "allocated_bytes",
    "temporary_bytes",
    "allocations",
)
_MOST_TREES: Final = 40
_UNSEEN: Final = 1 / 20_000
"""A change of less than this share of the peak waits until it is more: less than a tenth of a pixel."""


@dataclass(slots=True)
class ShownTree:
    """Nodes of all processes in one tree; every column has shape (n,). Node 0 is the root.

    A node is a process (a child of the root), a frame, or the sum of frames too small to be seen.
    """

    parent: list[int] = field(default_factory=lambda: [-1])
    label: list[int] = field(default_factory=lambda: [-1])
    """Of the report's forest; -1 where it is none."""
    process: list[int] = field(default_factory=lambda: [-1])
    hidden: list[int] = field(default_factory=lambda: [0])
    """How many nodes the sum stands for; 0 where the node is itself."""
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Of each of `SHOWN`, with all that is below."""
    times_s: list[float] = field(default_factory=list[float])
    changes: list[tuple[list[int], list[float]]] = field(default_factory=list[tuple[list[int], list[float]]])
    """For each moment the nodes whose live bytes changed visibly since they were last told, and by how much."""
    processes_left_out: int = 0


def build_tree(report: Report, most_nodes: int = 12_000) -> ShownTree:
    """Choose what can be seen.

    Args:
        report: The report.
        most_nodes: About how many nodes to keep; those with the largest share of any measure or moment are.
    """
    from heapsmith.trace.kernel import include

    ranked = sorted(
        range(len(report.processes)),
        key=lambda place: (
            -max(
                report.processes[place].figures.live_bytes_peak,
                1e-6 * report.processes[place].figures.allocated_bytes,
            )
        ),
    )
    chosen = ranked[:_MOST_TREES]
    forest_parents = np.array(report.forest.parents, np.int64)
    wholes = [
        max(1.0, max(float(getattr(report.processes[place].places, name).sum()) for place in chosen))
        for name in SHOWN
    ] if chosen else []  # fmt: skip
    parts = [_part(report, place, forest_parents, wholes, include) for place in chosen]
    scores = np.concatenate([part.score for part in parts]) if parts else np.zeros(0)
    threshold = 0.0
    if len(scores) > most_nodes:
        threshold = float(np.partition(scores, len(scores) - most_nodes)[len(scores) - most_nodes])
    tree = ShownTree(values={name: [0.0] for name in SHOWN}, processes_left_out=len(ranked) - len(chosen))
    changes: dict[int, tuple[list[int], list[float]]] = {}
    for part in parts:
        _add_part(report, part, tree, threshold, changes, include)
    for name in SHOWN:
        roots = [value for value, parent in zip(tree.values[name], tree.parent, strict=True) if parent == 0]
        tree.values[name][0] = sum(roots)
    moments = next((p.figures.moments for p in report.processes if p.figures.moments is not None), None)
    if moments is not None and len(report.paths) == 1:
        tree.times_s = moments.times_s.tolist()
        tree.changes = [changes.get(moment, ([], [])) for moment in range(len(moments.times_s))]
    return tree


@dataclass(slots=True)
class _Part:
    process: int
    nodes: Integers
    """Of the forest, rising; the first is the root."""
    parents: Integers
    """Within `nodes`."""
    values: Floats
    """Shape (n, len(SHOWN)), with all that is below."""
    changes: list[tuple[Integers, Floats]]
    """Own live bytes, as places in `nodes`."""
    score: Floats


def _part(
    report: Report, process: int, forest_parents: Integers, wholes: list[float], include: object
) -> _Part:
    chosen = report.processes[process]
    used = np.zeros(len(forest_parents), np.bool_)
    used[chosen.node[~chosen.places.mapped]] = True
    used = with_callers(forest_parents, used)
    used[0] = True
    nodes = np.flatnonzero(used)
    place_of = np.cumsum(used) - 1
    parents = place_of[forest_parents[nodes]]
    own = np.stack([node_values(report, process, name)[nodes] for name in SHOWN], axis=1)
    values = np.ascontiguousarray(own)
    include(parents, values)  # type: ignore[operator]
    changes = [(place_of[rows], deltas) for rows, deltas in moment_values(report, process)]
    highest = np.zeros(len(nodes))
    held = np.zeros((len(nodes), 1))
    for rows, deltas in changes:
        if not len(rows):
            continue
        np.add.at(held[:, 0], rows, deltas)
        whole = held.copy()
        include(parents, whole)  # type: ignore[operator]
        np.maximum(highest, whole[:, 0], out=highest)
    score = np.max(values / np.array(wholes), axis=1, initial=0.0)
    score = np.maximum(score, highest / wholes[0])
    # No child shows more than its parent, so that whatever is kept is a tree.
    return _Part(process, nodes, parents, values, changes, score)


def _add_part(
    report: Report,
    part: _Part,
    tree: ShownTree,
    threshold: float,
    all_changes: dict[int, tuple[list[int], list[float]]],
    include: object,
) -> None:
    kept = (part.score >= threshold) & (part.score > 0)
    kept[0] = True
    first = len(tree.parent)
    shown_of = np.full(len(part.nodes), -1, np.int64)
    places = np.flatnonzero(kept)
    shown_of[places] = first + np.arange(len(places))
    parent_of = shown_of[part.parents[places]]
    tree.parent += [0, *parent_of[1:].tolist()]
    labels: list[int] = [report.forest.label_of[node] for node in part.nodes[places].tolist()]
    tree.label += [-1, *labels[1:]]
    tree.process += [part.process] * len(places)
    tree.hidden += [0] * len(places)
    # A dropped node below a kept one goes into the sum of that one's small children.
    dropped = np.flatnonzero(~kept)
    edge = dropped[kept[part.parents[dropped]]]
    owners, inverse = np.unique(part.parents[edge], return_inverse=True)
    small = len(tree.parent) + np.arange(len(owners))
    shown_of[edge] = small[inverse]
    below = np.zeros((len(part.nodes), 1))
    below[dropped] = 1
    include(part.parents, below)  # type: ignore[operator]
    tree.parent += shown_of[owners].tolist()
    tree.label += [-1] * len(owners)
    tree.process += [part.process] * len(owners)
    counts = np.bincount(inverse, weights=below[edge, 0], minlength=len(owners))
    tree.hidden += [int(count) for count in counts]
    total = len(places) + len(owners)
    mapped = np.flatnonzero(shown_of >= 0)
    targets = shown_of[mapped] - first
    for column, name in enumerate(SHOWN):
        tree.values[name] += np.bincount(
            targets, weights=part.values[mapped, column], minlength=total
        ).tolist()
    unsaid = np.zeros(total)
    least = max(0.5, _UNSEEN * report.processes[part.process].figures.live_bytes_peak)
    for moment, (rows, deltas) in enumerate(part.changes):
        if not len(rows):
            continue
        change: NDArray[np.float64] = np.zeros((len(part.nodes), 1))
        np.add.at(change[:, 0], rows, deltas)
        include(part.parents, change)  # type: ignore[operator]
        unsaid += np.bincount(targets, weights=change[mapped, 0], minlength=total)
        changed = np.flatnonzero(np.abs(unsaid) >= least)
        nodes, amounts = all_changes.setdefault(moment, ([], []))
        nodes += (first + changed).tolist()
        amounts += unsaid[changed].tolist()
        unsaid[changed] = 0.0

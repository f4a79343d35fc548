"""Processes as a tree: parents before children, the heaviest kept where there are too many to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from heapsmith.run.values import Process


class Branch(NamedTuple):
    """One process in its place; ``depth`` 0 is a process whose parent is not watched."""

    process: Process
    depth: int


class Folded(NamedTuple):
    """How many processes are left out here, those below them included."""

    processes: int
    depth: int


def arrange(processes: Sequence[Process], most: int | None = None) -> list[Branch | Folded]:
    """Put processes in the order of a tree.

    Args:
        processes: In any order; children of one parent keep theirs.
        most: Show at most about so many: those with the highest peak and their ancestors; ``None`` shows all.

    Returns:
        Parents before their children; the later programs of a pid (after exec) follow as its children.
    """
    parents = _find_parents(processes)
    shown = _heaviest(processes, parents, most)
    children: dict[int | None, list[int]] = {}
    for index, parent in enumerate(parents):
        children.setdefault(parent, []).append(index)
    rows: list[Branch | Folded] = []

    def visit(parent: int | None, depth: int) -> list[tuple[int | Folded, int]]:
        siblings = children.get(parent, [])
        hidden = sum(_count(children, index) for index in siblings if index not in shown)
        todo: list[tuple[int | Folded, int]] = [(index, depth) for index in siblings if index in shown]
        return [*todo, (Folded(hidden, depth), depth)] if hidden else todo

    pending = visit(None, 0)[::-1]
    while pending:
        step, depth = pending.pop()
        if isinstance(step, Folded):
            rows.append(step)
        else:
            rows.append(Branch(processes[step], depth))
            pending += visit(step, depth + 1)[::-1]
    return rows


def _find_parents(processes: Sequence[Process]) -> list[int | None]:
    """The newest program of the parent's pid when the child began: a pid used again must mislead nobody."""
    parents: list[int | None] = [None] * len(processes)
    newest_of_pid: dict[int, int] = {}
    for index in sorted(range(len(processes)), key=lambda i: (processes[i].start_time_s, i)):
        process = processes[index]
        before_exec = newest_of_pid.get(process.pid) if process.image > 1 else None
        parents[index] = newest_of_pid.get(process.ppid) if before_exec is None else before_exec
        newest_of_pid[process.pid] = index
    return parents


def _count(children: dict[int | None, list[int]], index: int) -> int:
    pending = [index]
    count = 0
    while pending:
        count += 1
        pending += children.get(pending.pop(), [])
    return count


def _heaviest(processes: Sequence[Process], parents: Sequence[int | None], most: int | None) -> set[int]:
    if most is None or len(processes) <= most:
        return set(range(len(processes)))
    shown: set[int] = set()
    for index in sorted(range(len(processes)), key=lambda i: -processes[i].live_bytes_peak):
        if len(shown) >= most:
            break
        walk: int | None = index
        while walk is not None and walk not in shown:
            shown.add(walk)
            walk = parents[walk]
    return shown

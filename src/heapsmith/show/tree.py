"""Processes as a tree: parents before children, the most telling kept where there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from heapsmith.run.history import ProcessKey, key_of
from heapsmith.run.values import Process


class Branch(NamedTuple):
    """One process in its place; ``depth`` 0 is a process whose parent is not watched."""

    process: Process
    depth: int


class Folded(NamedTuple):
    """How many processes are left out here, those below them included."""

    processes: int
    depth: int


@dataclass
class _Life:
    """A process from fork to end: the programs it ran, and the place of its parent among the lives."""

    programs: list[Process]
    parent: int | None

    @property
    def last(self) -> Process:
        return self.programs[-1]

    @property
    def live_bytes_peak(self) -> int:
        return max(program.live_bytes_peak for program in self.programs)


def arrange(processes: Sequence[Process], most: int | None = None) -> list[Branch | Folded]:
    """Put processes in the order of a tree.

    Args:
        processes: In any order.
        most: Show at most about so many processes: running ones first, then those with the highest peak, and
            the ancestors of both; ``None`` shows all.

    Returns:
        Parents before their children, the older child first. Of a process that ran several programs (exec)
        the last is shown, and below it an earlier one only where that one's peak was higher.
    """
    lives = _find_lives(processes)
    shown = _choose(lives, most)
    children: dict[int | None, list[int]] = {}
    for place, life in enumerate(lives):
        children.setdefault(life.parent, []).append(place)
    rows: list[Branch | Folded] = []
    pending = _below(children, None, shown, 0)
    while pending:
        step, depth = pending.pop()
        if isinstance(step, Folded):
            rows.append(step)
            continue
        life = lives[step]
        rows.append(Branch(life.last, depth))
        rows += [
            Branch(program, depth + 1)
            for program in life.programs[:-1]
            if program.live_bytes_peak > life.last.live_bytes_peak
        ]
        pending += _below(children, step, shown, depth + 1)
    return rows


def find_first(processes: Sequence[Process], before: ProcessKey | None = None) -> Process | None:
    """Find what a person most likely wants to see: what began first, of the running ones if any runs.

    Args:
        processes: All.
        before: What was shown before: its process is stayed with, also when it ends or runs another program.
    """
    lives = _find_lives(processes)
    stayed = (life for life in lives if any(key_of(program) == before for program in life.programs))
    running = (life for life in lives if life.last.alive)
    life = next(stayed, None) or next(running, None) or next(iter(lives), None)
    return life.last if life else None


def _below(
    children: dict[int | None, list[int]], parent: int | None, shown: set[int], depth: int
) -> list[tuple[int | Folded, int]]:
    """What comes below a process, last first."""
    below = children.get(parent, [])
    hidden = sum(_count(children, place) for place in below if place not in shown)
    folded: list[tuple[int | Folded, int]] = [(Folded(hidden, depth), depth)] if hidden else []
    return folded + [(place, depth) for place in reversed(below) if place in shown]


def _find_lives(processes: Sequence[Process]) -> list[_Life]:
    """Sort programs into processes; a pid may be used again, so only what began earlier is a parent."""
    lives: list[_Life] = []
    newest_of_pid: dict[int, int] = {}
    for process in sorted(processes, key=lambda process: process.start_time_s):
        place = newest_of_pid.get(process.pid)
        if place is not None and process.image > lives[place].last.image:
            lives[place].programs.append(process)
            continue
        parent = newest_of_pid.get(process.ppid) if process.ppid != process.pid else None
        newest_of_pid[process.pid] = len(lives)
        lives.append(_Life([process], parent))
    return lives


def _count(children: dict[int | None, list[int]], place: int) -> int:
    pending = [place]
    count = 0
    while pending:
        count += 1
        pending += children.get(pending.pop(), [])
    return count


def _choose(lives: Sequence[_Life], most: int | None) -> set[int]:
    if most is None or len(lives) <= most:
        return set(range(len(lives)))
    shown: set[int] = set()
    for place in sorted(
        range(len(lives)), key=lambda i: (not lives[i].last.alive, -lives[i].live_bytes_peak)
    ):
        if len(shown) >= most:
            break
        walk: int | None = place
        while walk is not None and walk not in shown:
            shown.add(walk)
            walk = lives[walk].parent
    return shown

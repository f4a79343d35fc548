"""Which candidates take part: what people name, or everything worth trying on this program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heapsmith.lab.field import read_field
from heapsmith.lab.rehearsal import Rehearsal
from heapsmith.peers import python
from heapsmith.peers.allocator import Start
from heapsmith.peers.candidate import AS_IT_IS, Candidate, as_it_is, make_candidate
from heapsmith.peers.knobs import Value
from heapsmith.peers.register import Found, find, register
from heapsmith.tune.objective import Objective


def choose_candidates(names: Sequence[str] | None) -> list[Candidate]:
    """Read the candidates that a person named, baseline first.

    Args:
        names: What was named; the first is the baseline. One alone is compared with ``system``, none at all
            means every allocator of this machine against ``system``.

    Raises:
        HeapsmithError: All that is wrong with any of them.

    Example:
        >>> [candidate.label for candidate in choose_candidates(["glibc:arena_max=1"])]
        ['system', 'glibc:arena_max=1']
    """
    if not names:
        taking_part = (found.allocator for found in here() if found.path and found.allocator.worth_trying)
        names = [AS_IT_IS, *(allocator.name for allocator in taking_part)]
    elif len(names) == 1:
        names = [AS_IT_IS, *names]
    return read_field(names)


def here() -> list[Found]:
    """Return the allocators of the register that are on this machine."""
    return [found for name in register() if (found := find(name)).here]


def choose_pool(
    rehearsal: Rehearsal, environment: dict[str, str], objective: Objective = "balanced"
) -> list[Candidate]:
    """Return everything worth trying on a program, the program as it is first.

    Each allocator of this machine takes part with its defaults and with the settings that its file says are worth it,
    heaps of ours among them; what cannot reach the program, or needs another Python than it has, stays out. What is
    made for the other objective comes last, so that it is left out first where time is short.

    Args:
        rehearsal: What the program is made of.
        environment: The environment it has today.
        objective: What counts.
    """
    # Each file names its best setting first, so they are dealt out in turns: everybody's first, then second.
    # Within a turn, what takes a Python program's own objects along reaches most of it, and is dealt first.
    dealt: list[tuple[int, int, bool, Candidate]] = []
    for found in here():
        if not _may_take_part(found, rehearsal):
            continue
        dealt.append((1, 0, False, make_candidate(found)))
        starts = [start for start in found.allocator.starts if _fits(found, start, rehearsal)]
        for turn, start in enumerate(sorted(starts, key=lambda start: start.goal != objective)):
            elsewhere = start.goal != objective and "balanced" not in (start.goal, objective)
            candidate = make_candidate(found, start.knobs, start.python)
            dealt.append((2 if elsewhere else 0, turn, start.python is None, candidate))
    dealt.sort(key=lambda item: item[:3])
    pool = [as_it_is()]
    seen = [environment]
    for *_, candidate in dealt:
        # glibc with its defaults is, for most programs, what they have.
        result = candidate.environment(environment)
        if result not in seen or (rehearsal.linked_with is not None and candidate.library is None):
            seen.append(result)
            pool.append(candidate)
    return pool


def _may_take_part(found: Found, rehearsal: Rehearsal) -> bool:
    allocator = found.allocator
    if not allocator.worth_trying:
        return False
    if rehearsal.unreachable is not None:
        return found.path is None and not allocator.python_only and rehearsal.reads_tunables
    if not allocator.python_only:
        return True
    if allocator.name == "pymalloc":
        # For most Python programs it is what they have.
        return rehearsal.python is not None and rehearsal.python.objects_on_malloc
    return _python_can("mimalloc", rehearsal)


def _python_can(objects: str, rehearsal: Rehearsal) -> bool:
    interpreter = rehearsal.python
    if interpreter is None or interpreter.free_threaded:
        return False
    return objects != "mimalloc" or interpreter.has_mimalloc


def _fits(found: Found, start: Start, rehearsal: Rehearsal) -> bool:
    knobs = [found.allocator.knob(name) for name, _ in start.knobs]
    known = all(knob is not None and knob.known_in(found.version_numbers) for knob in knobs)
    return known and (start.python is None or _python_can(start.python, rehearsal))


def neighbours(candidate: Candidate, rehearsal: Rehearsal) -> list[Candidate]:
    """Return the candidates one step away: a knob left out, a knob moved along its values, another knob set.

    Args:
        candidate: Where to look around.
        rehearsal: What the program is made of.
    """
    if candidate.allocator not in register():
        return []
    found = find(candidate.allocator)
    knobs = {name: value for name, value in candidate.knobs if name != python.KNOB.name}
    objects = dict(candidate.knobs).get(python.KNOB.name)
    objects = None if objects is None else str(objects)
    steps = [make_candidate(found, moved.items(), objects) for moved in _moves(found, knobs)]
    if not found.allocator.python_only and _python_can("malloc", rehearsal) and found.path is not None:
        steps.append(make_candidate(found, knobs.items(), None if objects else "malloc"))
    distinct = {step.label: step for step in steps if step.label != candidate.label}
    return list(distinct.values())


def _moves(found: Found, knobs: dict[str, Value]) -> Iterator[dict[str, Value]]:
    for name in knobs:
        yield {other: value for other, value in knobs.items() if other != name}
    for knob in found.allocator.knobs:
        if not knob.tries or not knob.known_in(found.version_numbers):
            continue
        now = knobs.get(knob.name, knob.default)
        ladder = list(knob.tries)
        if now in ladder:
            place = ladder.index(now)
            steps = ladder[max(0, place - 1) : place] + ladder[place + 1 : place + 2]
        else:
            steps = ladder[:2]
        for value in steps:
            if value != knob.default:
                yield knobs | {knob.name: value}


def simplicity(candidate: Candidate) -> int:
    """Count how much a candidate changes: among equals, the simplest is the answer.

    A library counts three times: it has to be installed and kept up to date, a knob of what is there has not.

    Example:
        >>> simplicity(as_it_is())
        0
    """
    return 0 if candidate.changes_nothing else 3 * (candidate.library is not None) + len(candidate.knobs)

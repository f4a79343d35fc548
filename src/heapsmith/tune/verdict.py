"""The verdict: what was verified of the finalists, and whether a heap has earned its place by it.

A heap of ours is recommended only where it beats the best of other people's by `WORTH` on the objective and is not worse
by more than `TOLERATED` on the other figure, everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from heapsmith.lab.checks.contract import CheckResult
from heapsmith.lab.comparison import Comparison, Result
from heapsmith.lab.statistics import Difference
from heapsmith.peers.candidate import Candidate, as_it_is
from heapsmith.spec import HeapSpec, presets
from heapsmith.tune.design import Choice
from heapsmith.tune.life import Life
from heapsmith.tune.objective import WORTH, Objective
from heapsmith.tune.race import Standing

Verdict = Literal["tailored", "preset", "allocator", "nothing"]
TOLERATED: Final = 0.02
"""A heap of ours may be worse by this share on the figure that is not the objective."""


class Trying(msgspec.Struct, frozen=True, kw_only=True):
    """What fresh trials showed of the finalists on one workload.

    Args:
        where: What was run, for people.
        comparison: All finalists; the first is the program as it is.
        against: Whom ours has to beat here: of the program as it is and other people's finalists the one of least cost.
        memory: Ours against that one: resident bytes.
        time: The same: time.
        cost: The same: what the objective makes of both.
        costs: By label, the cost of each finalist against the program as it is.
    """

    where: str
    comparison: Comparison
    against: str
    memory: Difference
    time: Difference
    cost: Difference
    costs: dict[str, Difference]


@dataclass
class Tailored:
    """The answer, and all that led to it.

    Attributes:
        verdict: ``tailored``: use the heap. ``preset``: use a heap of ours that is ready-made. ``allocator``: use
            `rival`. ``nothing``: keep what you have.
        objective: What was asked for.
        reason: Why, in one sentence.
        spec: The best heap of ours, recommended or not.
        ours: It as a candidate; None where none could be forged.
        ready: The best of our ready-made heaps, which shows what the tailoring itself is worth.
        rival: The best of other people's, as far as it is known.
        rivals: The best settings of several of them, best first: what a replay does not tell, the real program may.
        choices: What the design was made of, and what each gained.
        life: What the program does, as sums.
        race: Everybody who raced, on the first recording.
        standings: How they stood.
        trials: The verification.
        checks: What the contract of malloc says of it.
        notes: What a person has to know.
        held_out: What was not looked at in the search.
        simulated: Heaps that were simulated.
        interrupted: It was broken off: this is the answer so far.
    """

    verdict: Verdict
    objective: Objective
    reason: str
    spec: HeapSpec
    ours: Candidate | None = None
    ready: Candidate | None = None
    rival: Candidate = field(default_factory=as_it_is)
    rivals: list[Candidate] = field(default_factory=list[Candidate])
    choices: list[Choice] = field(default_factory=list[Choice])
    life: Life | None = None
    race: Comparison | None = None
    standings: list[Standing] = field(default_factory=list[Standing])
    trials: list[Trying] = field(default_factory=list[Trying])
    checks: list[CheckResult] = field(default_factory=list[CheckResult])
    notes: list[str] = field(default_factory=list[str])
    held_out: str = ""
    simulated: int = 0
    interrupted: bool = False

    @property
    def candidate(self) -> Candidate | None:
        """What to use; None: keep what you have."""
        if self.verdict == "nothing":
            return None
        return self.rival if self.verdict == "allocator" else self.ours


def decide(answer: Tailored) -> tuple[Verdict, str]:
    """Decide by the verification: ours, what is best of all that needs no compiler, or nothing.

    For what is there ready-made the program itself is the judge, where there is a command, for replays do not tell
    everything; on what was held out it must not be worse. A ready-made heap of ours has to be better than other people's
    by `TOLERATED`.

    Returns:
        The verdict, and why, in one sentence.
    """
    rival = answer.rival.label
    if not answer.trials:
        return "nothing", "nothing was better than what the program has"
    if answer.ours is not None:
        shortfall = next((text for trial in answer.trials if (text := find_shortfall(answer, trial))), None)
        if shortfall is None:
            gains = "; ".join(_gain(trial) for trial in answer.trials)
            if answer.ours.allocator in presets():
                return "preset", f"{answer.ours.label}, a ready-made heap, has earned its place: {gains}"
            return "tailored", f"the heap has earned its place: {gains}"
    else:
        shortfall = "no heap of ours could be used"
    cost = _cost(answer, answer.rival)
    if answer.ours is not None and answer.ours.allocator in presets():
        ready = _cost(answer, answer.ours)
        if _is_worth_a_change(answer, answer.ours) and ready < (1 - TOLERATED) * min(cost, 1.0):
            gain = f"{answer.objective} cost {1 - ready:.0%} lower than today's"
            return "preset", f"use {answer.ours.label}, a ready-made heap: {gain}; {shortfall}"
    if answer.rival.changes_nothing:
        return "nothing", f"nothing to gain, keep what you have: {shortfall}"
    if _is_worth_a_change(answer, answer.rival):
        return (
            "allocator",
            f"use {rival}: {answer.objective} cost {1 - cost:.0%} lower than today's; {shortfall}",
        )
    if is_unsure(answer, answer.rival):
        return (
            "nothing",
            f"nothing that is sure, keep what you have: the {answer.objective} cost of {rival} is {cost:.2f} times today's,"
            f" which may be noise (a larger --budget or a quieter machine tells more); {shortfall}",
        )
    return (
        "nothing",
        f"nothing to gain, keep what you have: the {answer.objective} cost of {rival}, the best of the others, is"
        f" {cost:.2f} times today's, at most {1 - WORTH:.2f} is worth a change; {shortfall}",
    )


def _cost(answer: Tailored, candidate: Candidate) -> float:
    """Return the cost on the program, or else on what was held out, against today's."""
    found = answer.trials[-1].costs.get(candidate.label)
    return math.inf if found is None or found.ratio is None else found.ratio


def _is_worth_a_change(answer: Tailored, candidate: Candidate) -> bool:
    """Tell whether a finalist is better by `WORTH`, by more than noise, and nowhere worse by as much."""
    costs = [trial.costs.get(candidate.label, Difference(None)) for trial in answer.trials]
    return (
        _cost(answer, candidate) <= 1 - WORTH
        and bool(costs[-1].more_than_noise)
        and all(cost.ratio is not None and cost.ratio <= 1 + WORTH for cost in costs)
    )


def is_unsure(answer: Tailored, candidate: Candidate) -> bool:
    """Tell whether noise may be all that makes a finalist better by `WORTH`."""
    cost = answer.trials[-1].costs.get(candidate.label)
    return cost is not None and not cost.more_than_noise and _cost(answer, candidate) <= 1 - WORTH


def find_shortfall(answer: Tailored, trial: Trying) -> str | None:
    """Say what the heap lacks on one workload, against the best of the others; None: nothing."""
    assert answer.ours is not None
    failed = next(
        (result.failed for result in trial.comparison.results if _is(result, answer.ours) and result.failed),
        None,
    )
    if failed is not None:
        return f"{answer.ours.label} fails on {trial.where}: {failed}"
    goal = {"memory": trial.memory, "time": trial.time, "balanced": trial.cost}[answer.objective]
    goal_name = {"memory": "resident bytes", "time": "time", "balanced": "balanced cost"}[answer.objective]
    if goal.ratio is None or goal.ratio > 1 - WORTH:
        found = "unknown" if goal.ratio is None else f"{goal.ratio:.3f} times"
        return (
            f"on {trial.where} {_whose(answer.ours)} {goal_name} is {found} that of {trial.against},"
            f" at most {1 - WORTH:.2f} is wanted"
        )
    for other, name in ((trial.memory, "resident bytes"), (trial.time, "time")):
        if other is not goal and other.ratio is not None and other.ratio > 1 + TOLERATED:
            return (
                f"on {trial.where} {_whose(answer.ours)} {name} is {other.ratio:.3f} times that of {trial.against},"
                f" at most {1 + TOLERATED:.2f} is tolerated"
            )
    return None


def _whose(ours: Candidate) -> str:
    return f"{ours.label}'s" if ours.allocator in presets() else "the tailored heap's"


def _is(result: Result, candidate: Candidate) -> bool:
    return result.candidate.label == candidate.label


def _gain(trial: Trying) -> str:
    memory, seconds = trial.memory.ratio or 1.0, trial.time.ratio or 1.0
    return f"{trial.where}: {memory:.2f} times the resident bytes and {seconds:.2f} times the time of {trial.against}"

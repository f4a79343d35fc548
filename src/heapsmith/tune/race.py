"""The race: many candidates start, hopeless ones leave early, the field closes in around the best.

Each candidate's standing is the median, over the rounds it took part in, of its cost over that of the program
as it is *in the same round*: slow minutes of a shared machine touch both. Where a round is run on several
workloads, the ratio of the round is their weighted geometric mean. A candidate leaves when its standing is
behind the leader's by more than what a round of noise could explain, a bar that falls as rounds add up.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from heapsmith.errors import HeapsmithError
from heapsmith.lab.compare import Laboratory
from heapsmith.lab.trials import Outcome, Workload
from heapsmith.peers.candidate import Candidate
from heapsmith.tune.candidates import neighbours, simplicity
from heapsmith.tune.objective import WORTH, Objective, compute_cost, compute_usual
from heapsmith.units import format_seconds

PHASE: Final = "search"
NO_TIME: Final = "no time for it"
_FIRST_ROUND_SHARE: Final = 0.5
"""Of the time for the search, what its first round may take."""
_BEHIND: Final = (1.5, 1.3, 1.2, 1.15, 1.10)
"""By how much one may be behind the leader after 1, 2, ... rounds and still stay."""
_FIELD: Final = (64, 24, 8, 6, 4)
"""How many stay at most after 1, 2, ... rounds."""
_NEWCOMERS: Final = 12
_STAGES: Final = 2
_ROUNDS_OF_FINALISTS: Final = 5
ALIKE: Final = 1.12
"""Costs within so much of the least are alike, and the simplest is the answer: well above what costs of one and the same
setting differ by from day to day, so that the same question gets the same answer."""
NEAR: Final = 1.2
"""Standings within so much of the leader's may turn out alike in fresh runs."""
CONTENDERS: Final = 3
"""So many at most are run off."""
STAYS_IN_NOISE: Final = 1.35
"""So far behind may be whose rounds overlap with the leader's and still stay: more rounds will tell."""


class Standing(msgspec.Struct, frozen=True):
    """How a candidate stands.

    Args:
        candidate: The candidate.
        ratio: Median of its cost over that of the program as it is; None when it never finished a round.
        rounds: Rounds it took part in.
        left: Why it is no longer in the race; None while it is.
    """

    candidate: Candidate
    ratio: float | None
    rounds: int
    left: str | None


class Race:
    """A search over candidates.

    Args:
        laboratory: Where trials run; or several, one for each workload, and then every round is run on each.
        pool: Who starts, the program as it is first.
        objective: What counts.
        deadline: When the search has to be over (`time.monotonic`).
        weights: How much each laboratory counts; all alike when left out.
        may_vary: Whose knobs are moved in search of something better; of those the best in the race is.
    """

    def __init__(
        self,
        laboratory: Laboratory | Sequence[Laboratory],
        pool: Sequence[Candidate],
        objective: Objective,
        deadline: float,
        *,
        weights: Sequence[float] = (),
        may_vary: Callable[[Candidate], bool] = lambda _: True,
    ) -> None:
        self._may_vary = may_vary
        self._laboratories = list(laboratory) if isinstance(laboratory, Sequence) else [laboratory]
        self._weights = list(weights) or [1.0] * len(self._laboratories)
        self._baseline = pool[0]
        self._objective: Objective = objective
        self._deadline = deadline
        self._everyone = {candidate.label: candidate for candidate in pool}
        self._in_race = [candidate.label for candidate in pool[1:]]
        self._left: dict[str, str] = {}
        self._rounds_run = 0

    def run(self) -> None:
        """Run the race until it is decided or its time is over.

        Raises:
            HeapsmithError: There is not even time for one round with one candidate.
        """
        self._fit_into_time()
        for _ in range(3):
            if not self._round():
                return
        for _ in range(_STAGES):
            leader = self._leader()
            if leader is None or not self._bring_newcomers(leader.candidate):
                break
            before = leader.ratio or 1.0
            if not (self._round() and self._round()):
                return
            now = self._leader()
            if now is None or (now.ratio or 1.0) > before / 1.03:
                break
        while any(standing.rounds < _ROUNDS_OF_FINALISTS for standing in self._racing()) and self._round():
            pass

    def _fit_into_time(self) -> None:
        """Let no more start than a first round has time for."""
        each = sum(laboratory.rehearsal.duration_s for laboratory in self._laboratories)
        left = self._deadline - time.monotonic()
        seats = int(_FIRST_ROUND_SHARE * left / each) - 1 if each > 0 else len(self._in_race)
        if seats < 1:
            raise HeapsmithError(
                "the budget is too small",
                f"one run takes {format_seconds(each)}",
                f"give --budget {round(each * 60)}s or more, or a shorter command",
            )
        for label in self._in_race[seats:]:
            self._left[label] = NO_TIME
        self._in_race = self._in_race[:seats]

    def _round(self) -> bool:
        """Run a round of all who are in the race, on each worker; tell whether the race goes on."""
        racing = [self._everyone[label] for label in self._in_race]
        if not racing or time.monotonic() + self.expect_round_s(racing) > self._deadline:
            return False
        first, count = self._rounds_run, self._laboratories[0].workers.width
        for laboratory in self._laboratories:
            laboratory.run_rounds([self._baseline, *racing], range(first, first + count), PHASE)
        self._rounds_run += count
        self._drop()
        return bool(self._in_race)

    def expect_round_s(self, candidates: Sequence[Candidate]) -> float:
        """Expect how long a round of the program as it is and of these takes, by what is known of each."""
        total_s = 0.0
        for laboratory in self._laboratories:
            usual = laboratory.rehearsal.duration_s
            known = {o.candidate: o.seen.duration_s or usual for o in laboratory.outcomes}
            total_s += sum(known.get(candidate.label, usual) for candidate in (self._baseline, *candidates))
        return total_s

    def _drop(self) -> None:
        standings = {standing.candidate.label: standing for standing in self.standings()}
        for label in list(self._in_race):
            failure = self._failure(label)
            if failure is not None:
                self._leave(label, failure)
        order = sorted(self._in_race, key=lambda label: standings[label].ratio or 1.0)
        if not order:
            return
        ratios = self._ratios()
        best = min(standings[order[0]].ratio or 1.0, 1.0)
        for label in order:
            standing = standings[label]
            bar = _BEHIND[min(standing.rounds, len(_BEHIND)) - 1]
            behind = (standing.ratio or 1.0) / best
            if behind > bar and not (behind <= STAYS_IN_NOISE and _overlap(ratios[label], ratios[order[0]])):
                self._leave(
                    label, f"behind by more than {100 * (bar - 1):.0f} % after {standing.rounds} round(s)"
                )
        seats = _FIELD[min(self._rounds_run, len(_FIELD)) - 1]

        def rank(label: str) -> tuple[bool, tuple[int, int], float]:
            # Of those that are alike the best the simplest keep their seats: one of them will be the answer.
            ratio = standings[label].ratio or 1.0
            is_alike = ratio <= ALIKE * best
            return not is_alike, self._simplicity(self._everyone[label]) if is_alike else (0, 0), ratio

        left = sorted((label for label in order if label in self._in_race), key=rank)
        # The simplest of those that noise does not tell from the leader may be the answer: it keeps its seat.
        untold = [label for label in left if _overlap(ratios[label], ratios[order[0]])]
        simplest = min(untold, key=lambda label: self._simplicity(self._everyone[label]), default=None)
        for label in left[seats:]:
            if label != simplest:
                self._leave(label, f"not among the best {seats}")

    def _leave(self, label: str, why: str) -> None:
        self._in_race.remove(label)
        self._left[label] = why

    def _bring_newcomers(self, leader: Candidate) -> bool:
        today = self._laboratories[0].workload.environment
        fresh = [
            step
            for step in neighbours(leader, self._laboratories[0].rehearsal)
            if step.label not in self._everyone and step.environment(today) != today
        ][:_NEWCOMERS]
        for step in fresh:
            self._everyone[step.label] = step
            self._in_race.append(step.label)
        return bool(fresh)

    def _leader(self) -> Standing | None:
        """Return the best of those in the race whose knobs may be moved."""
        racing = [one for one in self._racing() if one.ratio is not None and self._may_vary(one.candidate)]
        return min(racing, key=lambda standing: standing.ratio or 1.0, default=None)

    def _racing(self) -> list[Standing]:
        return [standing for standing in self.standings() if standing.left is None]

    def standings(self) -> list[Standing]:
        """Return how everyone stands, best first."""
        ratios = self._ratios()
        found = [
            Standing(
                candidate=candidate,
                ratio=float(np.median(ratios[label])) if ratios[label] else None,
                rounds=len(ratios[label]),
                left=self._left.get(label),
            )
            for label, candidate in self._everyone.items()
            if label != self._baseline.label
        ]
        return sorted(found, key=lambda standing: (standing.ratio is None, standing.ratio or 0.0))

    def _ratios(self) -> dict[str, list[float]]:
        """For each candidate the rounds that it finished on every workload."""
        return self._ratios_to(
            self._baseline.label, lambda outcome, workload: compute_cost(outcome, workload, self._objective)
        )

    def _ratios_to(
        self, baseline: str, read: Callable[[Outcome, Workload], float | None]
    ) -> dict[str, list[float]]:
        logs: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        total = sum(self._weights)
        for laboratory, weight in zip(self._laboratories, self._weights, strict=True):
            of_round: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
            for outcome in laboratory.outcomes:
                figure = None if outcome.failed else read(outcome, laboratory.workload)
                if outcome.phase == PHASE and figure:
                    of_round[outcome.round, outcome.worker][outcome.candidate] = figure
            for (number, _), figures in of_round.items():
                base = figures.get(baseline)
                if base:
                    for label, figure in figures.items():
                        logs[label][number].append(weight / total * math.log(figure / base))
        ratios: dict[str, list[float]] = defaultdict(list)
        for label, rounds in logs.items():
            whole = [found for found in rounds.values() if len(found) == len(self._laboratories)]
            ratios[label] = [math.exp(sum(found)) for found in whole]
        return ratios

    def compare(
        self, label: str, baseline: str, read: Callable[[Outcome, Workload], float | None]
    ) -> float | None:
        """Compare two candidates by any figure: the median over the rounds that both took part in; None: there are none."""
        ratios = self._ratios_to(baseline, read)[label]
        return float(np.median(ratios)) if ratios else None

    def ranked(self) -> list[Standing]:
        """Return who can be relied on, best first: those that failed are left out, those with few rounds come last."""
        known = [
            standing
            for standing in self.standings()
            if standing.ratio is not None and not self._failed(standing.candidate.label)
        ]
        most = max((standing.rounds for standing in known), default=0)
        return sorted(known, key=lambda standing: (standing.rounds < min(most, 3), standing.ratio or 1.0))

    def order(self) -> list[Candidate]:
        """Return who is confirmed first: the contenders, simplest first, then the rest, best first."""
        contenders = self.contenders()
        rest = [standing.candidate for standing in self._serious() if standing.candidate not in contenders]
        return contenders + rest

    def contenders(self) -> list[Candidate]:
        """Return who has to be told apart in fresh runs, simplest first.

        It is whoever may be alike the best, and is better than all the simpler ones that can be relied on; and where those
        are fewer than three, simple ones that were no better, for who was before them may only have been lucky.
        """
        ratios = self._ratios()
        usual = {one.candidate.label: compute_usual(ratios[one.candidate.label]) for one in self._serious()}
        best = sorted(usual, key=lambda label: usual[label])
        near = [label for label in best if usual[label] <= NEAR * usual[best[0]]]
        simplest_first = sorted(near, key=lambda label: self._simplicity(self._everyone[label]))
        found: list[str] = []
        relied_on: list[str] = []
        for label in simplest_first:
            if all(usual[label] < (1 - WORTH / 2) * usual[one] for one in relied_on):
                found.append(label)
                relied_on += [label] if is_steady(ratios[label]) else []
        others = [label for label in simplest_first if label not in found]
        found += others[: max(0, CONTENDERS - len(found))]
        return [self._everyone[label] for label in simplest_first if label in found]

    def _serious(self) -> list[Standing]:
        ranked = self.ranked()
        most = max((standing.rounds for standing in ranked), default=0)
        return [standing for standing in ranked if standing.rounds >= min(most, 3)]

    def _simplicity(self, candidate: Candidate) -> tuple[int, int]:
        """Rank by how little is changed; among equals the allocator's file names the more careful setting first."""
        return simplicity(candidate), list(self._everyone).index(candidate.label)

    def _failure(self, label: str) -> str | None:
        outcomes = (outcome for laboratory in self._laboratories for outcome in laboratory.outcomes)
        return next((o.failed for o in outcomes if o.candidate == label and o.failed), None)

    def _failed(self, label: str) -> bool:
        return self._failure(label) is not None

    def best_ratio(self, label: str) -> float | None:
        """Return the standing of a candidate."""
        return next((s.ratio for s in self.standings() if s.candidate.label == label), None)


def is_steady(costs: Sequence[float]) -> bool:
    """Tell whether even the worst of some runs is alike the usual ones."""
    return not costs or max(costs) <= ALIKE * float(np.median(costs))


def _overlap(ratios: Sequence[float], of_leader: Sequence[float]) -> bool:
    """Tell whether at least one round of a candidate was as good as at least one of the leader's."""
    return min(ratios, default=math.inf) <= max(of_leader, default=0.0)


def outcomes_of(outcomes: Sequence[Outcome], label: str, phase: str) -> list[Outcome]:
    """Pick the trials of one candidate in one phase."""
    return [outcome for outcome in outcomes if outcome.candidate == label and outcome.phase == phase]

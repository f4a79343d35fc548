"""Advice: search, confirm in fresh runs, and say one thing, which may be that there is nothing to gain."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from heapsmith.lab.compare import DEFAULT_RUNS, Laboratory
from heapsmith.lab.comparison import Comparison, compute_comparison
from heapsmith.lab.statistics import FALSE_ALARMS, Difference
from heapsmith.lab.trials import Workload
from heapsmith.peers.candidate import Candidate, as_it_is
from heapsmith.tune.candidates import choose_pool
from heapsmith.tune.objective import WORTH, Objective, compare_costs, compute_cost, compute_usual
from heapsmith.tune.race import ALIKE, CONTENDERS, NO_TIME, PHASE, Race, Standing, is_steady, outcomes_of

Verdict = Literal["gain", "nothing", "unreachable", "unconfirmed"]
_CONFIRMING_SHARE: Final = 0.4
_ATTEMPTS: Final = 3
_SHOWN_OF_SEARCH: Final = 9
_FEWEST_CONFIRMING: Final = 6
_SLOWEST_FACTOR: Final = 8
_SHORTEST_TIMEOUT_S: Final = 20.0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What fresh runs of one command showed of one candidate.

    Args:
        comparison: The program as it is, and the candidate.
        cost: Their costs compared: the gain, as a ratio with its interval.
    """

    comparison: Comparison
    cost: Difference

    @property
    def confirms(self) -> bool:
        """Whether the candidate is better by more than noise, and by enough to be worth a change."""
        return _is_gain(self.cost)

    @property
    def refutes(self) -> bool:
        """Whether the candidate fails, or is worse by more than noise and by more than nothing."""
        if any(result.failed for result in self.comparison.results):
            return True
        return bool(self.cost.more_than_noise) and (self.cost.ratio or 1.0) > 1 + WORTH


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The answer.

    Args:
        verdict: ``gain``: use the candidate. ``nothing``: keep what you have. ``unreachable``: nothing from outside
            reaches the program. ``unconfirmed``: broken off before the candidate could be confirmed.
        objective: What was asked for.
        candidate: What to use; None when there is nothing to change.
        evidence: The confirming runs of the candidate, or of the best one when it was not confirmed.
        also: The same for each further command.
        standings: How everyone stood at the end of the search.
        search: What the search measured of the program as it is and of the best of them.
        notes: What a person has to know about the program.
        rivals: Who was run off against the candidate, and what each costs, the candidate being 1.
        interrupted: It was broken off.
    """

    verdict: Verdict
    objective: Objective
    candidate: Candidate | None
    evidence: Evidence | None
    also: list[Evidence]
    standings: list[Standing]
    search: Comparison
    notes: list[str]
    rivals: list[tuple[Candidate, Difference]] = []
    interrupted: bool = False

    @property
    def without_a_try(self) -> int:
        """How many of those that wanted to start never ran, for lack of time."""
        return sum(standing.left == NO_TIME for standing in self.standings)


def advise(
    laboratory: Laboratory,
    others: Sequence[Laboratory],
    objective: Objective,
    budget_s: float,
    *,
    named: Sequence[Candidate] = (),
    stage: Callable[[str], None] = lambda _: None,
) -> Advice:
    """Find the allocator and the knobs that are right for a program.

    Args:
        laboratory: The command.
        others: Further commands, on which the answer must not be worse.
        objective: What counts.
        budget_s: Seconds for all of it; up to two fifths are kept for confirming.
        named: Search among these alone, and what is a knob away from them; none means everything worth trying.
        stage: Told what is being done.

    Returns:
        The answer; on Ctrl-C the answer so far.

    Raises:
        HeapsmithError: The budget does not allow a single round.
    """
    pool = (
        [as_it_is(), *named]
        if named
        else choose_pool(laboratory.rehearsal, laboratory.workload.environment, objective)
    )
    notes = laboratory.rehearsal.notes()
    if len(pool) == 1:
        return Advice(
            verdict="unreachable",
            objective=objective,
            candidate=None,
            evidence=None,
            also=[],
            standings=[],
            search=_search_so_far(laboratory, []),
            notes=notes,
        )
    laboratory.workload = _impatient(laboratory)
    end = time.monotonic() + budget_s
    race = Race(laboratory, pool, objective, end - _confirming_s(laboratory, others, budget_s))
    confirming: _Confirming | None = None
    try:
        stage("search")
        race.run()
        stage("confirm")
        confirming = _Confirming(laboratory, others, objective, end)
        return confirming.decide(race, notes)
    except KeyboardInterrupt:
        best = next(iter(race.order()), None)
        ratio = None if best is None else race.best_ratio(best.label)
        promising = best if ratio is not None and ratio <= 1 - WORTH else None
        return Advice(
            verdict="unconfirmed",
            objective=objective,
            candidate=promising,
            evidence=None,
            also=[],
            standings=race.standings(),
            search=_search_so_far(laboratory, race.standings()),
            notes=notes,
            interrupted=True,
        )


def _search_so_far(laboratory: Laboratory, standings: Sequence[Standing]) -> Comparison:
    best = [standing.candidate for standing in standings if standing.rounds][:_SHOWN_OF_SEARCH]
    trials = [outcome for outcome in laboratory.outcomes if outcome.phase == PHASE]
    return compute_comparison(laboratory.workload, [as_it_is(), *best], trials)


def _impatient(laboratory: Laboratory) -> Workload:
    """Give nobody much longer than the program takes today: who is that slow is out anyway."""
    workload = laboratory.workload
    limit = max(_SHORTEST_TIMEOUT_S, _SLOWEST_FACTOR * laboratory.rehearsal.duration_s)
    if workload.timeout_s is not None:
        limit = min(limit, workload.timeout_s)
    return msgspec.structs.replace(workload, timeout_s=limit)


def _confirming_s(laboratory: Laboratory, others: Sequence[Laboratory], budget_s: float) -> float:
    each = laboratory.rehearsal.duration_s + sum(other.rehearsal.duration_s for other in others)
    return min((1.1 + CONTENDERS) * DEFAULT_RUNS * each, _CONFIRMING_SHARE * budget_s)


def _is_gain(cost: Difference, bar: float = 1 - WORTH) -> bool:
    return bool(cost.more_than_noise) and cost.ratio is not None and cost.ratio <= bar


def _is_unsure(cost: Difference, bar: float = 1 - WORTH) -> bool:
    return not cost.more_than_noise and cost.ratio is not None and cost.ratio <= bar


class _Look(NamedTuple):
    winner: Candidate
    evidence: Evidence
    rivals: list[tuple[Candidate, Difference]]
    is_sure: bool
    """More runs would not change who wins."""


class _Confirming:
    def __init__(
        self, laboratory: Laboratory, others: Sequence[Laboratory], objective: Objective, end: float
    ) -> None:
        self._laboratory = laboratory
        self._others = others
        self._objective: Objective = objective
        self._end = end

    def decide(self, race: Race, notes: list[str]) -> Advice:
        """Run off those that are alike, and confirm the winner, or the next one where another command refutes it."""
        first: tuple[_Look, list[Evidence]] | None = None

        def promises(candidate: Candidate) -> bool:
            return (race.best_ratio(candidate.label) or 1.0) <= 1 - WORTH / 2

        order = [one for one in race.order() if promises(one)]
        contenders = [one for one in race.contenders() if promises(one)]
        contenders = self._affordable(contenders or order[:1], race)
        for attempt in range(min(_ATTEMPTS, len(order))):
            phase = f"confirm {attempt + 1}"
            found = self._measure(self._laboratory, contenders, phase)
            also = (
                [self._measure(other, [found.winner], phase).evidence for other in self._others]
                if found.evidence.confirms
                else []
            )
            first = first or (found, also)
            if found.evidence.confirms and not any(other.refutes for other in also):
                return self._advice("gain", found.winner, (found, also), race, notes)
            if not found.evidence.refutes and not any(other.refutes for other in also):
                # No better in fresh runs: a second look at the others would only find luck.
                break
            order.remove(found.winner)
            contenders = order[:1]
        return self._advice("nothing", None, first, race, notes)

    def _affordable(self, contenders: list[Candidate], race: Race) -> list[Candidate]:
        """Keep as many as there is time to run off: the simplest, and the best to measure them by."""
        for seats in range(min(len(contenders), CONTENDERS), 1, -1):
            kept = contenders[: seats - 1] + contenders[-1:]
            if time.monotonic() + _FEWEST_CONFIRMING * race.expect_round_s(kept) <= self._end:
                return kept
        return contenders[:1]

    def _measure(self, laboratory: Laboratory, contenders: Sequence[Candidate], phase: str) -> _Look:
        """Run contenders beside the program as it is ten times, and ten more where that leaves it unsure who wins.

        Args:
            laboratory: Where.
            contenders: The simplest first: the first that none of the others surely beats by more than what counts as
                alike is the winner.
            phase: What the runs are for.
        """
        found = self._look(laboratory, contenders, phase, range(DEFAULT_RUNS))
        if not found.is_sure:
            found = self._look(laboratory, contenders, phase, range(DEFAULT_RUNS, 2 * DEFAULT_RUNS))
        return found

    def _look(
        self, laboratory: Laboratory, contenders: Sequence[Candidate], phase: str, rounds: range
    ) -> _Look:
        began = time.monotonic()

        def enough() -> bool:
            done = len(outcomes_of(laboratory.outcomes, today.label, phase))
            each = (time.monotonic() - began) / max(1, done - rounds.start)
            return done >= _FEWEST_CONFIRMING and time.monotonic() + each > self._end

        def compare(first: Candidate, second: Candidate) -> Difference:
            return compare_costs(
                outcomes_of(trials, first.label, phase),
                outcomes_of(trials, second.label, phase),
                laboratory.workload,
                self._objective,
                # Two looks at most, so each gets half of the false alarms.
                false_alarms=FALSE_ALARMS / 2,
            )

        def costs(one: Candidate) -> list[float]:
            outcomes = outcomes_of(trials, one.label, phase)
            known = [compute_cost(outcome, laboratory.workload, self._objective) for outcome in outcomes]
            return [cost for cost in known if cost]

        today = as_it_is()
        laboratory.run_rounds([today, *contenders], rounds, phase, enough=enough)
        trials = [outcome for outcome in laboratory.outcomes if outcome.phase == phase]
        failed = {outcome.candidate for outcome in trials if outcome.failed}
        running = [one for one in contenders if one.label not in failed] or contenders[:1]
        least = min(compute_usual(costs(one)) for one in running)
        winner, rivals, is_sure = running[0], list[tuple[Candidate, Difference]](), True
        for winner in running:
            rivals = [(other, compare(winner, other)) for other in running if other is not winner]
            is_sure = is_sure and not any(_is_unsure(cost, 1 / ALIKE) for _, cost in rivals)
            is_beaten = any(_is_gain(cost, 1 / ALIKE) for _, cost in rivals)
            if compute_usual(costs(winner)) < ALIKE * least and not is_beaten:
                break
        evidence = Evidence(
            comparison=compute_comparison(laboratory.workload, [today, winner], trials),
            cost=compare(today, winner),
        )
        if evidence.confirms:
            is_sure = is_sure and is_steady(costs(winner))
        else:
            is_sure = is_sure and (evidence.refutes or not _is_unsure(evidence.cost))
        return _Look(winner, evidence, rivals, is_sure)

    def _advice(
        self,
        verdict: Verdict,
        candidate: Candidate | None,
        measured: tuple[_Look, list[Evidence]] | None,
        race: Race,
        notes: list[str],
    ) -> Advice:
        return Advice(
            verdict=verdict,
            objective=self._objective,
            candidate=candidate,
            evidence=None if measured is None else measured[0].evidence,
            also=[] if measured is None else measured[1],
            standings=race.standings(),
            search=_search_so_far(self._laboratory, race.standings()),
            notes=notes,
            rivals=[] if measured is None else measured[0].rivals,
        )

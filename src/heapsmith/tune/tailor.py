"""Tailoring: from recordings to a heap that has earned its place, or to the allocator that nothing of ours beats.

Designs are drawn, simulated and, forged, raced in replays of the recordings but the last, against every allocator of the
machine and its knobs; what wins is verified: the contract of malloc, the recording that was held out, and the real
program if there is a command. What that amounts to is told by `verdict`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from heapsmith.errors import ForgeError, HeapsmithError, TraceError
from heapsmith.forge.compiler import find_compiler
from heapsmith.lab.checks.contract import run_checks, select_checks
from heapsmith.lab.compare import Laboratory
from heapsmith.lab.comparison import compute_comparison, strata
from heapsmith.lab.executors import HERE, Workers
from heapsmith.lab.replay.plan import choose_process
from heapsmith.lab.replay.stage import Stage, set_stage
from heapsmith.lab.replay.validation import has_sizes_of_glibc
from heapsmith.lab.statistics import Difference, compute_difference
from heapsmith.lab.subjects import Subject
from heapsmith.lab.trials import Outcome, Workload
from heapsmith.peers.candidate import Candidate, as_it_is
from heapsmith.spec import HeapSpec, load_spec, presets
from heapsmith.trace import OperationFlag, Trace, open_trace
from heapsmith.tune.candidates import choose_pool
from heapsmith.tune.design import Choice, Design, Drawing, vary_pages
from heapsmith.tune.heaps import candidate_of
from heapsmith.tune.life import Life, read_life
from heapsmith.tune.objective import (
    WORTH,
    Objective,
    compare_costs,
    compute_cost,
    compute_resident,
    compute_time,
)
from heapsmith.tune.race import NO_TIME, Race
from heapsmith.tune.simulation import warm_up
from heapsmith.tune.verdict import TOLERATED, Tailored, Trying, decide, find_shortfall, is_unsure

FEWEST_EVENTS: Final = 100_000
"""A recording with fewer tells little of how a heap ages."""
_PERTURBED: Final = 0.1
_RUNS: Final = 10
_FEWEST_RUNS: Final = 5
_SPARE: Final = 0.97
"""Of a bar: what is better than this is not told from others that are."""
_FINALISTS: Final = 5
"""What is, the best two of other people's, the best of ours, and of those that are ready-made: time is kept for them."""
_RIVALS: Final = (2, 5)
"""Of so many other allocators the best settings are verified: the most that there is time for."""
_CHECKED: Final = 4
"""So many of our best are held against the contract of malloc, until one keeps it."""
_SHARE_OF_DRAWING: Final = 0.3
_SHARE_OF_FORGING: Final = 0.45
_SHARE_OF_RACE: Final = 0.75
_LEAST_OF_RACE: Final = 0.25
"""So much of the budget the race gets, however long the drawing took."""


class _Forged(NamedTuple):
    """A heap of ours that races."""

    spec: HeapSpec
    candidate: Candidate
    design: Design
    words: str
    """How it differs from the design; empty: not at all."""


class Tailor:
    """Makes a heap for recordings.

    Args:
        traces: The recordings; the last of several is held out of the search.
        weights: How much each of the others counts.
        objective: What counts more.
        budget_s: Seconds for all of it.
        real: The real program, if there is a command.
        workers: Where replays run.
        tell: Told what is being done, and what share of the budget is gone.
    """

    def __init__(
        self,
        traces: Sequence[Path],
        weights: Sequence[float],
        objective: Objective,
        budget_s: float,
        *,
        real: Laboratory | None = None,
        workers: Workers = HERE,
        tell: Callable[[str, float], None] = lambda _, __: None,
    ) -> None:
        self._traces = [open_trace(path) for path in traces]
        self._weights = weights
        self._objective: Objective = objective
        self._budget_s = budget_s
        self._real = real
        self._workers = workers
        self._began = time.monotonic()
        self._tell = tell
        self._notes: list[str] = []
        self._verifying_s = 0.0

    def make(self) -> Tailored:
        """Make the heap, and decide; Ctrl-C gives the answer so far.

        Raises:
            TraceError: A recording cannot be used.
            HeapsmithError: The budget is too small.
        """
        answer = Tailored("nothing", self._objective, "nothing was measured yet", HeapSpec(name="tailored"))
        answer.notes = self._notes
        try:
            self._make(answer)
        except KeyboardInterrupt:
            answer.interrupted = True
            answer.reason = f"broken off; {answer.reason}"
        return answer

    def _gone_s(self) -> float:
        return time.monotonic() - self._began

    def _say(self, what: str) -> None:
        self._tell(what, min(1.0, self._gone_s() / self._budget_s))

    def _make(self, answer: Tailored) -> None:
        designed_on, held_out, perturbed = self._split(answer)
        self._tell_of_python(designed_on[0])
        if self._real is not None:
            for note in self._real.rehearsal.notes():
                self._note(note)
            if self._real.rehearsal.python is not None and self._real.rehearsal.python.objects_on_malloc:
                self._note(
                    "CPython's objects are malloc's in all runs, as PYTHONMALLOC says: whether pymalloc would serve the"
                    " program better, `heapsmith advise` tells"
                )
        elif not has_sizes_of_glibc(designed_on[0], choose_process(designed_on[0]).index):
            self._note(
                "the program was recorded on another allocator than glibc's: `system` is glibc's malloc in the replays all"
                " the same; give the command after -- to have it compared with what it has"
            )
        with contextlib.ExitStack() as stack:
            self._say("rehearsing the replays")
            linked = None if self._real is None else self._real.rehearsal.linked_with

            def stage(trace: Trace, perturbed_share: float = 0.0) -> Stage:
                # What the program has today is the baseline of its replays, too.
                made = set_stage(
                    trace,
                    perturbed_share=perturbed_share,
                    linked_with=None if linked is None else linked[1],
                    timeout_s=600,
                )
                return stack.enter_context(made)

            before_s = self._gone_s()
            stages = [stage(trace) for trace in designed_on]
            self._verifying_s = (self._gone_s() - before_s) / len(stages) + self._estimate_trials_s(stages)
            for note in dict.fromkeys(note for stage in stages for note in stage.notes()):
                self._note(note)
            self._say("compiling the simulator (at its first use here)")
            before_s = self._gone_s()
            warm_up()
            self._began += self._gone_s() - before_s
            designs = self._draw(self._read(designed_on, answer), answer)
            ours = self._forge(designs, max(stage.plan.live_bytes_peak for stage in stages))
            self._race(stages, ours, answer)
            self._verify(stage(held_out, perturbed), answer)
        answer.verdict, answer.reason = decide(answer)

    def _estimate_trials_s(self, stages: Sequence[Stage]) -> float:
        each_s = max(stage.rehearsal.duration_s for stage in stages)
        if self._real is not None:
            each_s += self._real.rehearsal.duration_s
        return _FINALISTS * _FEWEST_RUNS * each_s

    def _read(self, traces: Sequence[Trace], answer: Tailored) -> list[Life]:
        self._say("reading the recordings")
        lives = [read_life(trace) for trace in traces]
        answer.life = max(lives, key=len)
        if len(answer.life) < FEWEST_EVENTS:
            self._note(
                f"the recording has {len(answer.life):,} calls, too few to tell how a heap ages: record"
                f" {math.ceil(FEWEST_EVENTS / max(1, len(answer.life)))} times as much"
            )
        return lives

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    def _split(self, answer: Tailored) -> tuple[list[Trace], Trace, float]:
        if len(self._traces) > 1:
            answer.held_out = f"{self._traces[-1].path.name} was held out of the search"
            return self._traces[:-1], self._traces[-1], 0.0
        answer.held_out = (
            f"there is one recording: the heap was designed on it, and judged on it with {_PERTURBED:.0%} of its blocks"
            " given other sizes, as on another day"
            + (" and on fresh runs of the program" if self._real is not None else "")
            + "; a second recording would judge better"
        )
        return self._traces, self._traces[0], _PERTURBED

    def _tell_of_python(self, trace: Trace) -> None:
        """Note what malloc does not see of a Python program."""
        process = choose_process(trace)
        pythons = calls = 0
        for batch in trace.batches(process.index):
            pythons += int((batch.operation & OperationFlag.PYTHON > 0).sum())
            calls += len(batch)
        is_python = "python" in process.start.name or any(
            "python" in word for word in process.start.command[:1]
        )
        if is_python and not trace.manifest.python_objects and not pythons:
            self._note(
                "CPython's own objects (some 97 % of its allocations) are not in the recording, for malloc never sees them:"
                " record with --python-objects, or with PYTHONMALLOC=malloc in the environment"
            )
        elif pythons:
            self._note(
                f"{pythons / max(1, calls):.0%} of the events are CPython's own objects, which reach malloc only with"
                " PYTHONMALLOC=malloc: the heap is designed for a program started without it"
            )

    def _draw(self, lives: Sequence[Life], answer: Tailored) -> list[Design]:
        end = _SHARE_OF_DRAWING * self._budget_s
        weights = list(self._weights) or [1.0] * len(lives)
        drawing = Drawing(
            lives,
            weights,
            self._objective,
            enough=lambda: self._gone_s() > end,
            tell=lambda _: self._say("simulating heaps"),
        )
        designs = drawing.draw()
        answer.spec, answer.choices = designs[0].spec, list(designs[0].choices)
        answer.simulated = max(design.simulated for design in designs)
        return designs

    def _forge(self, designs: Sequence[Design], live_bytes_peak: int) -> dict[str, _Forged]:
        """Forge the designs and, of the best, other ways of keeping pages; by label."""
        specs = [(design.spec, design, "") for design in designs]
        varied = vary_pages(designs[0].spec, live_bytes_peak, self._objective)
        specs += [(spec, designs[0], words) for words, spec in varied]
        ours: dict[str, _Forged] = {}
        try:
            find_compiler()
        except ForgeError as error:
            self._note(f"{error.what}: presets and the knobs of other allocators were tried ({error.hint})")
            return ours
        for number, (spec, design, words) in enumerate(specs, 1):
            label = f"tailored {number}"
            self._say(f"forging {label}")
            if self._gone_s() > _SHARE_OF_FORGING * self._budget_s and ours:
                break
            try:
                ours[label] = _Forged(spec, candidate_of(spec, label), design, words)
            except ForgeError as error:
                self._note(f"{label} is out: {error}")
        return ours

    def _race(self, stages: Sequence[Stage], ours: dict[str, _Forged], answer: Tailored) -> None:
        laboratories = [
            stage.laboratory(
                workers=self._workers, begins=lambda candidate: self._say(f"replaying on {candidate.label}")
            )
            for stage in stages
        ]
        pool = choose_pool(stages[0].rehearsal, stages[0].workload.environment, self._objective)
        pool[1:1] = [forged.candidate for forged in ours.values()]
        over_s = min(_SHARE_OF_RACE * self._budget_s, self._budget_s - self._verifying_s)
        left_s = max(over_s - self._gone_s(), _LEAST_OF_RACE * self._budget_s)
        race = Race(
            laboratories,
            pool,
            self._objective,
            time.monotonic() + left_s,
            weights=self._weights,
            # A design has no knobs, and a heap of ours that leads must not keep others' from being found.
            may_vary=lambda one: one.label not in ours and one.allocator not in presets(),
        )
        try:
            race.run()
        except KeyboardInterrupt:
            self._take_race(race, ours, answer, checked=False)
            raise
        finally:
            answer.standings = race.standings()
            known = [standing.candidate for standing in answer.standings if standing.ratio is not None]
            answer.race = compute_comparison(
                laboratories[0].workload, [pool[0], *known], laboratories[0].outcomes
            )
        self._take_race(race, ours, answer, checked=True)

    def _take_race(self, race: Race, ours: dict[str, _Forged], answer: Tailored, *, checked: bool) -> None:
        """Choose the best of ours, of what we have ready-made, and of other people's."""
        for standing in race.standings():
            if standing.left and ("signal" in standing.left or "refused" in standing.left):
                self._note(f"{standing.candidate.label} is out: {standing.left}")
        untried = sum(standing.left == NO_TIME for standing in race.standings())
        if untried:
            self._note(
                f"{untried} candidates did not race for lack of time, so one of them may be better: give a larger --budget"
            )
        ranked = [standing.candidate for standing in race.ranked()]
        ready = [one for one in ranked if one.allocator in presets()]
        others = [one for one in ranked if one.label not in ours and one not in ready]
        # The real program may tell what a replay does not, so who is hardly worse there is not out.
        promising = [one for one in others if (race.best_ratio(one.label) or math.inf) < 1 + WORTH]
        of_allocator: dict[str, Candidate] = {}
        for one in promising:
            of_allocator.setdefault(one.allocator, one)
        answer.rivals = list(of_allocator.values())[: max(_RIVALS)]
        if others and (race.best_ratio(others[0].label) or 1.0) < 1.0:
            answer.rival = others[0]
        rivals = [answer.rival.label, *(one.label for one in answer.rivals[1 : min(_RIVALS)])]
        most = max((standing.rounds for standing in race.ranked()), default=0)
        few = {standing.candidate.label for standing in race.ranked() if standing.rounds < min(most, 3)}

        def rank(one: Candidate) -> tuple[bool, float, float]:
            # Whoever clears the bars of the verdict with something to spare is as likely to earn its place as any other
            # that does, and then the objective decides. Between a design and a ready-made heap that a few rounds do
            # not tell apart, verification judges the design.
            handicap = 1.0 if one.label in ours else 1 + WORTH
            behind = max(
                _SPARE, *(_behind_the_bars(race, one.label, rival, self._objective) for rival in rivals)
            )
            return one.label in few, behind * handicap, (race.best_ratio(one.label) or 1.0) * handicap

        mine = sorted((one for one in ranked if one.label in ours or one in ready), key=rank)[:_CHECKED]
        # Our tests hold the ready-made ones against the contract.
        answer.ours = next(
            (one for one in mine if not checked or one in ready or self._keeps_contract(one, answer)), None
        )
        if answer.ours is None:
            answer.reason = "the search was not over" if not ranked else "no heap of ours could be used"
            return
        answer.ready = next((one for one in ready if one != answer.ours), None)
        ratio = race.best_ratio(answer.ours.label)
        answer.reason = (
            f"{answer.ours.label} is the best of ours so far, at {ratio:.2f} times today's {answer.objective} cost in"
            " replay; nothing is verified"
        )
        chosen = ours.get(answer.ours.label)
        if chosen is None:
            answer.spec, answer.choices = load_spec(answer.ours.allocator), []
            return
        answer.spec, answer.choices = chosen.spec, list(chosen.design.choices)
        if chosen.words:
            plain = next(label for label, one in ours.items() if one.design is chosen.design)
            without = race.best_ratio(plain)
            gained = "" if without is None else f" {ratio:.2f} times today's cost, {without:.2f} without it"
            answer.choices.append(
                Choice(chosen.words, f"the best of those replayed:{gained}", math.nan, math.nan)
            )

    def _keeps_contract(self, candidate: Candidate, answer: Tailored) -> bool:
        assert candidate.library is not None
        self._say(f"checking the contract of malloc on {candidate.label}")
        subject = Subject(candidate.label, Path(candidate.library))
        answer.checks = run_checks(select_checks([], hardening=False), subject)
        broken = [check for check in answer.checks if check.verdict == "fail"]
        for check in broken:
            self._note(f"{candidate.label} breaks the contract of malloc ({check.name}): {check.detail}")
        return not broken

    def _verify(self, proof: Stage, answer: Tailored) -> None:
        each_s = max(self._verifying_s, 1e-3) / _FINALISTS
        seats = int((self._budget_s - self._gone_s()) / each_s) - (_FINALISTS - min(_RIVALS))
        answer.rivals = answer.rivals[: max(min(_RIVALS), seats)]
        finalists = [as_it_is(), *answer.rivals]
        finalists += [one for one in (answer.ready, answer.ours) if one is not None]
        if len(finalists) == 1:
            return
        replays = proof.laboratory(
            workers=self._workers,
            begins=lambda candidate: self._say(f"verifying {candidate.label} on what was held out"),
        )
        tried = [(replays, "replay of what was held out")]
        if self._real is not None:
            tried.append((self._real, self._real.workload.words()))
        for laboratory, where in tried:
            self._run(laboratory, finalists)
            answer.trials.append(self._judge(laboratory, finalists, answer, where))
        laboratory, where = tried[-1]
        unsure = [one for one in finalists[1:] if one != answer.ours and is_unsure(answer, one)]
        if unsure:
            self._run(laboratory, [as_it_is(), *unsure], _RUNS)
            answer.trials[-1] = self._judge(laboratory, finalists, answer, where)
        costs = answer.trials[-1].costs
        answer.rivals.sort(key=lambda one: costs[one.label].ratio or math.inf)
        if answer.rivals:
            answer.rival = answer.rivals[0]
        # A ready-made heap ran beside the design, and may have earned what that has not.
        ready = answer.ready
        if (
            ready is None
            or answer.ours is None
            or not any(find_shortfall(answer, trial) for trial in answer.trials)
        ):
            return
        instead = replace(
            answer, ours=ready, ready=None, spec=load_spec(ready.allocator), choices=[], trials=[]
        )
        instead.trials = [self._judge(laboratory, finalists, instead, where) for laboratory, where in tried]
        if decide(instead)[0] == "preset":
            answer.ours, answer.ready, answer.spec = instead.ours, instead.ready, instead.spec
            answer.choices, answer.trials, answer.checks = instead.choices, instead.trials, []

    def _run(self, laboratory: Laboratory, finalists: Sequence[Candidate], first_round: int = 0) -> None:
        """Run rounds until the budget is gone, no fewer than are needed to tell anything."""

        def enough() -> bool:
            done = len(_of(_verifying(laboratory), as_it_is())) - before
            return done >= _FEWEST_RUNS and self._gone_s() > self._budget_s

        before = len(_of(_verifying(laboratory), as_it_is()))
        laboratory.run_rounds(finalists, range(first_round, first_round + _RUNS), "verify", enough=enough)

    def _judge(
        self, laboratory: Laboratory, finalists: Sequence[Candidate], answer: Tailored, where: str
    ) -> Trying:
        outcomes = _verifying(laboratory)
        costs = {one.label: self._compare_with_today(laboratory, one) for one in finalists}
        against = min((as_it_is(), *answer.rivals), key=lambda one: costs[one.label].ratio or math.inf)
        best, ours = _side_by_side(outcomes, against, answer.ours) if answer.ours else ([], [])
        workload = laboratory.workload

        def ratio(read: Callable[[Outcome], float | None]) -> Difference:
            return compute_difference(strata(best, read), strata(ours, read))

        return Trying(
            where=where,
            comparison=compute_comparison(workload, finalists, outcomes),
            against=against.label,
            memory=ratio(compute_resident),
            time=ratio(lambda outcome: compute_time(outcome, workload)),
            cost=compare_costs(best, ours, workload, self._objective),
            costs=costs,
        )

    def _compare_with_today(self, laboratory: Laboratory, candidate: Candidate) -> Difference:
        outcomes = _verifying(laboratory)
        return compare_costs(
            *_side_by_side(outcomes, as_it_is(), candidate), laboratory.workload, self._objective
        )


def _verifying(laboratory: Laboratory) -> list[Outcome]:
    return [outcome for outcome in laboratory.outcomes if outcome.phase == "verify"]


def _side_by_side(
    outcomes: Sequence[Outcome], first: Candidate, second: Candidate
) -> tuple[list[Outcome], list[Outcome]]:
    """Pick the trials of two candidates, of the rounds that both took part in: the machine may be slower later."""
    of_first, of_second = _of(outcomes, first), _of(outcomes, second)
    both = {(one.worker, one.round) for one in of_first} & {(one.worker, one.round) for one in of_second}
    return (
        [one for one in of_first if (one.worker, one.round) in both],
        [one for one in of_second if (one.worker, one.round) in both],
    )


def _of(outcomes: Sequence[Outcome], candidate: Candidate) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.candidate == candidate.label]


def _behind_the_bars(race: Race, label: str, rival: str, objective: Objective) -> float:
    """Tell by what factor a heap is worse in the race than the verdict will want of it; 1 and less: it is not."""

    def read_cost(outcome: Outcome, workload: Workload) -> float | None:
        return compute_cost(outcome, workload, objective)

    def read_resident(outcome: Outcome, _: Workload) -> float | None:
        return compute_resident(outcome)

    reads: dict[str, Callable[[Outcome, Workload], float | None]] = {
        "memory": read_resident,
        "time": compute_time,
    }
    bars = dict.fromkeys(reads, 1 + TOLERATED) | {objective: 1 - WORTH}
    reads.setdefault(objective, read_cost)
    return max((race.compare(label, rival, read) or 1.0) / bars[figure] for figure, read in reads.items())


def check_weights(traces: Sequence[Path], weights: Sequence[float]) -> None:
    """Refuse weights that do not fit the recordings.

    Raises:
        HeapsmithError: Their number is not that of the recordings that are designed for, or one is not positive.
    """
    wanted = max(1, len(traces) - 1)
    if weights and len(weights) != wanted:
        raise HeapsmithError(
            f"{len(weights)} weights for {wanted} recordings", "the last of several is held out and has none",
            "give --weight once for each of the others",
        )  # fmt: skip
    if any(not weight > 0 for weight in weights):
        raise HeapsmithError("a weight is not above 0", hint="leave the recording out instead")


def check_traces(traces: Sequence[Path]) -> None:
    """Refuse recordings that are named twice: what is held out must not have been looked at.

    Raises:
        TraceError: One is there twice.
    """
    seen: set[Path] = set()
    for path in traces:
        if path.resolve() in seen:
            raise TraceError(
                f"{path} is named twice", "one would be held out, and known all the same", "name it once"
            )
        seen.add(path.resolve())

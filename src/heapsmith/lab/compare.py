"""Comparing candidates: rehearsal, rounds, ledger, and what the outcomes amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from heapsmith.errors import RunError
from heapsmith.lab.comparison import Comparison, compute_comparison
from heapsmith.lab.executors import HERE, Workers
from heapsmith.lab.ledger import Ledger
from heapsmith.lab.rehearsal import Rehearsal, fit
from heapsmith.lab.trials import Job, Outcome, Workload, iterate_trials
from heapsmith.peers.candidate import Candidate

DEFAULT_RUNS: Final = 10
SEED: Final = 20


class Laboratory:
    """Runs rounds of candidates on one workload and remembers every outcome.

    Args:
        workload: What every trial does.
        rehearsal: What its rehearsal showed.
        ledger: Where outcomes are kept and recalled from.
        workers: Where rounds run.
        progress: Told of each outcome, also of recalled ones.
        begins: Told of each candidate before it runs.
    """

    def __init__(
        self,
        workload: Workload,
        rehearsal: Rehearsal,
        ledger: Ledger,
        *,
        workers: Workers = HERE,
        progress: Callable[[Outcome], None] = lambda _: None,
        begins: Callable[[Candidate], None] = lambda _: None,
    ) -> None:
        self.workload = workload
        self.rehearsal = rehearsal
        self.outcomes: list[Outcome] = []
        self._ledger = ledger
        self.workers = workers
        self._progress = progress
        self._begins = begins

    def run_rounds(
        self,
        candidates: Sequence[Candidate],
        numbers: range,
        phase: str,
        *,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run rounds; a candidate that fails once is out of the later ones.

        Args:
            candidates: Who takes part, baseline first.
            numbers: The numbers of the rounds.
            phase: What they are for; part of what outcomes are recalled by.
            enough: Asked before each round whether to stop here.

        Raises:
            RunError: The baseline itself failed: there is nothing to compare with any more.
        """
        candidates = fit(candidates, self.rehearsal)
        by_label = {candidate.label: candidate for candidate in candidates}
        out: set[str] = set()

        def jobs() -> Iterator[Job]:
            for number in numbers:
                if enough():
                    return
                left: list[Candidate] = []
                for candidate in candidates:
                    known = self._ledger.recall(candidate, phase, number)
                    if known is None:
                        left.append(candidate)
                    else:
                        self._take(known, out, candidates[0])
                if left:
                    yield Job(
                        workload=self.workload,
                        candidates=tuple(left),
                        phase=phase,
                        round=number,
                        seed=SEED,
                        reference_digest=self.rehearsal.digest,
                    )

        for outcome in iterate_trials(
            jobs(), self.workers.executor, is_out=out.__contains__, begins=self._begins
        ):
            self._ledger.keep(by_label[outcome.candidate], outcome)
            self._take(outcome, out, candidates[0])

    def _take(self, outcome: Outcome, out: set[str], baseline: Candidate) -> None:
        self.outcomes.append(outcome)
        self._progress(outcome)
        if outcome.failed is None:
            return
        out.add(outcome.candidate)
        if outcome.candidate == baseline.label:
            raise RunError(
                f"the baseline `{baseline.label}` failed in round {outcome.round + 1}",
                outcome.failed,
                "it worked before: not dependable enough to compare with; with --same-output, text that"
                " differs from run to run (times, addresses) is a failure too",
            )


def compare(laboratory: Laboratory, candidates: Sequence[Candidate], runs: int) -> Comparison:
    """Compare candidates with the first of them; Ctrl-C gives the comparison of the runs so far.

    Args:
        laboratory: Where it happens.
        candidates: Who takes part, baseline first.
        runs: How often each runs.
    """
    interrupted = False
    try:
        laboratory.run_rounds(candidates, range(runs), "compare")
    except KeyboardInterrupt:
        interrupted = True
    return compute_comparison(laboratory.workload, candidates, laboratory.outcomes, interrupted=interrupted)

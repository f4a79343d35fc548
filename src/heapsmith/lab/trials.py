"""Trials: the real program under each candidate, in rounds, in random order within each round."""

from __future__ import annotations

import os
import random
import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Final

import msgspec

from heapsmith.errors import HeapsmithError, RunError
from heapsmith.lab.replay.player import Replay, play, watched
from heapsmith.peers.candidate import Candidate
from heapsmith.run.inside import watch_inside
from heapsmith.run.keeper import describe_code
from heapsmith.run.outside import Service, Subject, Watched, refuse_taken_port, watch

PORT: Final = "{port}"
"""Stands in a command for a port that is free at the time of each run."""
ROUNDS_IN_FLIGHT: Final = 64


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What the program does in every trial.

    Args:
        command: The words of the command.
        directory: Its working directory.
        environment: The environment it has today.
        service: How it serves, or None for one that ends by itself.
        timeout_s: Seconds after which a run counts as hung; None: never.
        same_output: Standard output has to be the same under every candidate.
        metric: A pattern with one group: a number in the output of the load command (or of the program).
        metric_less_is_better: Whether a smaller number is the better one.
        exit_code: The exit code of a run that went well.
        probe: Count inside as well: the watch is preloaded in front of every candidate.
        replay: Each trial plays this instead of running the command, which then only names it.
    """

    command: tuple[str, ...]
    directory: str
    environment: dict[str, str]
    service: Service | None = None
    timeout_s: float | None = None
    same_output: bool = False
    metric: str | None = None
    metric_less_is_better: bool = False
    exit_code: int = 0
    probe: bool = False
    replay: Replay | None = None

    def words(self) -> str:
        """The command as one would type it."""
        return shlex.join(self.command)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One trial.

    Args:
        candidate: The candidate's label.
        phase: What it was run for ("compare", "search", "confirm", ...).
        round: The round it belongs to, from 0; a round has each candidate once.
        worker: Where it ran: timings are only comparable within one worker.
        seen: What was seen from outside.
        metric: The number the output reported, or None.
    """

    candidate: str
    phase: str
    round: int
    worker: str
    seen: Watched
    metric: float | None = None

    @property
    def failed(self) -> str | None:
        """Why the trial is worthless, or None."""
        return self.seen.failed


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One round: the unit that is sent to a worker, so that its trials can be compared with each other."""

    workload: Workload
    candidates: tuple[Candidate, ...]
    phase: str
    round: int
    seed: int
    reference_digest: str | None = None

    def in_order(self) -> list[Candidate]:
        """The candidates in the random order of this round."""
        shuffled = list(self.candidates)
        random.Random(f"{self.seed}/{self.phase}/{self.round}").shuffle(shuffled)
        return shuffled


def check_metric(pattern: str) -> None:
    """Refuse a pattern that cannot yield one number.

    Raises:
        HeapsmithError: It is no regular expression, or has not exactly one group.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise HeapsmithError(f"{pattern!r} is not a pattern", str(error)) from None
    if groups != 1:
        raise HeapsmithError(
            f"the pattern {pattern!r} has {groups} groups", "one is needed, around the number",
            "for example 'Requests/sec: ([0-9.]+)'",
        )  # fmt: skip


def here_name() -> str:
    """Name this machine, where trials run one after the other, also those of a call that goes on with another's."""
    return socket.gethostname()


def worker_name() -> str:
    """Name the worker of an executor that this code runs on: machine, process and thread."""
    return f"{socket.gethostname()}/{os.getpid()}/{threading.get_native_id()}"


def run_once(workload: Workload, candidate: Candidate, *, scan: bool = False) -> tuple[Watched, float | None]:
    """Run the workload once under a candidate.

    Args:
        workload: What to run.
        candidate: What to run it on.
        scan: Note which files the program has mapped.

    Returns:
        What was seen, and the metric (None where there is no pattern).

    Raises:
        RunError: Its port is taken by another program.
    """
    if workload.replay is not None:
        played = play(workload.replay, candidate, workload.environment, workload.timeout_s)
        return watched(played), None
    workload = _with_free_port(workload)
    if workload.service is not None:
        refuse_taken_port(workload.service)
    subject = Subject(
        command=workload.command,
        directory=workload.directory,
        environment=candidate.environment(workload.environment),
        library=candidate.library,
        service=workload.service,
        timeout_s=workload.timeout_s,
        keep_output=workload.same_output or workload.metric is not None,
        scan=scan,
    )
    seen = watch_inside(subject) if workload.probe and not scan else watch(subject)
    failed = seen.failed or _bad_end(seen, workload)
    metric = None
    if failed is None and seen.reached is False:
        failed = "the library never arrived in the program (static? another C library? setuid?)"
    if failed is None and workload.metric is not None:
        # The last one counts: load generators print interim figures first.
        numbers: list[str] = re.findall(workload.metric, seen.output)
        try:
            metric = float(numbers[-1].replace(",", ""))
        except (IndexError, ValueError):
            failed = f"no number in the output matches {workload.metric!r}"
    return msgspec.structs.replace(seen, failed=failed), metric


def _bad_end(seen: Watched, workload: Workload) -> str | None:
    if workload.service is not None or seen.code == workload.exit_code:
        return None
    return describe_code(seen.code)


def _with_free_port(workload: Workload) -> Workload:
    service = workload.service
    texts = [*workload.command, *((service.ready, service.load or "") if service else ())]
    if not any(PORT in text for text in texts):
        return workload
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    if service is not None:
        service = msgspec.structs.replace(
            service,
            ready=service.ready.replace(PORT, port),
            load=None if service.load is None else service.load.replace(PORT, port),
        )
    command = tuple(word.replace(PORT, port) for word in workload.command)
    return msgspec.structs.replace(workload, command=command, service=service)


def run_trial(job: Job, candidate: Candidate, worker: str) -> Outcome:
    """Run one candidate of a round, here, which is called ``worker``."""
    seen, metric = run_once(job.workload, candidate)
    reference = job.reference_digest
    if seen.failed is None and reference is not None and seen.output_digest != reference:
        seen = msgspec.structs.replace(seen, failed="standard output differs from what it is today")
    # The text has served: what is kept of an outcome are its figures.
    seen = msgspec.structs.replace(seen, output="", objects=[])
    return Outcome(
        candidate=candidate.label,
        phase=job.phase,
        round=job.round,
        worker=worker,
        seen=seen,
        metric=metric,
    )


def run_round(job: Job) -> list[Outcome]:
    """Run all trials of a round, one after the other (on a worker)."""
    return [run_trial(job, candidate, worker_name()) for candidate in job.in_order()]


def iterate_trials(
    jobs: Iterable[Job],
    executor: Executor | None = None,
    *,
    is_out: Callable[[str], bool] = lambda _: False,
    begins: Callable[[Candidate], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Run rounds and yield each outcome as soon as it is known.

    Args:
        jobs: The rounds; without an executor, each is asked for only when the one before is done.
        executor: Where rounds run; None: here, one trial after the other.
        is_out: Tells of a label that it need not be run any more.
        begins: Told of each candidate before it runs (without an executor only).

    Yields:
        Outcomes, those of one round in the order they ran in.
    """
    if executor is None:
        for job in jobs:
            for candidate in job.in_order():
                if not is_out(candidate.label):
                    begins(candidate)
                    yield run_trial(job, candidate, here_name())
        return
    waiting: set[Future[list[Outcome]]] = set()
    source = iter(jobs)
    try:
        while True:
            while len(waiting) < ROUNDS_IN_FLIGHT and (job := next(source, None)) is not None:
                left = tuple(candidate for candidate in job.candidates if not is_out(candidate.label))
                if left:
                    waiting.add(executor.submit(run_round, msgspec.structs.replace(job, candidates=left)))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield from _result(future)
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Future[list[Outcome]]) -> Sequence[Outcome]:
    try:
        return future.result()
    except HeapsmithError:
        raise
    except Exception as error:
        raise RunError(
            "a worker broke off",
            f"{type(error).__name__}: {error}",
            "is heapsmith installed on it, the same version?",
        ) from error

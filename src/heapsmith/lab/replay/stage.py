"""A laboratory whose trials are replays: a trace compared and raced like a command."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heapsmith.lab.compare import Laboratory
from heapsmith.lab.executors import HERE, Workers
from heapsmith.lab.ledger import Ledger
from heapsmith.lab.rehearsal import Python, Rehearsal
from heapsmith.lab.replay.plan import Part, Plan, choose_process, make_plan
from heapsmith.lab.replay.player import as_replay, play, watched
from heapsmith.lab.replay.speed import MAX, Speed
from heapsmith.lab.trials import Outcome, Workload
from heapsmith.peers import python
from heapsmith.peers.candidate import Candidate, read_candidate
from heapsmith.trace import OperationFlag, Trace

TOUCHED = "every page of a block is assumed to be touched: traces do not say which were"


@dataclass(frozen=True)
class Stage:
    """A trace, ready to be replayed.

    Attributes:
        plan: What candidates play.
        objects_plan: The same with CPython's own objects, for candidates with ``python=malloc``; None where the trace
            has none.
        workload: What a trial does.
        rehearsal: What the first replay, on the C library's malloc, showed.
    """

    plan: Plan
    objects_plan: Plan | None
    workload: Workload
    rehearsal: Rehearsal

    def notes(self) -> list[str]:
        """Say what a person has to know of the figures."""
        return [*self.plan.notes, TOUCHED]

    def laboratory(
        self,
        *,
        workers: Workers = HERE,
        progress: Callable[[Outcome], None] = lambda _: None,
        begins: Callable[[Candidate], None] = lambda _: None,
    ) -> Laboratory:
        """Make a laboratory of it; outcomes live as long as the plan."""
        ledger = Ledger(self.workload, folder=self.plan.path.parent / "trials")
        return Laboratory(
            self.workload, self.rehearsal, ledger, workers=workers, progress=progress, begins=begins
        )


def has_python_objects(trace: Trace, process: int) -> bool:
    """Tell whether the trace has blocks out of CPython's own arenas."""
    for batch in trace.batches(process):
        if np.any(batch.operation & OperationFlag.PYTHON):
            return True
        if batch.first_event > 2_000_000:
            return False
    return False


@contextlib.contextmanager
def set_stage(
    trace: Trace,
    *,
    speed: Speed = MAX,
    pid: int | None = None,
    part: Part | None = None,
    perturbed_share: float = 0.0,
    candidates: Sequence[Candidate] | None = None,
    linked_with: str | None = None,
    timeout_s: float | None = None,
    folder: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Generator[Stage]:
    """Make the plans of a trace, rehearse, and remove the plans afterwards.

    Args:
        trace: The trace.
        speed: The pace.
        pid: Which process; the one with the most events when left out.
        part: Only these events.
        perturbed_share: So many of the blocks get another size.
        candidates: Who will play: without one with ``python=malloc`` its plan is not made; None: anybody.
        linked_with: The allocator library that the program is linked with: its replay as it is plays on that one.
        timeout_s: After which a replay counts as hung; None: never.
        folder: Where plans go; the temporary directory when left out.
        progress: Told what share of the plans is made.

    Raises:
        TraceError: The trace cannot be replayed.
        RunError: The C library's own malloc fails on it.
    """
    with contextlib.ExitStack() as stack:

        def made(python_objects: bool) -> Plan:
            plan = make_plan(
                trace, speed=speed, pid=pid, part=part, perturbed_share=perturbed_share, python_objects=python_objects,
                folder=folder, progress=progress,
            )  # fmt: skip
            stack.callback(plan.remove)
            return plan

        wanted = candidates is None or any(
            dict(one.knobs).get(python.KNOB.name) == "malloc" for one in candidates
        )
        objects = None
        python_there = has_python_objects(trace, choose_process(trace, pid).index)
        if python_there and wanted:
            objects = made(True)
        plan = made(False)
        replay = as_replay(plan, objects)
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        if linked_with is not None:
            environment["LD_PRELOAD"] = linked_with
        glibc = read_candidate("glibc")
        played = play(replay, glibc, environment, timeout_s)
        workload = Workload(
            command=("replay", plan.source.name),
            directory=str(Path.cwd()),
            environment=environment,
            timeout_s=timeout_s,
            replay=replay,
        )
        seen = watched(played)
        rehearsal = Rehearsal(
            seen=seen,
            duration_s=max(seen.duration_s or 0.0, 1e-3),
            python=Python((0,), has_mimalloc=False, free_threaded=False) if python_there else None,
            linked_with=None,
            c_library=None,
            unreachable=None,
            reads_tunables=False,
            embedded=(),
            digest=None,
        )
        yield Stage(plan, objects, workload, rehearsal)

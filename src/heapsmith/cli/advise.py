"""`heapsmith advise`: which allocator, with which knobs, is right for this program."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heapsmith.cli.workload_options import WorkloadOptions
from heapsmith.errors import HeapsmithError
from heapsmith.lab.compare import Laboratory
from heapsmith.lab.executors import open_executor
from heapsmith.lab.field import read_field
from heapsmith.lab.ledger import Ledger, describe_machine
from heapsmith.lab.rehearsal import rehearse
from heapsmith.show.advice_page import write_advice_page
from heapsmith.show.advise import build_advice_document, render_advice
from heapsmith.show.compare_page import check_page
from heapsmith.show.service_lines import Place
from heapsmith.show.terminal import print_json, print_text
from heapsmith.show.trials_progress import TrialsProgress
from heapsmith.tune.advise import advise as decide
from heapsmith.tune.objective import Objective
from heapsmith.units import parse_seconds


def advise(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    allocator: Annotated[
        list[str] | None,
        Parameter(
            name=["--allocator", "-a"],
            help="search among these alone (as for compare), and what is a knob away; repeat it",
            negative="",
        ),
    ] = None,
    objective: Annotated[
        Objective, Parameter(help="what counts more: resident bytes, time, or both alike")
    ] = "balanced",
    budget: Annotated[str, Parameter(help="time for search and confirmation")] = "10m",
    also: Annotated[
        list[str] | None,
        Parameter(help="another command on which the answer must not be worse; repeat it", negative=""),
    ] = None,
    place: Annotated[Place, Parameter(name="--as", help="where the answer will be pasted")] = "env",
    options: WorkloadOptions | None = None,
    executor: Annotated[
        str | None, Parameter(help="dask://HOST:PORT spreads the rounds over a cluster")
    ] = None,
    resume: Annotated[
        bool, Parameter(help="keep the trials of an earlier, broken off call", negative="")
    ] = False,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="write an HTML page with figures")
    ] = None,
    json: Annotated[bool, Parameter(help="print one JSON document", negative="")] = False,
) -> int:
    """Search allocators and knobs for a program, confirm the best in fresh runs, and say what to use or keep.

    Example: heapsmith advise --budget 1m -- python3 -c "print(len([[i] for i in range(9**5)]))"
    """
    named = [candidate for candidate in read_field(allocator or ()) if not candidate.changes_nothing]
    check_page(output)
    budget_s = parse_seconds(budget)
    options = options or WorkloadOptions()
    commands = [command, *map(_read_command, also or ())]
    with (
        open_executor(executor) as workers,
        TrialsProgress(budget_s, "rehearsal", 1.0) as progress,
    ):
        began = time.monotonic()
        laboratories = [
            Laboratory(
                workload := options.workload(words),
                rehearse(workload),
                Ledger(workload, resume=resume),
                workers=workers,
                progress=lambda _: progress.advance(min(budget_s, time.monotonic() - began)),
                begins=lambda candidate: progress.say(f"trying {candidate.label}"),
            )
            for words in commands
        ]
        advice = decide(
            laboratories[0], laboratories[1:], objective, budget_s, named=named, stage=progress.say
        )
    if output is not None:
        write_advice_page(output, advice, place)
    if json:
        print_json(build_advice_document(advice, place, describe_machine()))
    else:
        print_text(render_advice(advice, place))
    return 130 if advice.interrupted else 0


def _read_command(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise HeapsmithError(
            f"--also {text!r} is no command", str(error), "quote it as for a shell"
        ) from None

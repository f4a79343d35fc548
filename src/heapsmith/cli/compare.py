"""`heapsmith compare`: the real program under several allocators, interleaved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from heapsmith.cli.workload_options import WorkloadOptions
from heapsmith.errors import HeapsmithError
from heapsmith.lab.compare import DEFAULT_RUNS, Laboratory
from heapsmith.lab.compare import compare as compute
from heapsmith.lab.executors import open_executor
from heapsmith.lab.ledger import Ledger, describe_machine
from heapsmith.lab.rehearsal import rehearse
from heapsmith.show.compare import build_comparison_document, render_comparison
from heapsmith.show.compare_page import check_page, write_page
from heapsmith.show.terminal import print_json, print_text
from heapsmith.show.trials_progress import TrialsProgress
from heapsmith.tune.candidates import choose_candidates
from heapsmith.tune.objective import Objective, recommend


def compare(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    allocator: Annotated[
        list[str] | None,
        Parameter(
            name=["--allocator", "-a"],
            help="NAME, NAME:knob=value,..., a preset, SPEC.toml or LIB.so; `system` is the program as it is; repeat it",
            negative="",
        ),
    ] = None,
    runs: Annotated[int, Parameter(help="trials of each allocator")] = DEFAULT_RUNS,
    probe: Annotated[
        bool,
        Parameter(
            help="count inside as well, in front of each allocator: live bytes and blowup", negative=""
        ),
    ] = False,
    objective: Annotated[Objective, Parameter(help="what the recommendation weighs more")] = "balanced",
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
    """Run a program under several allocators, interleaved in random order, and tell differences from noise.

    Example: heapsmith compare -a jemalloc -a glibc:arena_max=1 --runs 5 -- python3 -c "print(len([[i] for i
    in range(9**5)]))"
    """
    candidates = choose_candidates(allocator)
    if runs < 1:
        raise HeapsmithError(
            f"--runs {runs} measures nothing", hint="10 tell small differences from noise, 5 large ones"
        )
    check_page(output)
    workload = msgspec.structs.replace((options or WorkloadOptions()).workload(command), probe=probe)
    rehearsal = rehearse(workload)
    ledger = Ledger(workload, resume=resume)
    total = runs * len(candidates)
    with (
        open_executor(executor) as workers,
        TrialsProgress(total, "comparing", rehearsal.duration_s) as progress,
    ):
        laboratory = Laboratory(
            workload,
            rehearsal,
            ledger,
            workers=workers,
            progress=progress.count,
            begins=lambda candidate: progress.say(candidate.label),
        )
        comparison = compute(laboratory, candidates, runs)
    recommendation = recommend(comparison, laboratory.outcomes, objective)
    if output is not None:
        write_page(output, comparison, recommendation, rehearsal.notes())
    if json:
        print_json(
            build_comparison_document(comparison, recommendation, describe_machine(), rehearsal.notes())
        )
    else:
        print_text(render_comparison(comparison, recommendation, rehearsal.notes()))
    return 130 if comparison.interrupted else 0

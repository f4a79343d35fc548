"""`heapsmith replay`: a recorded program's allocations over several allocators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heapsmith.errors import EXIT_FAILED, HeapsmithError
from heapsmith.lab.compare import compare
from heapsmith.lab.ledger import describe_machine
from heapsmith.lab.replay.speed import read_speed
from heapsmith.lab.replay.stage import set_stage
from heapsmith.lab.replay.validation import validate as compute_validation
from heapsmith.show.compare_page import check_page, write_page
from heapsmith.show.replaying import build_replay_document, render_replay
from heapsmith.show.terminal import print_json, print_text
from heapsmith.show.trials_progress import TrialsProgress
from heapsmith.trace import open_trace
from heapsmith.tune.heaps import choose_players
from heapsmith.tune.objective import Objective, recommend
from heapsmith.units import parse_seconds

_DEFAULT_RUNS = 5


def replay(
    trace: Annotated[Path, Parameter(help="what `heapsmith record` wrote")],
    *,
    allocator: Annotated[
        list[str] | None,
        Parameter(
            name=["--allocator", "-a"],
            help="NAME, NAME:knob=value,..., SPEC.toml or /path/LIB.so; repeat it; the first is the baseline",
            negative="",
        ),
    ] = None,
    speed: Annotated[
        str,
        Parameter(help="max; 1x, as recorded (decay needs it); or a duration from which on rests are kept"),
    ] = "max",
    runs: Annotated[int, Parameter(help="replays on each allocator")] = _DEFAULT_RUNS,
    pid: Annotated[
        int | None, Parameter(help="which recorded process; default: the one with most events")
    ] = None,
    objective: Annotated[Objective, Parameter(help="what the recommendation weighs more")] = "balanced",
    timeout: Annotated[str, Parameter(help="end a replay that takes longer; it counts as hung")] = "10min",
    validate: Annotated[
        bool,
        Parameter(
            help="compare the first allocator with the recorded run's memory; exit 1 beyond 5 %", negative=""
        ),
    ] = False,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="write an HTML page with figures")
    ] = None,
    json: Annotated[bool, Parameter(help="print one JSON document", negative="")] = False,
) -> int:
    """Play a recorded program's allocations over several allocators, each in a process of its own.

    Example: heapsmith replay /tmp/a.heap --allocator glibc --allocator small --runs 3
    """
    pace = read_speed(speed)
    if runs < 1:
        raise HeapsmithError(f"--runs {runs} measures nothing", hint="5 tell differences from noise")
    check_page(output)
    recording = open_trace(trace)
    candidates = choose_players(allocator)
    with TrialsProgress(1.0, "reading the trace", 1.0) as progress, set_stage(
        recording, speed=pace, pid=pid, candidates=candidates, timeout_s=parse_seconds(timeout),
        progress=progress.advance,
    ) as stage:  # fmt: skip
        progress.begin(runs * len(candidates), "replaying", stage.rehearsal.duration_s)
        laboratory = stage.laboratory(
            progress=progress.count,
            begins=lambda candidate: progress.say(f"replaying on {candidate.label}"),
        )
        comparison = compare(laboratory, candidates, runs)
        validation = (
            compute_validation(
                recording,
                stage.workload.replay,
                candidates[0],
                stage.workload.environment,
                pid=pid,
                timeout_s=parse_seconds(timeout),
            )
            if validate and stage.workload.replay is not None
            else None
        )
    recommendation = recommend(comparison, laboratory.outcomes, objective)
    if output is not None:
        write_page(output, comparison, recommendation, stage.notes())
    if json:
        print_json(
            build_replay_document(comparison, recommendation, describe_machine(), stage.notes(), validation)
        )
    else:
        print_text(render_replay(comparison, recommendation, stage.notes(), validation))
    if comparison.interrupted:
        return 130
    return EXIT_FAILED if validation is not None and not validation.faithful else 0

"""`heapsmith tune`: a heap designed for recorded programs, that must earn its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heapsmith.cli.workload_options import WorkloadOptions
from heapsmith.errors import HeapsmithError
from heapsmith.lab.compare import Laboratory
from heapsmith.lab.executors import open_executor
from heapsmith.lab.ledger import Ledger, describe_machine
from heapsmith.lab.rehearsal import rehearse
from heapsmith.outputs import write_output
from heapsmith.show.compare_page import check_page
from heapsmith.show.terminal import print_json, print_text
from heapsmith.show.trials_progress import TrialsProgress
from heapsmith.show.tuning import build_tuning_document, render_spec, render_tuning
from heapsmith.show.tuning_page import write_tuning_page
from heapsmith.tune.objective import Objective
from heapsmith.tune.tailor import Tailor, check_traces, check_weights
from heapsmith.units import parse_seconds


def tune(
    *words: Annotated[str, Parameter(allow_leading_hyphen=True, help="FILE.heap ... [-- COMMAND]")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="the heap's description (SPEC.toml)")],
    objective: Annotated[
        Objective, Parameter(help="what counts more: resident bytes, time, or both alike")
    ] = "balanced",
    budget: Annotated[str, Parameter(help="time for search and verification")] = "10m",
    weight: Annotated[
        list[float] | None,
        Parameter(
            help="how much a recording counts; once for each but the last, which is held out", negative=""
        ),
    ] = None,
    report: Annotated[Path | None, Parameter(help="the page; default: beside SPEC.toml, as .html")] = None,
    options: WorkloadOptions | None = None,
    executor: Annotated[
        str | None, Parameter(help="dask://HOST:PORT spreads the replays over a cluster")
    ] = None,
    force: Annotated[
        bool, Parameter(help="replace SPEC.toml and the page if they are there", negative="")
    ] = False,
    json: Annotated[bool, Parameter(help="print one JSON document", negative="")] = False,
) -> int:
    """Design a heap for recorded programs, race it against every allocator and its knobs, verify it, and say what to use.

    The last of several recordings is held out of the search. What follows `--` is the real program: the answer has to
    hold on it too.

    Example: heapsmith tune /tmp/a.heap -o /tmp/a.toml --force --objective memory --budget 1m
    """
    traces, command = _read_words(words)
    page = report or output.with_suffix(".html")
    for path in (output, page):
        check_page(path)
        if path.exists() and not force:
            raise HeapsmithError(
                f"{path} is there already", hint="give another name, or --force to replace it"
            )
    check_traces(traces)
    check_weights(traces, weight or [])
    budget_s = parse_seconds(budget)
    if budget_s < 10:
        raise HeapsmithError(
            f"--budget {budget} is too small", "a heap takes seconds to make", "give 1m or more"
        )
    with open_executor(executor) as workers, TrialsProgress(budget_s, "reading", 1.0) as progress:

        def tell(what: str, share: float) -> None:
            progress.say(what)
            progress.advance(share * budget_s)

        real = None
        if command:
            workload = (options or WorkloadOptions()).workload(command)
            progress.say("rehearsing the program")
            real = Laboratory(
                workload,
                rehearse(workload),
                Ledger(workload),
                begins=lambda candidate: progress.say(f"running the program on {candidate.label}"),
            )
        tailor = Tailor(traces, weight or [], objective, budget_s, real=real, workers=workers, tell=tell)
        answer = tailor.make()
    write_output(output, render_spec(answer, traces))
    write_tuning_page(page, answer, traces, output)
    if json:
        print_json(build_tuning_document(answer, traces, output, describe_machine()))
    else:
        print_text(render_tuning(answer, traces, output, page))
    return 130 if answer.interrupted else 0


def _read_words(words: tuple[str, ...]) -> tuple[list[Path], tuple[str, ...]]:
    """Tell the recordings, which come first, from the command."""
    place = next((number for number, word in enumerate(words) if not word.endswith(".heap")), len(words))
    traces = [Path(word) for word in words[:place]]
    if not traces:
        what = f"{words[0]} is no recording" if words else "no recording is named"
        raise HeapsmithError(
            what, hint="`heapsmith record -o FILE.heap -- COMMAND` makes one; its name ends in .heap"
        )
    return traces, words[place:]

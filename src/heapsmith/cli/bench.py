"""``heapsmith bench``: measurements of heapsmith itself, interleaved, as ratios."""

from __future__ import annotations

import contextlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from heapsmith.cli.local_suites import add_local_suites
from heapsmith.errors import CheckError, HeapsmithError
from heapsmith.lab.bench import BENCH_SCHEMA, machine, run_bench
from heapsmith.lab.comparison import Comparison
from heapsmith.lab.jobs import missing_for, select_workloads, spec_made_for
from heapsmith.lab.record_cost import measure_record_cost
from heapsmith.lab.statistics_cost import measure_statistics_cost, select_cases
from heapsmith.lab.subjects import Subject, resolve_subject, select_subjects, versions
from heapsmith.lab.watch_cost import SUBJECTS, measure, prepared
from heapsmith.lab.watch_cost import Subject as WatchedProgram
from heapsmith.outputs import write_output
from heapsmith.show.bench import build_cost_document, render_cost_row, render_cost_table
from heapsmith.show.bench_report import noise_line, render_page, write_report
from heapsmith.show.benching import render_case, render_progress, render_suites
from heapsmith.show.compare_page import check_page
from heapsmith.show.record_cost import render_record_case, render_record_cost
from heapsmith.show.statistics_cost import render_statistics_case, render_statistics_cost
from heapsmith.show.terminal import print_text

bench = App(
    name="bench",
    help="Measure heapsmith: interleaved runs, medians of ratios with their spread.\n\n"
    "Example: heapsmith bench threads loop --runs 3",
)


@bench.command
def watch(
    *names: Annotated[str, Parameter(help="Only these workloads.")],
    runs: Annotated[int, Parameter(help="How often each program runs, unwatched and watched.")] = 10,
    json: Annotated[bool, Parameter(help="One JSON document on standard output.")] = False,
) -> None:
    """What watching costs: each program unwatched and watched, in random order.

    Example: heapsmith bench watch loop --runs 5
    """
    known = {subject.name: subject for subject in SUBJECTS}
    if unknown := [name for name in names if name not in known]:
        raise CheckError(f"there is no workload {unknown[0]!r}", hint="there are " + ", ".join(known))
    if runs < 1:
        raise CheckError("--runs has to be 1 or more")
    console = Console(stderr=True)
    rows = list[tuple[WatchedProgram, Comparison]]()
    for subject in [known[name] for name in names] or SUBJECTS:
        with prepared(subject) as command, contextlib.ExitStack() as stack:
            if command is None:
                console.print(f"heapsmith: {subject.name} is left out: this machine lacks {subject.missing}")
                continue
            status = stack.enter_context(console.status(f"{subject.title}"))
            done = iter(range(1, 2 * runs + 1))
            comparison = measure(
                command,
                runs,
                lambda _, s=status, t=subject.title, d=done: s.update(f"{t}: run {next(d)} of {2 * runs}"),
            )
        rows.append((subject, comparison))
        console.print(render_cost_row(subject, comparison))
    if json:
        print(msgspec.json.encode(build_cost_document(rows)).decode())  # noqa: T201
    else:
        print_text(render_cost_table(rows))


def suites(
    *names: Annotated[
        str,
        Parameter(
            help="Only these: local, locality, threads, memory, field, real, spike, startup, or one workload."
        ),
    ],
    allocator: Annotated[
        list[str] | None,
        Parameter(help="Allocators to compare with the system's malloc; may be repeated.", negative=""),
    ] = None,
    runs: Annotated[int, Parameter(help="How often each workload runs on each.")] = 6,
    quick: Annotated[bool, Parameter(help="One workload of each kind, each twice.", negative="")] = False,
    json: Annotated[bool, Parameter(help="One JSON document on standard output.", negative="")] = False,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Write a page (HTML) with tables and pictures.")
    ] = None,
    report: Annotated[
        Path | None, Parameter(help="Write tables and pictures into this document (Markdown).")
    ] = None,
) -> None:
    """Allocators side by side: interleaved runs of workloads, as ratios to the system's malloc.

    Example: heapsmith bench threads loop --allocator default --runs 3
    """
    runs = 2 if quick and runs == 6 else runs
    if runs < 1:
        raise CheckError("--runs has to be 1 or more")
    for path in (output, report):
        check_page(path)
    chosen = select_workloads(names, quick=quick)
    console = Console(stderr=True, highlight=False)
    field, missing = select_subjects(allocator)
    for line in missing:
        console.print(f"heapsmith: {line}")
    for suite, workloads in list(chosen.items()):
        for name in list(workloads):
            if lacking := missing_for(name):
                console.print(f"heapsmith: {name} is left out: this machine lacks {lacking}")
                workloads.remove(name)
        if not workloads:
            del chosen[suite]

    def made_for(suite: str) -> Subject | None:
        if (spec := spec_made_for(suite)) is None or quick or allocator:
            return None
        try:
            return replace(resolve_subject(str(spec)), name=f"made for {suite}")
        except HeapsmithError as error:
            console.print(f"heapsmith: the heap made for {suite} is left out: {error}")
            return None

    with console.status("measuring") as status:
        measured = run_bench(
            chosen,
            field,
            rounds=runs,
            on_case=lambda cases: console.print(render_case(cases)),
            on_run=lambda progress: status.update(render_progress(progress)),
            made_for=made_for,
        )
    facts = machine() | {"versions": ", ".join(versions(field))}
    command = "heapsmith " + shlex.join(sys.argv[1:])
    if json:
        document = {"schema": BENCH_SCHEMA, "machine": facts, "runs": runs, "suites": measured}
        print(msgspec.json.encode(document).decode())  # noqa: T201
    else:
        print_text(render_suites(measured))
        if line := noise_line(measured):
            console.print(line)
    if output is not None:
        write_output(output, render_page(measured, facts, command))
    if report is not None:
        write_report(report, measured, facts, command)


bench.default(suites)
bench.command(suites, name="heap")


@bench.command
def stats(
    *names: Annotated[
        str, Parameter(help="Only these: call (in the program), read (another process), scrape (Prometheus).")
    ],
    runs: Annotated[int, Parameter(help="How often each is measured.")] = 6,
    json: Annotated[bool, Parameter(help="One JSON document on standard output.", negative="")] = False,
) -> None:
    """What the statistics call costs, beside the allocators' own statistics and psutil.

    Example: heapsmith bench stats read --runs 3
    """
    if runs < 1:
        raise CheckError("--runs has to be 1 or more")
    chosen = select_cases(names)
    console = Console(stderr=True, highlight=False)
    with console.status("measuring") as status:
        cases = measure_statistics_cost(
            chosen, runs, lambda case: console.print(render_statistics_case(case)), status.update
        )
    if json:
        suites = [{"name": "stats", "cases": cases}]
        document = {"schema": BENCH_SCHEMA, "machine": machine(), "runs": runs, "suites": suites}
        print(msgspec.json.encode(document).decode())  # noqa: T201
    else:
        print_text(render_statistics_cost(cases))


@bench.command
def record(
    *names: Annotated[str, Parameter(help="Only these programs: loop, exchange, rows, objects.")],
    runs: Annotated[int, Parameter(help="How often each program runs in each way.")] = 5,
    json: Annotated[bool, Parameter(help="One JSON document on standard output.", negative="")] = False,
) -> None:
    """What recording costs the program, beside memray and heaptrack where they are installed.

    Example: heapsmith bench record loop --runs 3
    """
    if runs < 1:
        raise CheckError("--runs has to be 1 or more")
    console = Console(stderr=True, highlight=False)
    with console.status("measuring") as status:
        cases = measure_record_cost(
            names, runs, lambda case: console.print(render_record_case(case)), status.update
        )
    if json:
        suites = [{"name": "record", "cases": cases}]
        document = {"schema": BENCH_SCHEMA, "machine": machine(), "runs": runs, "suites": suites}
        print(msgspec.json.encode(document).decode())  # noqa: T201
    else:
        print_text(render_record_cost(cases))


add_local_suites(bench)

"""``heapsmith check stats``: the promises of the statistics call, on any allocators."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.progress import Progress

from heapsmith.errors import EXIT_FAILED
from heapsmith.lab.checks.statistics import (
    STATISTICS_CHECKS_SCHEMA,
    StatisticsVerdict,
    run_statistics_checks,
    select_statistics_checks,
)
from heapsmith.lab.field import read_field
from heapsmith.peers.candidate import AS_IT_IS, Candidate
from heapsmith.show.statistics_checks import render_statistics_checks
from heapsmith.show.terminal import print_json, print_text


def check_statistics(names: Sequence[str], allocators: Sequence[str], *, json: bool) -> int:
    """Run the checks, print the table of verdicts (or the document), and answer the exit code.

    Args:
        names: Of checks; none is all.
        allocators: On which (see `heapsmith allocators`); none is the program's own malloc.
        json: One JSON document on standard output.
    """
    checks = select_statistics_checks(names)
    candidates = read_field(allocators or [AS_IT_IS])
    verdicts = dict[str, list[StatisticsVerdict]]()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("checking", total=len(checks) * len(candidates))

        def advance(candidate: Candidate, verdict: StatisticsVerdict) -> None:
            progress.update(task, advance=1, description=f"{candidate.label}: {verdict.name}")

        for candidate in candidates:
            verdicts[candidate.label] = run_statistics_checks(
                candidate, checks, lambda verdict, of=candidate: advance(of, verdict)
            )
    if json:
        subjects = [
            {"allocator": label, "checks": [msgspec.to_builtins(verdict) for verdict in found]}
            for label, found in verdicts.items()
        ]
        print_json({"schema": STATISTICS_CHECKS_SCHEMA, "subjects": subjects})
    else:
        print_text(render_statistics_checks(checks, verdicts))
    failed = any(verdict.verdict == "fail" for found in verdicts.values() for verdict in found)
    return EXIT_FAILED if failed else 0

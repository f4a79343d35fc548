"""`heapsmith check`: the contract of malloc, against any allocator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from heapsmith.errors import EXIT_FAILED
from heapsmith.lab.checks import CHECKS_SCHEMA, Check, CheckResult, list_checks, run_checks, select_checks
from heapsmith.lab.subjects import Subject, resolve_subject
from heapsmith.show.checking import render_check_list, render_checks, render_verdicts


def check(
    *names: Annotated[str, Parameter(help="Checks, by name or pattern; all of the contract if left out.")],
    allocator: Annotated[
        str, Parameter(help="system, a preset, jemalloc, ..., a spec.toml or a library.")
    ] = "default",
    hardening: Annotated[
        bool | None, Parameter(help="Also what a hardened heap must catch (the default for `hardened`).")
    ] = None,
    list: Annotated[bool, Parameter(help="Only say what can be checked.", negative="")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON document.", negative="")] = False,
) -> int:
    """Hold an allocator against the contract of malloc, one promise after another.

    Example: heapsmith check --allocator system alignment realloc
    """
    if list:
        Console().print(render_check_list(list_checks()))
        return 0
    subject = resolve_subject(allocator)
    chosen = select_checks(names, hardening=allocator == "hardened" if hardening is None else hardening)
    results = _run_with_progress(chosen, subject)
    if json:
        document = {"schema": CHECKS_SCHEMA, "allocator": allocator, "checks": results}
        print(msgspec.json.encode(document).decode())  # noqa: T201
    else:
        console = Console()
        console.print(render_checks(results, {check.name: check.promise for check in chosen}))
        console.print(render_verdicts(allocator, results))
    return EXIT_FAILED if any(result.verdict == "fail" for result in results) else 0


def _run_with_progress(chosen: Sequence[Check], subject: Subject) -> Sequence[CheckResult]:
    console = Console(stderr=True)
    if not console.is_terminal:
        return run_checks(chosen, subject)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("checking", total=len(chosen))

        def advance(result: CheckResult) -> None:
            progress.update(task, advance=1, description=result.name)

        return run_checks(chosen, subject, advance)

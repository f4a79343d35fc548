"""`heapsmith check`: the contract of malloc, and of the statistics call, against any allocator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from heapsmith.cli.check_statistics import check_statistics
from heapsmith.errors import EXIT_FAILED, CheckError
from heapsmith.lab.checks import CHECKS_SCHEMA, Check, CheckResult, list_checks, run_checks, select_checks
from heapsmith.lab.subjects import Subject, resolve_subject
from heapsmith.show.checking import render_check_list, render_checks, render_verdicts
from heapsmith.show.terminal import print_text


def check(
    *names: Annotated[
        str,
        Parameter(
            help="Checks, by name or pattern; all of the contract if left out. `stats`, alone or before names: "
            "those of the statistics call."
        ),
    ],
    allocator: Annotated[
        list[str] | None,
        Parameter(
            help="system, a preset, jemalloc, ..., a spec.toml or a library; `stats` takes several.",
            negative="",
        ),
    ] = None,
    hardening: Annotated[
        bool | None, Parameter(help="Also what a hardened heap must catch (the default for `hardened`).")
    ] = None,
    list_only: Annotated[
        bool, Parameter(name="--list", help="Only say what can be checked.", negative="")
    ] = False,
    json: Annotated[bool, Parameter(help="Print one JSON document.", negative="")] = False,
) -> int:
    """Hold an allocator against the contract of malloc, one promise after another.

    Example: heapsmith check --allocator system alignment realloc
    """
    if names and names[0] == "stats":
        return check_statistics(names[1:], allocator or [], json=json)
    if list_only:
        print_text(render_check_list(list_checks()))
        return 0
    if allocator and len(allocator) > 1:
        raise CheckError("the contract is checked on one allocator at a time", hint="say --allocator once")
    name = allocator[0] if allocator else "default"
    subject = resolve_subject(name)
    chosen = select_checks(names, hardening=name == "hardened" if hardening is None else hardening)
    results = _run_with_progress(chosen, subject)
    if json:
        document = {"schema": CHECKS_SCHEMA, "allocator": name, "checks": results}
        print(msgspec.json.encode(document).decode())  # noqa: T201
    else:
        print_text(render_checks(results, {check.name: check.promise for check in chosen}))
        print_text(render_verdicts(name, results))
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

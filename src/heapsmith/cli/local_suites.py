"""The commands ``bench local-heaps``, ``bench numpy`` and ``bench python``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from heapsmith.errors import CheckError
from heapsmith.lab.bench import BENCH_SCHEMA, machine
from heapsmith.lab.local_suites import LOCAL_SUITES, run_local_suite
from heapsmith.show.local_suites import render_local_case, render_local_suite
from heapsmith.show.terminal import print_text

_PROMISES = {
    "local-heaps": "Heaps of their own in C++: LocalHeap and Arena beside mimalloc's heaps and std::pmr.",
    "numpy": "NumPy programs with and without numpy_heap.",
    "python": "Python's objects on malloc: time and memory against pymalloc, and what stays after the work.",
}


def add_local_suites(bench: App) -> None:
    """Give ``bench`` a command for each suite of local heaps."""
    for suite in LOCAL_SUITES:
        command = _command(suite)
        workloads = ", ".join(LOCAL_SUITES[suite].workloads)
        command.__doc__ = (
            f"{_PROMISES[suite]}\n\nWorkloads: {workloads}.\n\nExample: heapsmith bench {suite} --runs 3\n"
        )
        bench.command(command, name=suite)


def _command(suite: str) -> Callable[..., None]:
    def command(
        *names: Annotated[str, Parameter(help="Only these workloads.")],
        allocator: Annotated[
            list[str] | None, Parameter(help="Allocators to take part; may be repeated.", negative="")
        ] = None,
        runs: Annotated[int, Parameter(help="How often each workload runs on each.")] = 5,
        json: Annotated[bool, Parameter(help="One JSON document on standard output.", negative="")] = False,
    ) -> None:
        if runs < 1:
            raise CheckError("--runs has to be 1 or more")
        console = Console(stderr=True)
        with console.status(suite) as status:
            measured = run_local_suite(
                suite,
                names,
                rounds=runs,
                allocators=allocator or (),
                say=lambda line: console.print(f"heapsmith: {line}"),
                on_run=lambda what, number, count: status.update(f"{what}: run {number} of {count}"),
                on_case=lambda cases: console.print(render_local_case(cases)),
            )
        if json:
            document = {"schema": BENCH_SCHEMA, "machine": machine(), "runs": runs, "suites": [measured]}
            print(msgspec.json.encode(document).decode())  # noqa: T201
        else:
            print_text(render_local_suite(measured, LOCAL_SUITES[suite].baseline))

    return command

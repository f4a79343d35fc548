"""Traces, verdicts and comparisons of the teaching allocator, for the terminal and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from heapsmith.osmem.blocks import HEAP_START, Layout, Step
from heapsmith.osmem.checker import Verdict
from heapsmith.osmem.scenarios import Scenario
from heapsmith.osmem.tracing import Tracing


def _console(*, errors: bool = False) -> Console:
    return Console(stderr=errors, highlight=False, soft_wrap=True)


def print_line(line: str) -> None:
    """Print a line as it is."""
    sys.stdout.write(f"{line}\n")


def print_json(document: Any) -> None:
    """Print one JSON document and nothing else."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


@contextmanager
def progress(what: str, count: int) -> Generator[Callable[[int, int], None]]:
    """Show how far long work is, on standard error, where a person is looking."""
    console = _console(errors=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=count)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_trace(tracing: Tracing) -> None:
    """Print a trace, and whether library and model agree."""
    for line in tracing.lines:
        print_line(line)
    if tracing.native is not None and tracing.model_lines is not None and tracing.agree:
        calls, system_calls = _counts([played.step for played in tracing.played])
        _console(errors=True).print(
            Text(f"library and model agree: {calls} calls, {system_calls} system calls", "dim")
        )
    for offence in tracing.offences:
        _console(errors=True).print(Text(offence, "red"))
    if not tracing.agree and tracing.model_lines is not None:
        _print_diff(tracing.diff())


def _counts(steps: Sequence[Step]) -> tuple[int, int]:
    return len(steps), sum(len(step.system_calls) for step in steps)


def _print_diff(lines: Sequence[str]) -> None:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    console = _console()
    for line in lines:
        console.print(Text(line, styles.get(line[:1], "")))


def trace_document(tracing: Tracing) -> dict[str, Any]:
    """Build the JSON document of a trace: calls as they were made, blocks as the model has them."""
    native = tracing.native
    steps = [played.step for played in tracing.played] if native is None else list(native.steps)
    return {
        "schema": "heapsmith.osmem.trace/1",
        "layout": tracing.layout,
        "agree": tracing.agree if native is not None and tracing.model_lines is not None else None,
        "offences": list(tracing.offences),
        "trace": list(tracing.lines),
        "heap_start": HEAP_START if native is None else native.heap_start,
        "steps": [
            {
                "line": played.operation.line,
                "text": played.operation.text,
                "function": step.function,
                "arguments": list(step.arguments),
                "result": step.result,
                "system_calls": [
                    {"name": call.name, "arguments": list(call.arguments), "result": call.result}
                    for call in step.system_calls
                ],
                "blocks": [
                    {
                        "offset_bytes": block.address - HEAP_START if block.status != "mapped" else None,
                        "size_bytes": block.size_bytes,
                        "requested_bytes": block.requested_bytes,
                        "status": block.status,
                    }
                    for block in (*played.step.heap, *played.step.mappings)
                ],
            }
            for played, step in zip(tracing.played, steps, strict=False)
        ],
    }


def print_verdict(verdict: Verdict, *, verbose: bool) -> None:
    """Print one line for a scenario, why it failed, and, if asked for, where the traces part."""
    scenario = verdict.scenario
    outcome, style = ("passed", "green") if verdict.passed else ("failed", "bold red")
    line = Text(f"{scenario.name} ".ljust(46, "."))
    line.append(f" {outcome} ", style).append(f"... {verdict.points:>2}/{scenario.points}")
    _console().print(line)
    if not verdict.passed:
        _console().print(Text(f"    rule: {scenario.rule}"))
        for offence in verdict.offences if verbose else verdict.offences[:1]:
            _console().print(Text(f"    {offence}", "red"))
        if verbose:
            _print_diff(verdict.diff())


def print_total(verdicts: Sequence[Verdict]) -> None:
    """Print the sum of the points."""
    points = sum(verdict.points for verdict in verdicts)
    possible = sum(verdict.scenario.points for verdict in verdicts)
    failed = sum(not verdict.passed for verdict in verdicts)
    line = Text("total ".ljust(46, "."))
    line.append(f" {len(verdicts) - failed} of {len(verdicts)} ", "red" if failed else "green")
    line.append(f"... {points}/{possible} points")
    _console().print(line)


def check_document(verdicts: Sequence[Verdict], library: Path, layout: Layout) -> dict[str, Any]:
    """Build the JSON document of a check."""
    return {
        "schema": "heapsmith.osmem.check/1",
        "library": str(library),
        "layout": layout,
        "points": sum(verdict.points for verdict in verdicts),
        "points_possible": sum(verdict.scenario.points for verdict in verdicts),
        "checks": [
            {
                "name": verdict.scenario.name,
                "verdict": "pass" if verdict.passed else "fail",
                "detail": "; ".join(verdict.offences),
                "points": verdict.points,
                "points_possible": verdict.scenario.points,
                "rule": verdict.scenario.rule,
                "diff": [] if verdict.passed else verdict.diff(),
            }
            for verdict in verdicts
        ],
    }


def print_scenarios(scenarios: Sequence[Scenario]) -> None:
    """Print the names of scenarios, their points and rules."""
    for scenario in scenarios:
        print_line(f"{scenario.name:<46} {scenario.points:>2}  {scenario.rule}")


def print_built(library: Path, layout: Layout, flags: str) -> None:
    """Say what was built and how to link with it."""
    print_line(f"{library} ({layout}), {library.with_name('osmem.h')}")
    _console().print(Text(f"link with: cc program.c {flags}", "dim"))

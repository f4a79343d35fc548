"""A tailored heap in the terminal, as a TOML document with its reasons, and as a JSON document."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from heapsmith.lab.statistics import Difference
from heapsmith.show.compare import build_result_document
from heapsmith.show.quantities import format_quantity
from heapsmith.spec import write_document
from heapsmith.tune.verdict import Tailored, Trying
from heapsmith.units import UNKNOWN, format_bytes, format_count, format_seconds

SCHEMA: Final = "heapsmith.tune/1"
_STANDINGS: Final = 12


def describe_life(answer: Tailored) -> list[str]:
    """Say in sentences what the recorded program does."""
    life = answer.life
    if life is None:
        return []
    small = float(life.at_peak[1].sum())
    share = small / max(1, life.live_bytes_peak)
    return [
        f"{format_count(len(life))} calls by {life.thread_count} threads in {format_seconds(life.duration_s)}",
        f"at most {format_bytes(life.live_bytes_peak)} requested and live, {format_bytes(life.live_bytes_mean)} on average",
        f"{share:.0%} of the peak in blocks of up to 32 KiB, {format_bytes(life.large_bytes_at_peak)} in larger ones",
    ]


def when_not(answer: Tailored) -> list[str]:
    """Say when the heap is not to be used."""
    return [
        "another kind of work than was recorded: sizes that were not seen are rounded up to the next class",
        "a program that loads an allocator of its own, or is linked statically: nothing preloaded reaches it",
        answer.held_out,
    ]


def line_to_run(answer: Tailored, spec: Path) -> str | None:
    """Return the line that starts a program on the answer; None: as it is."""
    if answer.verdict == "tailored":
        return f"heapsmith run --allocator {shlex.quote(str(spec))} -- COMMAND"
    if answer.verdict == "preset" and answer.ours is not None:
        return f"heapsmith run --allocator {shlex.quote(answer.ours.label)} -- COMMAND"
    if answer.verdict == "allocator":
        words = [f"{name}={shlex.quote(value)}" for name, value in answer.rival.lines().items()]
        return " ".join([*words, "COMMAND"])
    return None


def render_spec(answer: Tailored, traces: Sequence[Path]) -> str:
    """Write the heap's description, its reasons above it as comments."""
    lines = [
        f"Designed by `heapsmith tune` for {', '.join(path.name for path in traces)}, objective {answer.objective}.",
        f"Verdict: {answer.verdict}. {answer.reason[:1].upper()}{answer.reason[1:]}.",
        "",
        "The program:",
        *(f"  {text}" for text in describe_life(answer)),
        "",
        "The choices, with the resident bytes (peak, average) that the simulator predicts after each:",
    ]
    for choice in answer.choices:
        figures = "" if math.isnan(choice.resident_bytes_peak) else (
            f" [{format_bytes(choice.resident_bytes_peak)}, {format_bytes(choice.resident_bytes_mean)}]"
        )  # fmt: skip
        lines.append(f"  {choice.what}: {choice.why}{figures}")
    lines += ["", "Not for:", *(f"  {text}" for text in when_not(answer))]
    comment = "\n".join(f"# {line}".rstrip() for line in lines)
    return f"{comment}\n\n{write_document(answer.spec)}"


def render_tuning(answer: Tailored, traces: Sequence[Path], spec: Path, page: Path) -> RenderableType:
    """Make the report for the terminal.

    Args:
        answer: What was found.
        traces: The recordings.
        spec: Where the heap's description is.
        page: Where the page is.
    """
    parts: list[RenderableType] = [Text(answer.reason, style="bold"), Text()]
    line = line_to_run(answer, spec)
    if line is not None:
        parts += [Padding(Text(line, style="cyan"), (0, 0, 0, 4)), Text()]
    parts += [Text(f"the program: {text}") for text in describe_life(answer)]
    if answer.choices:
        parts += [Text(), _choices_table(answer)]
    for trial in answer.trials:
        parts += [Text(), _trial_table(trial, answer)]
    if answer.standings:
        parts += [Text(), _standings_table(answer)]
    parts += [Text(f"note: {note}", style="yellow") for note in answer.notes]
    parts.append(Text(f"{answer.held_out}; {answer.simulated} heaps simulated", style="dim"))
    parts.append(Text(f"written: {spec} (the heap and its reasons), {page} (the figures)"))
    return Group(*parts)


def _choices_table(answer: Tailored) -> RenderableType:
    table = Table(
        title="the design, choice by choice (simulated)", title_justify="left", pad_edge=False, box=None
    )
    for heading in ("choice", "why"):
        table.add_column(heading, overflow="fold")
    for heading in ("resident, peak", "average"):
        table.add_column(heading, justify="right")
    for choice in answer.choices:
        known = not math.isnan(choice.resident_bytes_peak)
        table.add_row(
            choice.what,
            choice.why,
            format_bytes(choice.resident_bytes_peak) if known else "",
            format_bytes(choice.resident_bytes_mean) if known else "",
        )
    return table


def _trial_table(trial: Trying, answer: Tailored) -> RenderableType:
    table = Table(title=Text(f"verified: {trial.where}"), title_justify="left", pad_edge=False, box=None)
    table.add_column("")
    names = ("time_s", "cpu_s") if trial.comparison.workload.replay is None else ("cpu_s_per_call",)
    headings = [
        "runs",
        *("time" if name != "cpu_s" else "processor time" for name in names),
        "resident, peak",
        "average",
    ]
    for heading in headings:
        table.add_column(heading, justify="right")
    for result in trial.comparison.results:
        seconds = [format_quantity(result.spreads[name].median, "seconds") for name in names]
        sizes = [
            format_quantity(result.spreads[name].median, "bytes")
            for name in ("resident_bytes_peak", "resident_bytes_mean")
        ]
        label = (
            result.candidate.label
            if result.failed is None
            else f"{result.candidate.label} (out: {result.failed})"
        )
        table.add_row(label, str(result.runs), *seconds, *sizes)
    if answer.ours is not None:
        words = f"{answer.ours.label} against {trial.against}"
        table.add_row(
            words, "", f"time {_plain(trial.time)}", f"resident {_plain(trial.memory)}", f"cost {_plain(trial.cost)}",
        )  # fmt: skip
    return table


def _plain(difference: Difference) -> str:
    return UNKNOWN if difference.ratio is None else f"{difference.ratio:.2f}"


def _standings_table(answer: Tailored) -> RenderableType:
    table = Table(
        title=f"the race ({answer.objective} cost, today = 1)", title_justify="left", pad_edge=False, box=None
    )
    for heading in ("", "rounds", "cost"):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
    for standing in answer.standings[:_STANDINGS]:
        ratio = UNKNOWN if standing.ratio is None else f"{standing.ratio:.2f}"
        table.add_row(standing.candidate.label, str(standing.rounds), ratio)
    rest = len(answer.standings) - _STANDINGS
    if rest > 0:
        table.add_row(f"and {rest} more that left earlier", "", "")
    return table


def build_tuning_document(
    answer: Tailored, traces: Sequence[Path], spec: Path, machine: dict[str, Any]
) -> dict[str, Any]:
    """Build the JSON document of ``tune --json``."""
    life = answer.life
    candidate = answer.candidate
    return {
        "schema": SCHEMA,
        "verdict": answer.verdict,
        "objective": answer.objective,
        "recommendation": answer.reason,
        "allocator": None if candidate is None else candidate.label,
        "environment": None if candidate is None else candidate.lines(),
        "line": line_to_run(answer, spec),
        "spec": str(spec),
        "traces": [str(path) for path in traces],
        "held_out": answer.held_out,
        "machine": machine,
        "program": None
        if life is None
        else {
            "calls": len(life),
            "threads": life.thread_count,
            "duration_s": life.duration_s,
            "live_bytes_peak": life.live_bytes_peak,
            "live_bytes_mean": life.live_bytes_mean,
        },
        "choices": [
            {
                "what": choice.what,
                "why": choice.why,
                "resident_bytes_peak": _or_none(choice.resident_bytes_peak),
                "resident_bytes_mean": _or_none(choice.resident_bytes_mean),
            }
            for choice in answer.choices
        ],
        "simulated": answer.simulated,
        "search": [
            {
                "allocator": standing.candidate.label,
                "cost_ratio": standing.ratio,
                "rounds": standing.rounds,
                "left": standing.left,
            }
            for standing in answer.standings
        ],
        "verification": [
            {
                "where": trial.where,
                "tailored": None if answer.ours is None else answer.ours.label,
                "rival": trial.against,
                "resident_ratio": msgspec.to_builtins(trial.memory),
                "time_ratio": msgspec.to_builtins(trial.time),
                "cost_ratio": msgspec.to_builtins(trial.cost),
                "results": [build_result_document(result) for result in trial.comparison.results],
            }
            for trial in answer.trials
        ],
        "checks": [msgspec.to_builtins(check) for check in answer.checks],
        "notes": answer.notes,
        "interrupted": answer.interrupted,
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value

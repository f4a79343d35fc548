"""A comparison in the terminal, and as a JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from heapsmith.lab.comparison import FIGURES, Comparison, Figure, Result
from heapsmith.lab.statistics import Difference
from heapsmith.show.quantities import format_quantity, format_ratio

SCHEMA: Final = "heapsmith.compare/1"
_SHOWN: Final = (
    "time_s",
    "cpu_s",
    "cpu_s_per_call",
    "throughput",
    "resident_bytes_peak",
    "resident_bytes_mean",
    "resident_bytes_end",
    "resident_bytes_settled",
    "live_bytes_peak",
    "blowup",
    "page_faults",
)
_NAME_COLUMNS: Final = 37
"""Of the terminal, for names and numbers of runs."""
_FIGURE_COLUMNS: Final = 19
"""For a figure with the ratio and its interval."""
_NOT_OF_REPLAYS: Final = ("time_s", "cpu_s")
"""The clock of a replay has the waiting of threads for each other in it; processor time is told per call."""


def render_comparison(
    comparison: Comparison, recommendation: str, notes: Sequence[str] = ()
) -> RenderableType:
    """Make the table of a comparison: medians, and below each its ratio to the baseline.

    Args:
        comparison: What was compared.
        recommendation: What follows from it, in one sentence.
        notes: What a person has to know about the program.
    """
    parts: list[RenderableType] = [Text(comparison.workload.words(), style="italic"), _Tables(comparison)]
    if len(comparison.results) > 1:
        parts.append(
            Text(
                f"below each median: ratio to {comparison.baseline.candidate.label} with its 95 % interval;"
                " (noise): not told from it; (?): too few runs to tell",
                style="dim",
            )
        )
    for result in comparison.results:
        if result.failed is not None:
            said = f"; it said: {result.complaint}" if result.complaint else ""
            parts.append(Text(f"{result.candidate.label} is out: {result.failed}{said}", style="red"))
    parts += [Text(f"note: {note}", style="yellow") for note in notes]
    if comparison.accounting:
        parts.append(Text(f"memory: {comparison.accounting}", style="dim"))
    if comparison.workers > 1:
        parts.append(Text(f"{comparison.workers} workers; only runs on the same worker were compared"))
    if comparison.interrupted:
        parts.append(Text("broken off: these are the figures so far", style="yellow"))
    parts.append(Text(recommendation, style="bold"))
    return Group(*parts)


class _Tables:
    """The figures side by side, in as many tables below each other as the terminal is too narrow for."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        figures = shown_figures(self._comparison)
        room = max(1, (options.max_width - _NAME_COLUMNS) // _FIGURE_COLUMNS)
        tables = -(-len(figures) // room) or 1
        width = -(-len(figures) // tables)
        for first in range(0, max(1, len(figures)), max(1, width)):
            yield _table(self._comparison, figures[first : first + width])


def _table(comparison: Comparison, figures: Sequence[Figure]) -> Table:
    table = Table(pad_edge=False, show_lines=True)
    table.add_column("allocator", overflow="fold", min_width=26)
    table.add_column("runs", justify="right")
    for figure in figures:
        table.add_column(figure.title.replace(", ", ",\n"), justify="right")
    for result in comparison.results:
        table.add_row(_name(result, comparison), str(result.runs), *_cells(result, figures))
    return table


def shown_figures(comparison: Comparison) -> list[Figure]:
    """Return the figures that this comparison has values of, in the order of columns."""
    known = {figure.name: figure for figure in known_figures(comparison)}
    return [known[name] for name in _SHOWN if name in known]


def known_figures(comparison: Comparison) -> list[Figure]:
    """Return all figures that this comparison has values of, also those there is no room for in a terminal."""
    return [
        figure
        for figure in FIGURES
        if not (comparison.workload.replay is not None and figure.name in _NOT_OF_REPLAYS)
        and any(_median(result, figure.name) is not None for result in comparison.results)
    ]


def _median(result: Result, name: str) -> float | None:
    spread = result.spreads.get(name)
    return None if spread is None else spread.median


def _name(result: Result, comparison: Comparison) -> Text:
    text = Text(result.candidate.label.replace(",", ",\n  "))
    if result.candidate.version:
        text.append(f" {result.candidate.version}", style="dim")
    if result is comparison.baseline:
        text.append("\nbaseline", style="dim")
    return text


def _cells(result: Result, figures: Sequence[Figure]) -> list[Text]:
    cells: list[Text] = []
    for figure in figures:
        text = Text(format_quantity(_median(result, figure.name), figure.unit))
        difference = result.differences.get(figure.name)
        if ratio := format_ratio(difference):
            text.append(f"\n{ratio}", style=_style(difference, figure))
        cells.append(text)
    return cells


def _style(difference: Difference | None, figure: Figure) -> str:
    if difference is None or not difference.more_than_noise or difference.ratio is None:
        return "dim"
    return "green" if (difference.ratio < 1) == figure.less_is_better else "red"


def build_comparison_document(
    comparison: Comparison, recommendation: str, machine: dict[str, Any], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Build the JSON document of ``compare --json``."""
    return {
        "schema": SCHEMA,
        "command": list(comparison.workload.command),
        "machine": machine,
        "baseline": comparison.baseline.candidate.label,
        "workers": comparison.workers,
        "interrupted": comparison.interrupted,
        "too_few_runs": comparison.too_few_runs,
        "accounting": comparison.accounting,
        "results": [build_result_document(result) for result in comparison.results],
        "notes": list(notes),
        "recommendation": recommendation,
    }


def build_result_document(result: Result) -> dict[str, Any]:
    """Build the JSON object of one candidate."""
    return {
        "allocator": result.candidate.label,
        "version": result.candidate.version,
        "library": result.candidate.library,
        "environment": None if result.candidate.changes_nothing else result.candidate.lines(),
        "runs": result.runs,
        "failed": result.failed,
        **{name: msgspec.to_builtins(spread) for name, spread in result.spreads.items()},
        "differences": {name: msgspec.to_builtins(found) for name, found in result.differences.items()},
    }

"""Benchmarks as tables and documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from heapsmith.lab.comparison import Comparison
from heapsmith.lab.statistics import Difference
from heapsmith.lab.watch_cost import Subject
from heapsmith.units import UNKNOWN

_FIGURES: Final = (
    ("cpu_s", "processor time"),
    ("time_s", "wall clock"),
    ("resident_bytes_peak", "resident peak"),
    ("page_faults", "page faults"),
)
Rows = Sequence[tuple[Subject, Comparison]]


def render_cost_row(subject: Subject, comparison: Comparison) -> Text:
    """Make the line that is shown as soon as a workload is measured."""
    differences = comparison.results[1].differences
    text = Text(f"{subject.name}: ", style="bold")
    text.append(", ".join(f"{title} {_ratio(differences.get(name))}" for name, title in _FIGURES[:2]))
    return text


def render_cost_table(rows: Rows) -> Table:
    """Make the table of all workloads: ratios of watched to unwatched, with 95 % intervals."""
    table = Table(title="watched / unwatched, median of ratios [95 % interval]", title_justify="left")
    table.add_column("workload")
    for _, title in _FIGURES:
        table.add_column(title, justify="right")
    for subject, comparison in rows:
        differences = comparison.results[1].differences
        table.add_row(subject.title, *(_ratio(differences.get(name)) for name, _ in _FIGURES))
    return table


def build_cost_document(rows: Rows) -> dict[str, Any]:
    """Make the JSON document of the same."""
    return {
        "schema": "heapsmith.bench.watch/1",
        "results": [
            {"workload": subject.name, "title": subject.title, "ratios": comparison.results[1].differences}
            for subject, comparison in rows
        ],
    }


def _ratio(difference: Difference | None) -> str:
    if difference is None or difference.ratio is None:
        return UNKNOWN
    if difference.low is None or difference.high is None:
        return f"{difference.ratio:.3f}"
    return f"{difference.ratio:.3f} [{difference.low:.3f}, {difference.high:.3f}]"

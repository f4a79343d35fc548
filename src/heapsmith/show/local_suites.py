"""Suites of local heaps: a line for each workload and variant, ratios against the suite's baseline."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from heapsmith.lab.bench import Case, Ratio, Suite
from heapsmith.units import UNKNOWN, format_bytes, format_seconds


def render_local_suite(suite: Suite, baseline: str) -> Table:
    """Make the table of a suite.

    Args:
        suite: What was measured.
        baseline: What the ratios are against, in words.

    Example:
        >>> render_local_suite(Suite("numpy", []), "malloc").row_count
        0
    """
    table = Table(
        title=f"{suite.name}: ratios to {baseline} in the same rounds, with 95 % intervals",
        title_justify="left",
    )
    table.add_column("workload")
    table.add_column("on")
    for name in ("time", "ratio", "resident peak", "ratio", "after", "page faults"):
        table.add_column(name, justify="right")
    last = ""
    for case in suite.cases:
        if last and case.name != last:
            table.add_section()
        table.add_row(case.name if case.name != last else "", case.allocator, *_figures(case))
        last = case.name
    return table


def render_local_case(cases: Sequence[Case]) -> Text:
    """Make the line that is shown as soon as a workload is measured."""
    text = Text(f"{cases[0].name}: ", style="bold")
    parts = (f"{case.allocator} {_short(case.time_ratio)}" for case in cases if case.name == cases[0].name)
    text.append(", ".join(parts), style="")
    return text


def _figures(case: Case) -> list[Text | str]:
    if case.failed:
        return [Text(case.failed, style="bold red")]
    good = case.time_ratio.high is not None and case.time_ratio.high < 1
    faults = case.page_faults.median
    return [
        format_seconds(case.time_s.median),
        Text(
            f"{_short(case.time_ratio)} {_interval(case.time_ratio)}".rstrip(), style="green" if good else ""
        ),
        format_bytes(case.resident_bytes_peak.median),
        _short(case.resident_ratio),
        format_bytes(case.resident_after_bytes.median),
        UNKNOWN if faults is None else f"{faults:,.0f}",
    ]


def _short(ratio: Ratio) -> str:
    return UNKNOWN if ratio.ratio is None else f"{ratio.ratio:.2f}"


def _interval(ratio: Ratio) -> str:
    return "" if ratio.low is None or ratio.high is None else f"[{ratio.low:.2f}, {ratio.high:.2f}]"

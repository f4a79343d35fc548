"""Allocators side by side: a line per workload, ratios against the system's malloc."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from heapsmith.lab.bench import Case, Progress, Ratio, Suite
from heapsmith.units import UNKNOWN, format_bytes, format_seconds


def render_suites(suites: Sequence[Suite]) -> Table:
    """Make the table of all workloads.

    Example:
        >>> render_suites([]).row_count
        0
    """
    names = list(dict.fromkeys(case.allocator for suite in suites for case in suite.cases))
    table = Table(
        title="time / resident peak, as ratios to the system's malloc in the same rounds",
        title_justify="left",
    )
    table.add_column("workload")
    for name in names:
        table.add_column(name, justify="right")
    for suite in suites:
        for workload in dict.fromkeys(case.name for case in suite.cases):
            of_workload = {case.allocator: case for case in suite.cases if case.name == workload}
            table.add_row(workload, *(_cell(of_workload.get(name)) for name in names))
    return table


def render_case(cases: Sequence[Case]) -> Text:
    """Make the line that is shown as soon as a workload is measured."""
    text = Text(f"{cases[0].name}: ", style="bold")
    parts = (
        f"{case.allocator} {format_seconds(case.time_s.median)} ({_short(case.time_ratio)})" for case in cases
    )
    text.append(", ".join(parts), style="")
    return text


def render_progress(progress: Progress) -> str:
    """Make the line that is shown while it runs.

    Example:
        >>> render_progress(Progress(10))
        ' (run 1 of 10)'
    """
    left = progress.left_s()
    return f"{progress.what} (run {progress.done + 1} of {progress.runs})" + (
        "" if left is None else f", about {format_seconds(left)} left"
    )


def _cell(case: Case | None) -> Text:
    if case is None:
        return Text(UNKNOWN)
    if case.failed:
        return Text(case.failed, style="bold red")
    good = case.time_ratio.high is not None and case.time_ratio.high < 1
    text = Text("~" if case.too_noisy else "")
    text.append(_short(case.time_ratio), style="green" if good else "")
    text.append(f" {_interval(case.time_ratio)} / {_short(case.resident_ratio)}", style="dim")
    text.append(f" {format_bytes(case.resident_bytes_peak.median)}", style="dim")
    return text


def _short(ratio: Ratio) -> str:
    return UNKNOWN if ratio.ratio is None else f"{ratio.ratio:.2f}"


def _interval(ratio: Ratio) -> str:
    return "" if ratio.low is None or ratio.high is None else f"[{ratio.low:.2f}, {ratio.high:.2f}]"

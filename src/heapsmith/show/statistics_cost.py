"""The cost of the statistics call in the terminal: a line for each way of asking, as ratios within one run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from heapsmith.lab.bench import Ratio
from heapsmith.lab.statistics_cost import StatisticsCase
from heapsmith.units import UNKNOWN, format_seconds


def render_statistics_case(case: StatisticsCase) -> Text:
    """Make the line that is shown as soon as a case is measured."""
    text = Text(f"{case.allocator}: {case.name}: ", style="bold")
    text.append(f"{format_seconds(case.time_s.median)}", style="default")
    if case.against:
        text.append(f" ({_write(case.time_ratio)} of {case.against})", style="dim")
    return text


def render_statistics_cost(cases: Sequence[StatisticsCase]) -> Table:
    """Make the table of all cases.

    Example:
        >>> render_statistics_cost([]).row_count
        0
    """
    table = Table(title="one answer, and how many times another", title_justify="left", pad_edge=False)
    for heading in ("allocator", "asked about", "one way", "beside it"):
        table.add_column(heading, overflow="fold")
    rows = dict.fromkeys((case.allocator, case.question) for case in cases)
    for allocator, question in rows:
        first, *others = (case for case in cases if (case.allocator, case.question) == (allocator, question))
        beside = "\n".join(f"{_answer(case)}, {_write(case.time_ratio)} x" for case in others)
        own = f", {_write(first.time_ratio)} x with none" if first.against else ""
        table.add_row(allocator, question, _answer(first) + own, beside)
    return table


def _answer(case: StatisticsCase) -> str:
    return f"{case.way} {format_seconds(case.time_s.median)}"


def _write(ratio: Ratio) -> str:
    if ratio.ratio is None:
        return UNKNOWN
    if ratio.low is None or ratio.high is None:
        return f"{ratio.ratio:.3g}"
    return f"{ratio.ratio:.3g} [{ratio.low:.3g}, {ratio.high:.3g}]"

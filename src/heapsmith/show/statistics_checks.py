"""Verdicts on the statistics call in the terminal: one line for each promise, one column for each allocator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heapsmith.lab.checks.statistics import StatisticsCheck, StatisticsVerdict

_STYLE: Final = {"pass": "green", "fail": "bold red", "unsupported": "yellow"}
_PROMISE_COLUMNS: Final = 30
_WORD: Final = {"pass": "pass", "fail": "FAIL", "unsupported": "n/a"}


def render_statistics_checks(
    checks: Sequence[StatisticsCheck], verdicts: Mapping[str, Sequence[StatisticsVerdict]]
) -> RenderableType:
    """Make the table, and below it what is behind each verdict that is not `pass`.

    Args:
        checks: In the order of the lines.
        verdicts: By allocator.
    """
    table = Table(pad_edge=False, title="promises of the statistics call", title_justify="left")
    table.add_column("check", no_wrap=True)
    for allocator in verdicts:
        # A library by its file's name; the path is below, where there is something to say of it.
        table.add_column(
            Path(allocator).name if "/" in allocator else allocator, overflow="fold", min_width=5
        )
    table.add_column("promise", min_width=_PROMISE_COLUMNS)
    details = list[Text]()
    for check in checks:
        cells = list[Text]()
        for allocator, found in verdicts.items():
            verdict = next(verdict for verdict in found if verdict.name == check.name)
            cells.append(Text(_WORD[verdict.verdict], style=_STYLE[verdict.verdict]))
            if verdict.detail:
                line = Text(f"{check.name} on {allocator}: ", style=_STYLE[verdict.verdict])
                details.append(line.append(verdict.detail, style="default"))
        table.add_row(check.name, *cells, check.promise)
    return Group(table, *details)

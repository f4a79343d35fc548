"""What a person reads of checks: one line each, and the count at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from heapsmith.lab.checks import Check, CheckResult

_STYLE: Final = {"pass": "green", "fail": "bold red", "unsupported": "yellow"}


def render_checks(results: Sequence[CheckResult], promises: dict[str, str]) -> Table:
    """Make the table of verdicts.

    Args:
        results: What became of each check.
        promises: What each check promises, by name.

    Example:
        >>> render_checks([CheckResult("fork", "contract", "pass", "")], {"fork": "fork works"}).row_count
        1
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in results:
        line = Text(promises.get(result.name, ""))
        if result.detail and result.verdict != "pass":
            line.append(f": {result.detail}", style=_STYLE[result.verdict])
        table.add_row(Text(result.verdict, style=_STYLE[result.verdict]), result.name, line)
    return table


def render_verdicts(allocator: str, results: Sequence[CheckResult]) -> Text:
    """Make the line that counts.

    Example:
        >>> render_verdicts("small", [CheckResult("fork", "contract", "pass", "")]).plain
        'small: 1 of 1 promises kept'
    """
    kept = sum(result.verdict == "pass" for result in results)
    unsupported = sum(result.verdict == "unsupported" for result in results)
    text = Text(f"{allocator}: {kept} of {len(results)} promises kept")
    if unsupported:
        text.append(f", {unsupported} not possible here", style=_STYLE["unsupported"])
    if failed := len(results) - kept - unsupported:
        text.append(f", {failed} broken", style=_STYLE["fail"])
    return text


def render_check_list(checks: Sequence[Check]) -> Table:
    """Make the table of what can be checked."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        table.add_row(check.name, check.kind, check.promise)
    return table

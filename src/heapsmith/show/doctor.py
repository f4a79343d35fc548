"""A finding of the doctor as a person reads it."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from heapsmith.lab.doctor import Finding, Verdict

_MARKS: Final = {
    Verdict.WORKS: ("✓", "green"),
    Verdict.LIMITED: ("~", "yellow"),
    Verdict.FAILS: ("✗", "bold red"),
}


def render_finding(finding: Finding) -> Text:
    """Make the lines of one finding: a mark, what was tried, what was found, and what to do.

    Example:
        >>> print(render_finding(Finding("perf", Verdict.LIMITED, "not installed", "apt-get install linux-perf")))
        ~ perf: not installed
            -> apt-get install linux-perf
    """
    mark, style = _MARKS[finding.verdict]
    text = Text(f"{mark} ", style=style)
    text.append(finding.subject, style="bold")
    text.append(f": {finding.detail}")
    if finding.remedy:
        text.append(f"\n    -> {finding.remedy}", style="cyan")
    return text

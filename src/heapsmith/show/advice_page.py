"""Advice as one HTML file: the line to paste, what confirmed it, and how all others stood in the search."""

from __future__ import annotations

import html
from pathlib import Path

from heapsmith.show.advise import beside, how_sure, sentence
from heapsmith.show.compare_page import write_page
from heapsmith.show.service_lines import Place, render_lines
from heapsmith.tune.advise import Advice
from heapsmith.units import UNKNOWN


def write_advice_page(path: Path, advice: Advice, place: Place) -> None:
    """Write the page of an answer; its figures are of the confirming runs, or of the search where there were none.

    Args:
        path: The file; it is complete or not there.
        advice: The answer.
        place: Where the line goes.

    Raises:
        HeapsmithError: The file cannot be written.
    """
    before = ""
    if advice.candidate is not None:
        before += f"<pre>{html.escape(render_lines(advice.candidate, place))}</pre>"
    if advice.evidence is not None:
        before += f"<p class='quiet'>{html.escape(how_sure(advice))}</p>"
        if advice.candidate is not None and advice.rivals:
            before += f"<p class='quiet'>{html.escape(beside(advice))}</p>"
    elif advice.standings:
        before += "<p class='quiet'>The figures are those of the search, of the best in it.</p>"
    measured = advice.search if advice.evidence is None else advice.evidence.comparison
    write_page(path, measured, sentence(advice), advice.notes, before=before, after=_standings(advice))


def _standings(advice: Advice) -> str:
    if not advice.standings:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(standing.candidate.label)}</td><td>{standing.rounds}</td>"
        f"<td>{UNKNOWN if standing.ratio is None else f'{standing.ratio:.2f}'}</td>"
        f"<td style='text-align: left'>{html.escape(standing.left or '')}</td></tr>"
        for standing in advice.standings
    )
    return (
        f"<h2>The search</h2><p class='quiet'>{html.escape(advice.objective)} cost, today = 1: the median over the"
        " rounds it took part in.</p><div class='wide'><table><thead><tr><th>allocator</th><th>rounds</th>"
        f"<th>cost</th><th style='text-align: left'>why it left</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )

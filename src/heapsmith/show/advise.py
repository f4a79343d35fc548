"""Advice in the terminal, and as a JSON document."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heapsmith.lab.comparison import FIGURE, Result
from heapsmith.show.compare import build_result_document, shown_figures
from heapsmith.show.quantities import format_quantity, format_ratio
from heapsmith.show.service_lines import PLACES, Place, render_lines
from heapsmith.show.terminal import Verbatim
from heapsmith.tune.advise import Advice, Evidence
from heapsmith.tune.objective import describe_gain
from heapsmith.tune.race import NO_TIME
from heapsmith.units import UNKNOWN

SCHEMA: Final = "heapsmith.advise/1"
_STANDINGS: Final = 8


def sentence(advice: Advice) -> str:
    """Say the answer in one sentence."""
    if advice.verdict == "gain" and advice.candidate is not None and advice.evidence is not None:
        return f"use {advice.candidate.label}: {describe_gain(advice.evidence.comparison.results[1])}"
    if advice.verdict == "unreachable":
        return "nothing to gain from outside: keep what you have"
    if advice.verdict == "unconfirmed":
        if advice.candidate is None:
            return "broken off; nothing better than what you have was seen so far"
        return f"broken off; so far the best is {advice.candidate.label}, not confirmed in fresh runs"
    if advice.evidence is not None and any(other.refutes for other in advice.also):
        label = advice.evidence.comparison.results[1].candidate.label
        return f"nothing to gain: keep what you have ({label} helps the first command and harms another)"
    if advice.without_a_try:
        return (
            f"nothing better was found, but {advice.without_a_try} setting(s) were not tried for lack of time:"
            " keep what you have, or give a larger --budget"
        )
    return "nothing to gain: keep what you have"


def render_advice(advice: Advice, place: Place) -> RenderableType:
    """Make the answer: what to use, the line to paste, gains and costs, how sure that is.

    Args:
        advice: The answer.
        place: Where the line goes.
    """
    parts: list[RenderableType] = [Text(sentence(advice), style="bold"), Text()]
    if advice.candidate is not None:
        parts += [Verbatim(render_lines(advice.candidate, place), "cyan"), Text()]
    if advice.evidence is not None:
        parts.append(_evidence_table(advice.evidence))
        parts.append(Text(how_sure(advice), style="dim"))
    if advice.candidate is not None and advice.rivals:
        parts.append(Text(beside(advice), style="dim"))
    for other in advice.also:
        ratio = format_ratio(other.cost)
        parts.append(Text(f"also `{other.comparison.workload.words()}`: {advice.objective} cost {ratio}"))
    parts += [Text(f"note: {note}", style="yellow") for note in advice.notes]
    if advice.standings:
        parts += [Text(), _standings_table(advice)]
    return Group(*parts)


def how_sure(advice: Advice) -> str:
    """Say how the answer was confirmed; there has to be evidence."""
    assert advice.evidence is not None
    runs = min(result.runs for result in advice.evidence.comparison.results)
    ratio = format_ratio(advice.evidence.cost)
    if advice.verdict == "gain":
        return f"confirmed in {runs} fresh runs of each; {advice.objective} cost, today = 1: {ratio}"
    failed = advice.evidence.comparison.results[1].failed
    if failed:
        return f"the best of the search failed in fresh runs: {failed}"
    return (
        f"the best of the search in {runs} fresh runs of each: {advice.objective} cost {ratio}, not worth it"
    )


def beside(advice: Advice) -> str:
    """Say how those came out against whom the answer was run off; there have to be some."""
    assert advice.candidate is not None
    costs = ", ".join(f"{rival.label} {format_ratio(cost)}" for rival, cost in advice.rivals)
    return f"in the same runs, {advice.candidate.label} = 1: {costs}; of those that are alike the simplest is the answer"


def _evidence_table(evidence: Evidence) -> RenderableType:
    before, after = evidence.comparison.results
    table = Table(pad_edge=False, box=None)
    table.add_column("")
    for heading in ("today", after.candidate.label, "ratio (95 % interval)"):
        table.add_column(heading, justify="right", overflow="fold")
    for figure in shown_figures(evidence.comparison):
        table.add_row(
            figure.title,
            format_quantity(before.spreads[figure.name].median, figure.unit),
            format_quantity(after.spreads[figure.name].median, figure.unit),
            Text(format_ratio(after.differences.get(figure.name)), style=_style(after, figure.name)),
        )
    return table


def _style(result: Result, name: str) -> str:
    difference = result.differences.get(name)
    if difference is None or not difference.more_than_noise or difference.ratio is None:
        return "dim"
    return "green" if (difference.ratio < 1) == FIGURE[name].less_is_better else "red"


def _standings_table(advice: Advice) -> RenderableType:
    table = Table(
        title=f"the search ({advice.objective} cost, today = 1)",
        title_justify="left",
        pad_edge=False,
        box=None,
    )
    for heading in ("", "rounds", "cost"):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
    ran = [
        standing for standing in advice.standings if standing.rounds or standing.left not in (None, NO_TIME)
    ]
    for standing in ran[:_STANDINGS]:
        ratio = UNKNOWN if standing.ratio is None else f"{standing.ratio:.2f}"
        table.add_row(standing.candidate.label, str(standing.rounds), ratio)
    if len(ran) > _STANDINGS:
        table.add_row(f"and {len(ran) - _STANDINGS} more that left earlier", "", "")
    if len(ran) < len(advice.standings):
        table.add_row(f"{len(advice.standings) - len(ran)} more were not tried for lack of time", "", "")
    return table


def build_advice_document(advice: Advice, place: Place, machine: dict[str, Any]) -> dict[str, Any]:
    """Build the JSON document of ``advise --json``."""
    candidate = advice.candidate
    return {
        "schema": SCHEMA,
        "verdict": advice.verdict,
        "objective": advice.objective,
        "machine": machine,
        "allocator": None if candidate is None else candidate.label,
        "environment": None if candidate is None else candidate.lines(),
        "lines": None if candidate is None else {name: render_lines(candidate, name) for name in PLACES},
        "as": place,
        "evidence": None if advice.evidence is None else _evidence_document(advice.evidence),
        "also": [_evidence_document(other) for other in advice.also],
        "rivals": [
            {"allocator": rival.label, "cost_ratio": msgspec.to_builtins(cost)}
            for rival, cost in advice.rivals
        ],
        "search": [
            {
                "allocator": standing.candidate.label,
                "cost_ratio": standing.ratio,
                "rounds": standing.rounds,
                "left": standing.left,
            }
            for standing in advice.standings
        ],
        "without_a_try": advice.without_a_try,
        "notes": advice.notes,
        "interrupted": advice.interrupted,
        "recommendation": sentence(advice),
    }


def _evidence_document(evidence: Evidence) -> dict[str, Any]:
    return {
        "command": list(evidence.comparison.workload.command),
        "cost_ratio": msgspec.to_builtins(evidence.cost),
        "confirms": evidence.confirms,
        "results": [build_result_document(result) for result in evidence.comparison.results],
    }

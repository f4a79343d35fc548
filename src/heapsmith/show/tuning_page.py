"""The page of a tailored heap: the race as figures, and around it what was done and why."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

from heapsmith.outputs import write_output
from heapsmith.show.compare_page import render_page
from heapsmith.show.quantities import format_quantity, format_ratio
from heapsmith.show.tuning import describe_life, line_to_run, render_spec, when_not
from heapsmith.tune.verdict import Tailored, Trying
from heapsmith.units import UNKNOWN, format_bytes


def write_tuning_page(path: Path, answer: Tailored, traces: Sequence[Path], spec: Path) -> None:
    """Write the page.

    Args:
        path: The file; it is complete or not there.
        answer: What was found.
        traces: The recordings.
        spec: Where the heap's description is.

    Raises:
        HeapsmithError: The file cannot be written.
    """
    before = _before(answer, spec)
    after = _after(answer, traces)
    if answer.race is not None:
        text = render_page(answer.race, answer.reason, before=before, after=after)
    else:
        body = f"<p>{_escape(answer.reason)}</p>{before}{after}"
        text = f"<!doctype html>\n<html lang='en'><meta charset='utf-8'><title>heapsmith tune</title>{body}</html>\n"
    write_output(path, text)


def _before(answer: Tailored, spec: Path) -> str:
    line = line_to_run(answer, spec)
    parts: list[str] = [] if line is None else [f"<pre>{_escape(line)}</pre>"]
    parts += [f"<p class='quiet'>Note: {_escape(note)}.</p>" for note in answer.notes]
    parts.append("<h2>What the program does</h2>" + _list(describe_life(answer)))
    if answer.choices:
        parts.append(_choices(answer))
    parts += [_trial(trial, answer) for trial in answer.trials]
    parts.append(
        f"<h2>What was tried</h2><p>{answer.simulated} heaps were simulated; {len(answer.standings)} candidates raced in"
        f" replays: every allocator of this machine with its defaults and with its knobs, and the forged designs."
        f" {_escape(answer.held_out[:1].upper() + answer.held_out[1:])}.</p>"
    )
    return "\n".join(parts)


def _after(answer: Tailored, traces: Sequence[Path]) -> str:
    return (
        "<h2>When not to use the heap</h2>"
        + _list(when_not(answer))
        + f"<h2>The heap</h2><pre>{_escape(render_spec(answer, traces))}</pre>"
    )


def _choices(answer: Tailored) -> str:
    rows: list[str] = []
    for choice in answer.choices:
        known = not math.isnan(choice.resident_bytes_peak)
        peak = format_bytes(choice.resident_bytes_peak) if known else ""
        mean = format_bytes(choice.resident_bytes_mean) if known else ""
        rows.append(
            f"<tr><td>{_escape(choice.what)}</td><td>{_escape(choice.why)}</td><td>{peak}</td><td>{mean}</td></tr>"
        )
    return (
        "<h2>The design, choice by choice</h2><p class='quiet'>Resident bytes as the simulator predicts them.</p>"
        "<div class='wide'><table><thead><tr><th>choice</th><th>why</th><th>resident, peak</th><th>average</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _trial(trial: Trying, answer: Tailored) -> str:
    rows: list[str] = []
    seconds = "cpu_s" if trial.comparison.workload.replay is None else "cpu_s_per_call"
    for result in trial.comparison.results:
        spreads = result.spreads
        cells = f"<td>{format_quantity(spreads[seconds].median, 'seconds')}</td>"
        for name in ("resident_bytes_peak", "resident_bytes_mean"):
            cells += f"<td>{format_quantity(spreads[name].median, 'bytes')}</td>"
        out = "" if result.failed is None else f" <span class='bad'>out: {_escape(result.failed)}</span>"
        rows.append(f"<tr><td>{_escape(result.candidate.label)}{out}</td><td>{result.runs}</td>{cells}</tr>")
    verdict = ""
    if answer.ours is not None:
        ratios = ", ".join(
            f"{name} {format_ratio(found) or UNKNOWN}"
            for name, found in (("time", trial.time), ("resident bytes", trial.memory), ("cost", trial.cost))
        )
        verdict = f"<p>{_escape(answer.ours.label)} against {_escape(trial.against)}: {_escape(ratios)}</p>"
    return (
        f"<h2>Verified: {_escape(trial.where)}</h2><div class='wide'><table><thead><tr><th>candidate</th><th>runs</th>"
        f"<th>processor time</th><th>resident, peak</th><th>average</th></tr></thead><tbody>{''.join(rows)}</tbody>"
        f"</table></div>{verdict}"
    )


def _list(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_escape(text)}</li>" for text in texts if text) + "</ul>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)

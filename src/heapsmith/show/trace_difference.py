"""Two recordings compared: as text, as JSON, as one HTML file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from heapsmith import __version__
from heapsmith.show.report_document import whole
from heapsmith.show.report_words import describe_limits, name_site
from heapsmith.trace.difference import COMPARED, Change, TraceDifference
from heapsmith.units import format_bytes, format_count

DIFF_SCHEMA: Final = "heapsmith.diff/1"
_MOST_ROWS: Final = 25
_TITLES: Final = {
    "live_bytes_at_peak": "live at the peak",
    "live_bytes_at_exit": "live at the end",
    "allocated_bytes": "allocated in all",
    "allocations": "allocations",
    "temporary_allocations": "temporary",
}


def say_difference(difference: TraceDifference) -> list[str]:
    """Say in words what changed: totals, then who grew most and who shrank most."""
    total = difference.total
    sentences = [
        f"The peak {_moved(total, 'live_bytes_at_peak')}; what is live at the end "
        f"{_moved(total, 'live_bytes_at_exit')}; allocations went from {format_count(total.old['allocations'])} to "
        f"{format_count(total.new['allocations'])}."
    ]
    for measure, title in (("live_bytes_at_peak", "at the peak"), ("live_bytes_at_exit", "at the end")):
        grown = max(difference.places, key=lambda change: change.by(measure), default=None)
        if grown and grown.by(measure) > 0 and not grown.is_noise(measure):
            sentences.append(f"{_place(grown)} grew most {title}, by {format_bytes(grown.by(measure))}.")
    shrunk = min(difference.places, key=lambda change: change.by("live_bytes_at_peak"), default=None)
    if shrunk and shrunk.by("live_bytes_at_peak") < 0 and not shrunk.is_noise("live_bytes_at_peak"):
        sentences.append(
            f"{_place(shrunk)} shrank most at the peak, by {format_bytes(-shrunk.by('live_bytes_at_peak'))}."
        )
    return sentences


def _moved(change: Change, measure: str) -> str:
    by, error = change.by(measure), change.error[measure]
    if not by:
        return f"stayed at {format_bytes(change.new[measure])}"
    old = change.old[measure]
    share = f", {100 * by / old:+.1f} %" if old else ""
    noise = " (within the error of the sample)" if error and change.is_noise(measure) else ""
    return (
        f"{'grew' if by > 0 else 'shrank'} from {format_bytes(old)} to {format_bytes(change.new[measure])} "
        f"({_signed(by, measure)}{share}){noise}"
    )


def _signed(value: float, measure: str) -> str:
    text = format_count(abs(value)) if measure.endswith("allocations") else format_bytes(abs(value))
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{text}"


def _place(change: Change) -> str:
    return name_site(change.label) if change.label is not None else change.name


def _notes(difference: TraceDifference) -> list[str]:
    return [
        f"{side}: {note}"
        for side, report in (("old", difference.old), ("new", difference.new))
        for note in describe_limits(report)
    ]


def render_difference(difference: TraceDifference, fail_above_bytes: int | None) -> RenderableType:
    """Make the text."""
    parts: list[RenderableType] = [Text(f"note: {note}", style="yellow") for note in _notes(difference)]
    parts += [
        Text(sentence, style="bold" if place == 0 else "")
        for place, sentence in enumerate(say_difference(difference))
    ]
    parts += [Text(), _table("Places", difference.places, "place")]
    if difference.unchanged_places:
        parts.append(Text(f"{difference.unchanged_places} places did not change", style="dim"))
    parts += [Text(), _table("Size classes", difference.sizes[:15], "largest usable bytes")]
    if fail_above_bytes is not None:
        failed = difference.growth_bytes > fail_above_bytes
        parts.append(
            Text(
                f"{'FAILED: grew' if failed else 'passed: did not grow'} by more than {format_bytes(fail_above_bytes)}",
                style="bold red" if failed else "green",
            )
        )
    return Group(*parts)


def _table(title: str, changes: Sequence[Change], what: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("at the peak", "at the end", "allocated", "allocations"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(what, overflow="fold")
    for change in changes[:_MOST_ROWS]:
        cells: list[Text] = []
        for measure in COMPARED[:4]:
            by = change.by(measure)
            noise = bool(change.error[measure]) and change.is_noise(measure)
            style = "dim" if not by or noise else "red" if by > 0 else "green"
            cells.append(Text(_signed(by, measure) + (" (noise)" if noise and by else ""), style=style))
        name = _place(change) if change.label is not None else _class(change.name)
        table.add_row(*cells, escape(name + (" [mapping]" if change.name.endswith("[mapping]") else "")))
    if len(changes) > _MOST_ROWS:
        table.add_row("", "", "", "", f"{len(changes) - _MOST_ROWS} more")
    return table


def _class(name: str) -> str:
    return format_bytes(int(name)) if name.isdigit() else name


def build_difference_document(difference: TraceDifference, fail_above_bytes: int | None) -> dict[str, Any]:
    """Build the JSON document."""
    return {
        "schema": DIFF_SCHEMA,
        "old": difference.old.paths,
        "new": difference.new.paths,
        "notes": _notes(difference),
        "text": say_difference(difference),
        "total": _change(difference.total),
        "growth_bytes": whole(difference.growth_bytes),
        "fail_above_bytes": fail_above_bytes,
        "failed": fail_above_bytes is not None and difference.growth_bytes > fail_above_bytes,
        "places": [
            {"place": change.label.text if change.label else change.name, **_change(change)}
            for change in difference.places
        ],
        "unchanged_places": difference.unchanged_places,
        "size_classes": [
            {"class_bytes": int(change.name) if change.name.isdigit() else None, **_change(change)}
            for change in difference.sizes
        ],
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        measure: {
            "old": whole(change.old[measure]),
            "new": whole(change.new[measure]),
            "difference": whole(change.by(measure)),
            "error": whole(change.error[measure]),
        }
        for measure in COMPARED
    }


def render_difference_page(difference: TraceDifference) -> str:
    """Make the text of a page that needs nothing else."""
    sentences = say_difference(difference)
    notes = "".join(f"<li>{_escape(note)}</li>" for note in _notes(difference))
    title = f"{difference.old.paths[0]} → {difference.new.paths[0]}"
    style = resources.files("heapsmith.show").joinpath("trace_difference.css").read_text(encoding="utf-8")
    words = f"<p class='first'>{_escape(sentences[0])}</p>" + "".join(
        f"<p>{_escape(sentence)}</p>" for sentence in sentences[1:]
    )
    return (
        "<!doctype html>\n<html lang='en' data-ready='yes'><head><meta charset='utf-8'>\n"
        f"<title>heapsmith: {_escape(title)}</title>\n"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'>\n<style>{style}</style></head>\n<body>\n"
        f"<h1>{_escape(title)}</h1><p class='quiet'>{_escape(' '.join(difference.new.manifests[0].command))} · "
        f"heapsmith {__version__}</p>\n" + (f"<ul class='notes'>{notes}</ul>\n" if notes else "") + words
        + "<h2>Places</h2>" + _html_table(difference.places[:1000], "place")
        + (f"<p class='quiet'>{len(difference.places) - 1000} more changed</p>" if len(difference.places) > 1000 else "")
        + f"<p class='quiet'>{difference.unchanged_places} places did not change.</p>"
        + "<h2>Size classes</h2>" + _html_table(difference.sizes, "largest usable bytes")
        + "\n</body></html>\n"
    )  # fmt: skip


def _html_table(changes: Sequence[Change], what: str) -> str:
    head = "".join(f"<th>{_TITLES[measure]}</th>" for measure in COMPARED[:4])
    rows: list[str] = []
    for change in changes:
        cells = ""
        for measure in COMPARED[:4]:
            by = change.by(measure)
            noise = bool(change.error[measure]) and change.is_noise(measure)
            kind = "quiet" if not by or noise else "more" if by > 0 else "less"
            show = format_count if measure.endswith("allocations") else format_bytes
            cells += (
                f"<td><span class='{kind}'>{_signed(by, measure)}{' (noise)' if noise and by else ''}</span>"
                f"<small>{show(change.old[measure])} → {show(change.new[measure])}</small></td>"
            )
        name = _place(change) if change.label is not None else _class(change.name)
        rows.append(f"<tr>{cells}<td>{_escape(name)}</td></tr>")
    return (
        f"<div class='wide'><table><thead><tr>{head}<th>{what}</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _escape(text: str) -> str:
    return html.escape(text, quote=True)

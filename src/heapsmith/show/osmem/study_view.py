"""Policies compared: a table for the terminal, bars for the eye, a JSON document for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from heapsmith.errors import HeapsmithError
from heapsmith.osmem.study import RULES, Outcome
from heapsmith.outputs import write_output
from heapsmith.show.osmem.png import render_png
from heapsmith.show.osmem.shapes import Ink, Label, Path, Picture, Rect, Shape
from heapsmith.show.osmem.svg import colour_rules, render_svg, shape_rules
from heapsmith.units import format_bytes, format_count

_Value = Callable[[Outcome], float]


def _percent(value: float) -> str:
    return f"{value:.1%}"


# What is compared: the heading, what it means, the value, how to write it. Less is better in every column.
_COLUMNS: Final[tuple[tuple[str, str, _Value, Callable[[float], str]], ...]] = (
    ("system calls", "trips into the kernel", lambda o: o.system_calls, format_count),
    ("peak heap", "the longest that the heap got", lambda o: o.heap_bytes_peak, format_bytes),
    ("internal", "mean slack inside live blocks", lambda o: o.internal_fragmentation_ratio, _percent),
    ("external", "mean free share of all memory", lambda o: o.external_fragmentation_ratio, _percent),
    ("scattered", "free memory not in the largest", lambda o: o.scattered_ratio, _percent),
    ("search steps", "blocks looked at for a fit", lambda o: o.search_steps, format_count),
    ("coalesce steps", "blocks looked at to merge", lambda o: o.coalesce_steps, format_count),
)


def print_study(outcomes: Sequence[Outcome], title: str) -> None:
    """Print the table; the course's own rules are marked, and the least of each column is bold."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("policy", no_wrap=True)
    for heading, *_ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    least = [min(value(outcome) for outcome in outcomes) for _, _, value, _ in _COLUMNS]
    for outcome in outcomes:
        cells = [
            f"[bold green]{write(value(outcome))}[/]" if value(outcome) == best else write(value(outcome))
            for (_, _, value, write), best in zip(_COLUMNS, least, strict=True)
        ]
        mark = "[bold]* [/]" if outcome.policy == RULES else "  "
        table.add_row(mark + outcome.policy.name, *cells)
    console = Console(highlight=False)
    Console(highlight=False, width=max(console.width, 138)).print(table)
    console.print("* the rules of libosmem.so; less is better in every column", style="dim")


def study_document(outcomes: Sequence[Outcome], source: str, layout: str) -> dict[str, Any]:
    """Build the JSON document of a study."""
    return {
        "schema": "heapsmith.osmem.study/1",
        "source": source,
        "layout": layout,
        "results": [{"name": outcome.policy.name, **asdict(outcome)} for outcome in outcomes],
    }


_NAME_WIDTH: Final = 210.0
_COLUMN_WIDTH: Final = 122.0
_ROW_HEIGHT: Final = 24.0
_MARGIN: Final = 28.0


def draw_study(outcomes: Sequence[Outcome], title: str) -> Picture:
    """Draw a bar for every figure: the longest in each column is the most; the least is green."""
    width = 2 * _MARGIN + _NAME_WIDTH + len(_COLUMNS) * _COLUMN_WIDTH
    shapes: list[Shape] = [
        Label(_MARGIN, 42, title, "text", 20, bold=True),
        Label(
            _MARGIN,
            63,
            "less is better in every column; the least is green, the rules of the course are bold",
            "muted",
            12,
        ),
    ]
    top = 122.0
    for index, (heading, meaning, value, write) in enumerate(_COLUMNS):
        x = _MARGIN + _NAME_WIDTH + index * _COLUMN_WIDTH
        shapes.append(Label(x, top - 26, heading, "text", 12.5, bold=True))
        for line, words in enumerate(_halves(meaning)):
            shapes.append(Label(x, top - 14 + 10 * line, words, "muted", 9))
        most = max(value(outcome) for outcome in outcomes) or 1
        least = min(value(outcome) for outcome in outcomes)
        for row, outcome in enumerate(outcomes):
            y = top + 6 + row * _ROW_HEIGHT
            amount = value(outcome)
            ink: Ink = "new" if amount == least else "used"
            bar = (_COLUMN_WIDTH - 66) * amount / most
            shapes.append(
                Rect(
                    x,
                    y + 3,
                    max(1.0, bar),
                    _ROW_HEIGHT - 8,
                    ink,
                    title=f"{outcome.policy.name}: {write(amount)}",
                )
            )
            shapes.append(Label(x + max(1.0, bar) + 5, y + 15.5, write(amount), "text", 10.5))
    for row, outcome in enumerate(outcomes):
        y = top + 6 + row * _ROW_HEIGHT
        if row and outcome.policy.coalesce != outcomes[row - 1].policy.coalesce:
            shapes.append(Path(((_MARGIN, y - 1), (width - _MARGIN, y - 1)), "grid"))
        shapes.append(
            Label(_MARGIN, y + 15.5, outcome.policy.name, "text", 11.5, bold=outcome.policy == RULES)
        )
    return Picture(width, top + 6 + len(outcomes) * _ROW_HEIGHT + 20, tuple(shapes))


def _halves(text: str) -> list[str]:
    words = text.split()
    middle = (len(words) + 1) // 2
    return [" ".join(words[:middle]), " ".join(words[middle:])]


def save_study(outcomes: Sequence[Outcome], title: str, path: FilePath) -> None:
    """Write the figure; the suffix says which kind.

    Raises:
        HeapsmithError: The suffix is none of ``.html``, ``.svg``, ``.png``, or the file cannot be written.
    """
    picture = draw_study(outcomes, title)
    match path.suffix.lower():
        case ".svg":
            content = render_svg(picture, label=title).encode()
        case ".png":
            content = render_png(picture)
        case ".html":
            figure = render_svg(picture, alone=False, label=title)
            content = (
                '<!doctype html><html lang="en"><meta charset="utf-8">'
                '<meta name="viewport" content="width=device-width, initial-scale=1">'
                "<title>The policies compared</title>"
                f"<style>{colour_rules()}{shape_rules()}body{{margin:0;background:var(--ground);overflow-x:auto}}"
                f".heap{{display:block;width:100%;min-width:820px;max-width:{picture.width:.0f}px;margin:auto}}</style>"
                f"<body>{figure}</body></html>"
            ).encode()
        case suffix:
            raise HeapsmithError(
                f"cannot draw {path}",
                f"{suffix or 'no suffix'} is no kind of picture",
                "one of: .html, .svg, .png",
            )
    write_output(path, content)

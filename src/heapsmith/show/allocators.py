"""The allocators of this machine in the terminal, and as a JSON document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heapsmith.peers import python
from heapsmith.peers.allocator import FIELDS
from heapsmith.peers.knobs import Knob
from heapsmith.peers.register import Found

_HEADINGS: Final = {
    "current_allocated_heap_size": "in use",
    "peak_allocated_heap_size": "peak",
    "max_total_heap_size": "limit",
}
_TOLD_MARKS: Final = {"exact": "exact", "approximate": "~", "unknown": "?"}


def render_allocators(found: Sequence[Found]) -> RenderableType:
    """Make the tables of what is here, its knobs, and what is missing."""
    table = Table(title="on this machine", title_justify="left", pad_edge=False)
    for heading in ("allocator", "version", "library", "note"):
        table.add_column(heading, overflow="fold")
    for item in found:
        if item.here:
            library = "(in the C library)" if item.path is None else str(item.path)
            table.add_row(
                item.allocator.name,
                item.version or "",
                "(in CPython)" if item.allocator.python_only else library,
                item.allocator.note or item.allocator.title,
            )
    knobs = Table(title="knobs, written NAME:knob=value,knob=value", title_justify="left", pad_edge=False)
    for heading in ("allocator", "knob", "default", "range", "what it does"):
        knobs.add_column(heading, overflow="fold")
    having: dict[tuple[Knob, ...], list[str]] = defaultdict(list)
    for item in found:
        having[tuple(_known(item))].append(item.allocator.name)
    for known, names in having.items():
        for index, knob in enumerate(known):
            knobs.add_row(
                "\n".join(names) if index == 0 else "",
                knob.name,
                _default(knob),
                knob.range_text(),
                knob.help,
                end_section=index == len(known) - 1,
            )
    knobs.add_row("each", python.KNOB.name, _default(python.KNOB), python.KNOB.range_text(), python.KNOB.help)
    parts: list[RenderableType] = [table, Text(), _what_each_tells(found), Text(), knobs]
    missing = [item for item in found if not item.here]
    if missing:
        parts.append(Text("\nnot on this machine", style="italic"))
    for item in missing:
        trouble = f" ({item.problem})" if item.problem else ""
        parts.append(Text(f"  {item.allocator.name}{trouble}: {item.allocator.how_to_get()}"))
    return Group(*parts)


def _what_each_tells(found: Sequence[Found]) -> RenderableType:
    """What an allocator's own statistics answer; where they say nothing, the watch counts or nobody knows."""
    names = list(FIELDS)
    title = "what each can tell of itself (~ approximately, ? not at all)"
    table = Table(title=title, title_justify="left", padding=0)
    table.add_column("allocator", no_wrap=True)
    for name in names:
        table.add_column(_short(name), justify="center")
    for item in found:
        if item.here and not item.allocator.python_only:
            told = (item.allocator.fields[name] for name in names)
            table.add_row(item.allocator.name, *(_TOLD_MARKS[tells] for tells in told))
    sharing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in found:
        for name, meaning in item.allocator.meanings.items() if item.here else ():
            sharing[name, meaning].append(item.allocator.name)
    meanings = [
        Text(f"  {', '.join(allocators)}: {_short(name)}: {meaning}", style="dim")
        for (name, meaning), allocators in sharing.items()
    ]
    return Group(table, *meanings)


def _short(field: str) -> str:
    return _HEADINGS.get(field) or field.removesuffix("_bytes").replace("_", " ")


def _known(item: Found) -> list[Knob]:
    return [knob for knob in item.allocator.knobs if item.here and knob.known_in(item.version_numbers)]


def _default(knob: Knob) -> str:
    return knob.default_note or ("" if knob.default is None else knob.write(knob.default))


def build_allocators_document(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Build the JSON document of ``allocators --json``: one object per allocator, here or not."""
    return [
        {
            "name": item.allocator.name,
            "title": item.allocator.title,
            "here": item.here,
            "version": item.version,
            "path": None if item.path is None else str(item.path),
            "problem": item.problem,
            "fields": item.allocator.fields,
            "meanings": item.allocator.meanings,
            "knobs": [_knob_document(knob, item) for knob in item.allocator.knobs],
            "install": {way.manager: way.command for way in item.allocator.install},
            "note": item.allocator.note or None,
        }
        for item in found
    ]


def _knob_document(knob: Knob, item: Found) -> dict[str, Any]:
    return {
        "name": knob.name,
        "unit": knob.kind,
        "help": knob.help,
        "default": knob.default,
        "default_note": knob.default_note or None,
        "lowest": knob.lowest,
        "highest": knob.highest,
        "choices": list(knob.choices) or None,
        "since": ".".join(map(str, knob.since)) or None,
        "before": ".".join(map(str, knob.before or ())) or None,
        "known": knob.known_in(item.version_numbers) if item.here else None,
    }

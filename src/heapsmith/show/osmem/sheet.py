"""A run on one sheet: step under step, each with its code, outcome, reasons, picture and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from heapsmith.osmem.axis import Axis, boundaries_of
from heapsmith.osmem.blocks import HEAP_START
from heapsmith.osmem.measures import Measures
from heapsmith.osmem.story import Scene
from heapsmith.show.osmem.heap_picture import draw_heap
from heapsmith.show.osmem.shapes import Ink, Label, Path, Picture, Rect, Shape, moved, text_width
from heapsmith.units import format_bytes, format_count

_WIDTH: Final = 960.0
_MARGIN: Final = 28.0
_FIGURES_WIDTH: Final = 200.0

LEGEND: Final[tuple[tuple[Ink, str], ...]] = (
    ("header", "header"),
    ("used", "payload in use"),
    ("slack", "slack (asked for by nobody)"),
    ("free-header", "header of a free block"),
    ("free", "free payload"),
    ("mapped", "mapped block"),
)


def axis_for(scenes: Sequence[Scene], width: float) -> Axis:
    """Make the one axis that all pictures of a run share."""
    heaps = [scene.step.heap for scene in scenes] + [scene.before for scene in scenes]
    return Axis(boundaries_of(heaps) or {HEAP_START, HEAP_START + 1}, width)


def heap_bytes_peak(scenes: Sequence[Scene]) -> int:
    """Find the longest that the heap gets."""
    return max((scene.step.heap[-1].end - HEAP_START for scene in scenes if scene.step.heap), default=0)


def figures_of(measures: Measures, system_calls: int) -> list[tuple[str, str, str]]:
    """Write the figures of a step: name, value, and what it means."""
    slack = measures.usable_live_bytes - measures.requested_live_bytes
    return [
        (
            "in use",
            format_bytes(measures.requested_live_bytes),
            "what the program asked for and has not given back",
        ),
        ("from the system", format_bytes(measures.committed_bytes), "heap and mappings, all included"),
        ("headers", format_bytes(measures.metadata_bytes), "what the allocator needs for itself"),
        (
            "internal fragmentation",
            f"{measures.internal_fragmentation_ratio:.1%}",
            f"slack inside live blocks: {format_count(slack)} bytes",
        ),
        (
            "external fragmentation",
            f"{measures.external_fragmentation_ratio:.1%}",
            f"free share of what came from the system: {format_bytes(measures.free_bytes)}",
        ),
        (
            "largest free block",
            format_bytes(measures.largest_free_bytes),
            f"of {format_count(measures.free_blocks)} free blocks; a larger request needs the system",
        ),
        ("system calls so far", format_count(system_calls), "each is a trip into the kernel"),
    ]


def draw_sheet(scenes: Sequence[Scene], title: str, subtitle: str) -> Picture:
    """Draw all steps below each other.

    Args:
        scenes: At least one.
        title: Of the sheet.
        subtitle: Below it.
    """
    axis = axis_for(scenes, _WIDTH)
    peak = heap_bytes_peak(scenes)
    shapes: list[Shape] = [
        Label(_MARGIN, 44, title, "text", 22, bold=True),
        Label(_MARGIN, 66, subtitle, "muted", 13),
    ]
    x, y = _MARGIN, 84.0
    for ink, text in LEGEND:
        shapes += [Rect(x, y, 14, 14, ink, "edge"), Label(x + 19, y + 11.5, text, "muted", 11.5)]
        x += 19 + text_width(text, 11.5) + 16
    y += 34
    shapes.append(Label(_MARGIN, y, SCALE_NOTE, "muted", 11.5))
    y += 18
    for scene in scenes:
        y = _step(shapes, scene, axis, peak, y)
    return Picture(_WIDTH + 2 * _MARGIN, y + 8, tuple(shapes))


SCALE_NOTE: Final = (
    "Blocks are to scale, at the same place in every step; the mark // says that a piece is drawn shorter, "
    "and the smallest are drawn 3 wide."
)


def _step(shapes: list[Shape], scene: Scene, axis: Axis, peak: int, y: float) -> float:
    shapes.append(Path(((_MARGIN, y), (_MARGIN + _WIDTH, y)), "grid"))
    y += 26
    number = f"{scene.number}"
    shapes.append(Label(_MARGIN, y, number, "muted", 14, bold=True))
    code_x = _MARGIN + text_width(number, 14, bold=True) + 14
    shapes.append(Label(code_x, y, scene.played.operation.text, "text", 15, mono=True, bold=True))
    first = scene.trace[0].split("= ", 1)[-1]
    code_width = text_width(scene.played.operation.text, 15, mono=True)
    shapes.append(Label(code_x + code_width + 16, y, f"= {first}", "muted", 12, mono=True))
    y += 22
    shapes.append(Label(_MARGIN, y, capitalised(scene.headline), "text", 14.5, bold=True))
    left = y
    for sentence in scene.sentences:
        for line in wrap(sentence, _WIDTH - _FIGURES_WIDTH - 130, 12.5):
            left += 17
            shapes.append(Label(_MARGIN, left, line, "text", 12.5))
    right = y - 17
    for name, value, _ in figures_of(scene.measures, scene.system_calls_so_far):
        right += 16
        shapes.append(Label(_MARGIN + _WIDTH - 78, right, name, "muted", 11.5, "end"))
        shapes.append(Label(_MARGIN + _WIDTH, right, value, "text", 11.5, "end", bold=True))
    y = max(left, right) + 14
    picture = draw_heap(scene, axis, peak)
    shapes += moved(picture.shapes, _MARGIN, y)
    return y + picture.height + 10


def capitalised(text: str) -> str:
    """Begin a headline with a capital, unless it begins with a name of the script."""
    first_word = text.split()[0] if text.split() else ""
    return (
        text if len(first_word) <= 3 or any(c.isdigit() for c in first_word) else text[0].upper() + text[1:]
    )


def wrap(text: str, width: float, size: float) -> list[str]:
    """Break a text into lines that fit."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines

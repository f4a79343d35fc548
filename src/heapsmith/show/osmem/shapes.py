"""What a picture is made of: three kinds of marks and one table of colours, drawn by `svg` and `png`.

The hues are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any colour vision
tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Ink = Literal[
    "ground",
    "text",
    "muted",
    "grid",
    "header",
    "used",
    "used-text",
    "slack",
    "free-header",
    "free",
    "free-text",
    "edge",
    "move",
    "stop",
    "new",
    "mapped",
]

INKS: Final[dict[Ink, tuple[str, str]]] = {
    "ground": ("#ffffff", "#141b23"),
    "text": ("#1b2530", "#e6edf3"),
    "muted": ("#5b6673", "#9aa7b5"),
    "grid": ("#d9dfe6", "#2b3744"),
    "header": ("#0b3a5c", "#cfe6f7"),
    "used": ("#56a5d8", "#2f7fb5"),
    "used-text": ("#06243a", "#ffffff"),
    "slack": ("#cfe3f1", "#1d4a68"),
    "free-header": ("#8b96a3", "#6f7d8c"),
    "free": ("#eef1f4", "#202b36"),
    "free-text": ("#5b6673", "#9aa7b5"),
    "edge": ("#8b96a3", "#55636f"),
    "move": ("#b34700", "#ff9d4d"),
    "stop": ("#a3005c", "#f08cc4"),
    "new": ("#00734f", "#3fd0a3"),
    "mapped": ("#d9b3cc", "#77496a"),
}
"""Each colour on a light and on a dark ground."""


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle; ``title`` is what a pointer over it is told."""

    x: float
    y: float
    width: float
    height: float
    fill: Ink | None
    edge: Ink | None = None
    edge_width: float = 1.0
    dashed: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """Straight lines from point to point, filled if ``fill`` is given."""

    points: tuple[tuple[float, float], ...]
    edge: Ink | None
    width: float = 1.0
    dashed: bool = False
    fill: Ink | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text; ``y`` is its baseline."""

    x: float
    y: float
    text: str
    ink: Ink = "text"
    size: float = 12.0
    anchor: Literal["start", "middle", "end"] = "start"
    mono: bool = False
    bold: bool = False


Mark = Rect | Path | Label


@dataclass(frozen=True, slots=True)
class Group:
    """Marks that belong together and often come again: a page with many pictures holds them once."""

    marks: tuple[Mark, ...]


Shape = Mark | Group


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes, in the order in which they are drawn, and the size of the sheet."""

    width: float
    height: float
    shapes: tuple[Shape, ...]


def text_width(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """Estimate how wide a line of text will be, on the safe side: which font will draw it is not known."""
    return len(text) * size * (0.61 if mono else 0.57 if bold else 0.53)


def marks_of(shapes: Iterable[Shape]) -> Iterator[Mark]:
    """Yield every mark, those in groups too."""
    for shape in shapes:
        if isinstance(shape, Group):
            yield from shape.marks
        else:
            yield shape


def moved(shapes: Iterable[Shape], dx: float, dy: float) -> list[Mark]:
    """Return the marks of the shapes, shifted."""
    shifted: list[Mark] = []
    for shape in marks_of(shapes):
        match shape:
            case Rect():
                shifted.append(
                    Rect(
                        shape.x + dx,
                        shape.y + dy,
                        shape.width,
                        shape.height,
                        shape.fill,
                        shape.edge,
                        shape.edge_width,
                        shape.dashed,
                        shape.title,
                    )
                )
            case Path():
                points = tuple((x + dx, y + dy) for x, y in shape.points)
                shifted.append(Path(points, shape.edge, shape.width, shape.dashed, shape.fill))
            case Label():
                shifted.append(
                    Label(
                        shape.x + dx,
                        shape.y + dy,
                        shape.text,
                        shape.ink,
                        shape.size,
                        shape.anchor,
                        shape.mono,
                        shape.bold,
                    )
                )
    return shifted

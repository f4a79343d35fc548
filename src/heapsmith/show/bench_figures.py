"""Time against memory as a picture: one small SVG that a page or a document shows as it is."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

_WIDTH: Final = 620
_HEIGHT: Final = 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 130, 40, 52
_INKS: Final = (
    "#3d4752", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b07900", "#56b4e9", "#7a5195", "#8c564b", "#17a2a2",
)  # fmt: skip


class Point(NamedTuple):
    """An allocator in the picture; both figures are ratios to the system's malloc, less is better."""

    name: str
    time: float
    memory: float


def draw_pareto(title: str, points: Sequence[Point], *, memory_title: str = "peak resident memory") -> str:
    """Draw time against memory; no allocator beats one on the dashed line in both.

    Args:
        title: What was measured.
        points: One for each allocator, the system's malloc first.
        memory_title: What the upward figure is.

    Returns:
        SVG.

    Example:
        >>> draw_pareto("x", [Point("system", 1, 1), Point("default", 0.5, 0.9)]).count("<circle")
        2
    """
    across, upward = _end([p.time for p in points]), _end([p.memory for p in points])

    def x(value: float) -> float:
        return _LEFT + value / across * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / upward * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' "
        "font-family='system-ui, sans-serif' font-size='12'>",
        f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='#ffffff'/>",
        _text(_LEFT, 22, title, size=14, weight="600"),
    ]
    for value in _ticks(across):
        parts.append(_line(x(value), y(0), x(value), y(upward), "#e8ecf0"))
        parts.append(_text(x(value), y(0) + 18, f"{value:g}", anchor="middle"))
    for value in _ticks(upward):
        parts.append(_line(x(0), y(value), x(across), y(value), "#e8ecf0"))
        parts.append(_text(x(0) - 8, y(value) + 4, f"{value:g}", anchor="end"))
    parts.append(_text(x(across / 2), _HEIGHT - 12, "time, system's malloc = 1", anchor="middle"))
    middle = y(upward / 2)
    turned = f" transform='rotate(-90 16 {middle:.0f})'"
    parts.append(_text(16, middle, f"{memory_title}, system's malloc = 1", anchor="middle", extra=turned))
    front = _front(points)
    steps = " ".join(
        f"{x(b.time):.1f},{y(a.memory):.1f} {x(b.time):.1f},{y(b.memory):.1f}"
        for a, b in itertools.pairwise(front)
    )
    if steps:
        start = f"{x(front[0].time):.1f},{y(front[0].memory):.1f}"
        parts.append(
            f"<polyline points='{start} {steps}' fill='none' stroke='#9aa5b1' stroke-dasharray='4 4'/>"
        )
    taken: list[tuple[float, float]] = []
    for index, point in enumerate(points):
        ink = _INKS[index % len(_INKS)]
        words = html.escape(f"{point.name}: time {point.time:.2f}, memory {point.memory:.2f}")
        parts.append(
            f"<circle cx='{x(point.time):.1f}' cy='{y(point.memory):.1f}' r='6' fill='{ink}'>"
            f"<title>{words}</title></circle>"
        )
        at_x, at_y = x(point.time) + 10, y(point.memory) + 4
        while any(abs(at_x - other_x) < 90 and abs(at_y - other_y) < 13 for other_x, other_y in taken):
            at_y += 13
        taken.append((at_x, at_y))
        parts.append(_text(at_x, at_y, point.name, ink=ink))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _front(points: Sequence[Point]) -> list[Point]:
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.time, p.memory)):
        if not front or point.memory < front[-1].memory:
            front.append(point)
    return front


def _end(values: Sequence[float]) -> float:
    return max([1.0, *values]) * 1.1


def _ticks(end: float) -> list[float]:
    step = next(step for step in (0.25, 0.5, 1, 2, 5, 10, 50, 250, 1000, 1e9) if end / step <= 8)
    return [step * index for index in range(int(end / step) + 1)]


def _text(
    x: float, y: float, text: str, *, ink: str = "#3d4752", anchor: str = "start", size: int = 12,
    weight: str = "400", extra: str = "",
) -> str:  # fmt: skip
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' fill='{ink}' text-anchor='{anchor}' font-size='{size}' "
        f"font-weight='{weight}'{extra}>{html.escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, ink: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{ink}'/>"

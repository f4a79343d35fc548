"""A run in two curves each: memory in use against memory obtained, and the two kinds of fragmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from heapsmith.osmem.story import Scene
from heapsmith.show.osmem.shapes import Ink, Label, Path, Picture, Shape
from heapsmith.units import format_bytes

_PLOT_HEIGHT: Final = 64.0


def draw_chart(scenes: Sequence[Scene], width: float) -> Picture:
    """Draw the curves of a run, the first step at the left edge and the last at the right."""
    memory: list[tuple[str, Ink, list[float]]] = [
        ("from the system", "muted", [float(s.measures.committed_bytes) for s in scenes]),
        ("in use", "used", [float(s.measures.requested_live_bytes) for s in scenes]),
    ]
    lost: list[tuple[str, Ink, list[float]]] = [
        ("external fragmentation", "move", [s.measures.external_fragmentation_ratio for s in scenes]),
        ("internal", "stop", [s.measures.internal_fragmentation_ratio for s in scenes]),
    ]
    shapes: list[Shape] = []
    peak = max((value for _, _, values in memory for value in values), default=0.0)
    y = _plot(shapes, memory, peak, f"up to {format_bytes(peak)}", width, 0)
    y = _plot(shapes, lost, 1.0, "up to 100%", width, y + 12)
    return Picture(width, y + 2, tuple(shapes))


def _plot(
    shapes: list[Shape],
    curves: list[tuple[str, Ink, list[float]]],
    peak: float,
    scale: str,
    width: float,
    y: float,
) -> float:
    x = 0.0
    for name, ink, _ in curves:
        shapes.append(Path(((x, y + 8), (x + 14, y + 8)), ink, 3))
        shapes.append(Label(x + 19, y + 12, name, "muted", 11))
        x += 19 + len(name) * 6.2 + 14
    shapes.append(Label(width, y + 12, scale, "muted", 11, "end"))
    top, bottom = y + 20, y + 20 + _PLOT_HEIGHT
    shapes.append(Path(((0, bottom), (width, bottom)), "grid"))
    shapes.append(Path(((0, top), (width, top)), "grid", dashed=True))
    for _, ink, values in curves:
        points: list[tuple[float, float]] = []
        for index, value in enumerate(values):
            px = width * index / max(1, len(values) - 1)
            py = bottom - (value / peak if peak else 0) * _PLOT_HEIGHT
            if points:  # a heap changes at a step, not on the way to it
                points.append((px, points[-1][1]))
            points.append((px, py))
        shapes.append(Path(tuple(points), ink, 2))
    return bottom

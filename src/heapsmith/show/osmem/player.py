"""A run as one HTML file: a player with the script, the picture of each step, its reasons and its figures.

The file needs nothing else, works offline, by keyboard and by touch, on light and dark, wide and narrow;
without JavaScript it shows all steps below each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path as FilePath
from typing import Final

from heapsmith.osmem.axis import Axis
from heapsmith.osmem.story import Scene
from heapsmith.show.osmem.heap_picture import draw_heap, headroom_of
from heapsmith.show.osmem.run_chart import draw_chart
from heapsmith.show.osmem.shapes import Picture
from heapsmith.show.osmem.sheet import LEGEND, SCALE_NOTE, axis_for, capitalised, figures_of, heap_bytes_peak
from heapsmith.show.osmem.svg import Repeated, colour_rules, render_svg, shape_rules

_WIDE: Final = 860.0
_NARROW: Final = 344.0
_HERE: Final = FilePath(__file__).parent


def render_player(scenes: Sequence[Scene], title: str, subtitle: str) -> str:
    """Write the file.

    Args:
        scenes: The steps; at least one.
        title: Usually the script's name.
        subtitle: Layout and policies.
    """
    peak = heap_bytes_peak(scenes)
    sizes: list[tuple[str, Axis, list[float]]] = []
    for name, width in (("wide", _WIDE), ("narrow", _NARROW)):
        axis = axis_for(scenes, width)
        sizes.append((name, axis, headroom_of(scenes, axis)))
    repeated = Repeated()
    steps = "".join(_step(scene, sizes, peak, repeated) for scene in scenes)
    script = "".join(
        f'<li><a href="#{scene.number}" data-step="{scene.number}">{escape(scene.played.operation.text)}'
        f"{_remark(scene.played.operation.comment)}</a></li>"
        for scene in scenes
    )
    legend = "".join(
        f'<span><i style="background:var(--{ink})"></i>{escape(text)}</span>' for ink, text in LEGEND
    )
    charts = "".join(
        _picture(name, draw_chart(scenes, axis.row_units), "The run in figures") for name, axis, _ in sizes
    )
    page = (_HERE / "player.html").read_text(encoding="utf-8")
    for key, value in {
        "title": escape(title),
        "subtitle": escape(subtitle),
        "colours": colour_rules() + shape_rules(),
        "script": script,
        "steps": repeated.definitions() + steps,
        "legend": legend,
        "note": escape(SCALE_NOTE),
        "charts": charts,
        "count": str(len(scenes)),
        "first": str(scenes[0].number),
        "last": str(scenes[-1].number),
    }.items():
        page = page.replace(f"@{key}@", value)
    return page


def _picture(name: str, picture: Picture, label: str, repeated: Repeated | None = None) -> str:
    return f'<div class="{name}">{render_svg(picture, alone=False, label=label, repeated=repeated)}</div>'


def _remark(comment: str) -> str:
    return f" <small># {escape(comment)}</small>" if comment else ""


def _step(scene: Scene, sizes: list[tuple[str, Axis, list[float]]], peak: int, repeated: Repeated) -> str:
    pictures = "".join(
        _picture(name, draw_heap(scene, axis, peak, room), f"The heap after step {scene.number}", repeated)
        for name, axis, room in sizes
    )
    reasons = "".join(f"<li>{escape(sentence)}</li>" for sentence in scene.sentences)
    figures = "".join(
        f'<div title="{escape(meaning)}"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'
        for name, value, meaning in figures_of(scene.measures, scene.system_calls_so_far)
    )
    trace = "\n".join(
        " ".join(line.split()) if not line.startswith(" ") else f"  {' '.join(line.split())}"
        for line in scene.trace
    )
    return (
        f'<section class="step" id="step-{scene.number}" data-step="{scene.number}">'
        f"<h2><b>{scene.number}</b><code>{escape(scene.played.operation.text)}</code></h2>"
        f'<p class="headline">{escape(capitalised(scene.headline))}</p>{pictures}'
        f'<div class="below"><ol class="reasons">{reasons}</ol><dl>{figures}</dl></div>'
        f"<pre>{escape(trace)}</pre></section>"
    )

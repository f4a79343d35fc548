"""A picture as PNG, drawn by Pillow: it comes with a font and needs nothing of the system."""

from __future__ import annotations

import io
import itertools
import math
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from heapsmith.errors import HeapsmithError
from heapsmith.show.osmem.shapes import INKS, Ink, Label, Path, Picture, Rect, marks_of

_SCALES: Final = (2, 1)  # pixels for each unit: two are sharp on the screens of today, one is for long sheets
_SMOOTHING: Final = 2  # lines are drawn at twice the size and shrunk; text is smooth by itself
_MOST_PIXELS: Final = 40_000_000
_BAND_UNITS: Final = 600  # drawn at a time, to keep the memory that smoothing needs small
_DASH: Final = (4.0, 3.0)
_REPLACED: Final = str.maketrans({"“": '"', "”": '"', "’": "'"})

_Point = tuple[float, float]


def render_png(picture: Picture) -> bytes:
    """Draw a picture on a light ground.

    Raises:
        HeapsmithError: The sheet is too long for a picture of pixels.
    """
    scale = next(
        (scale for scale in _SCALES if picture.width * picture.height * scale**2 <= _MOST_PIXELS), None
    )
    if scale is None:
        raise HeapsmithError(
            f"a picture of {picture.width:.0f} x {picture.height:.0f} pixels is too long for a PNG",
            hint="choose fewer steps with --steps, or write .svg or .html",
        )
    image = Image.new("RGB", (round(picture.width * scale), round(picture.height * scale)), _colour("ground"))
    for top in range(0, math.ceil(picture.height), _BAND_UNITS):
        image.paste(_band(picture, top, scale), (0, top * scale))
    # Text comes last: nothing in a picture covers a label.
    draw = ImageDraw.Draw(image)
    for shape in marks_of(picture.shapes):
        if isinstance(shape, Label):
            _label(draw, shape, scale)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _band(picture: Picture, top: int, scale: int) -> Image.Image:
    size = (round(picture.width * scale), _BAND_UNITS * scale)
    image = Image.new("RGB", (size[0] * _SMOOTHING, size[1] * _SMOOTHING), _colour("ground"))
    pen = _Pen(ImageDraw.Draw(image), top, scale * _SMOOTHING)
    for shape in marks_of(picture.shapes):
        if isinstance(shape, Rect) and shape.y - 4 < top + _BAND_UNITS and shape.y + shape.height + 4 > top:
            pen.rect(shape)
        elif isinstance(shape, Path) and min(y for _, y in shape.points) - 4 < top + _BAND_UNITS:
            pen.path(shape)
    return image.resize(size, Image.Resampling.BOX)


def _colour(ink: Ink | None) -> str | None:
    return INKS[ink][0] if ink else None


class _Pen:
    """Draws shapes into a band that begins ``top`` units down the sheet."""

    def __init__(self, draw: ImageDraw.ImageDraw, top: int, factor: int) -> None:
        self._draw = draw
        self._top = top
        self._factor = factor

    def _scaled(self, points: tuple[_Point, ...]) -> list[_Point]:
        return [(x * self._factor, (y - self._top) * self._factor) for x, y in points]

    def rect(self, shape: Rect) -> None:
        x0, y0, x1, y1 = shape.x, shape.y, shape.x + shape.width, shape.y + shape.height
        if shape.fill and x1 > x0 and y1 > y0:
            (left, top), (right, bottom) = self._scaled(((x0, y0), (x1, y1)))
            box = (left, top, max(left, right - 1), max(top, bottom - 1))
            self._draw.rectangle(box, fill=_colour(shape.fill))
        if shape.edge and x1 > x0:
            corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))
            self._line(corners, shape.edge, shape.edge_width, shape.dashed)

    def path(self, shape: Path) -> None:
        if shape.fill:
            self._draw.polygon(self._scaled(shape.points), fill=_colour(shape.fill))
        if shape.edge:
            self._line(shape.points, shape.edge, shape.width, shape.dashed)

    def _line(self, points: tuple[_Point, ...], ink: Ink, width: float, dashed: bool) -> None:
        pixels = max(1, round(width * self._factor))
        for piece in _dashes(points) if dashed else [points]:
            self._draw.line(self._scaled(piece), fill=_colour(ink), width=pixels, joint="curve")


def _dashes(points: tuple[_Point, ...]) -> list[tuple[_Point, ...]]:
    pieces: list[tuple[_Point, ...]] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        at = 0.0
        while at < length:
            end = min(at + _DASH[0], length)
            a, b = at / length, end / length
            pieces.append(
                ((x0 + a * (x1 - x0), y0 + a * (y1 - y0)), (x0 + b * (x1 - x0), y0 + b * (y1 - y0)))
            )
            at = end + _DASH[1]
    return pieces


def _label(draw: ImageDraw.ImageDraw, shape: Label, scale: int) -> None:
    font = ImageFont.load_default(shape.size * scale)
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
    place = (shape.x * scale, shape.y * scale)
    draw.text(
        place,
        shape.text.translate(_REPLACED),
        fill=_colour(shape.ink),
        font=font,
        anchor=anchor,
        stroke_width=0.5 if shape.bold else 0,
    )

"""The pictures, once for the live page and for reports: curves of a process become Bokeh figures.

Each picture is a function that makes the figure over a `ColumnDataSource`, and one that computes the source's
columns from a `Curve`; a page updates the columns in place. A model that looks different on a dark ground
carries both looks as its tag ``{"light": {...}, "dark": {...}}``, for the browser to switch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from bokeh.models import (
    AdaptiveTicker,
    Axis,
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    CompositeTicker,
    CrosshairTool,
    CustomJSHover,
    CustomJSTickFormatter,
    DataRange1d,
    FixedTicker,
    HoverTool,
    Image,
    Legend,
    LegendItem,
    LogColorMapper,
    Model,
    PanTool,
    Range,
    Range1d,
    ResetTool,
    Span,
    Toolbar,
    WheelZoomTool,
)
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

from heapsmith.run.history import Curve
from heapsmith.run.values import Event
from heapsmith.show import palette
from heapsmith.show.labels import EVENT_LABELS, class_label
from heapsmith.show.palette import Ink
from heapsmith.units import KiB, format_bytes, format_seconds

Columns = dict[str, npt.NDArray[Any]]

TIME_COLUMNS: Final = (
    "time_s",
    "live_bytes",
    "live_bytes_peak",
    "mapped_bytes",
    "resident_bytes",
    "limit_bytes",
    "warn_at_bytes",
    "allocation_rate",
    "free_rate",
)
HEAT_STEPS: Final = 160
"""Columns of the heat map: one for each few pixels of a wide screen."""
HEAT_ROWS: Final = 24
_HEAT_DOUBLINGS: Final = 15
_HEAT_LABEL_PIXELS: Final = 17
_THRESHOLDS: Final = ("limit_bytes", "warn_at_bytes")
_LIMIT_IN_VIEW: Final = 3.0
"""A limit farther above everything else than this is not allowed to flatten the curves."""
_FONT: Final = "-apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, sans-serif"
_FONT_SIZE: Final = "11px"

# The same text as heapsmith.units writes; a test in the browser compares them.
NUMBERS_JS: Final = """
function fixed(x, places) {
  const scaled = x * 10 ** places, floor = Math.floor(scaled);
  return (scaled - floor === 0.5 && floor % 2 === 0 ? floor / 10 ** places : x).toFixed(places);
}
function digits(x) { return x < 9.995 ? fixed(x, 2) : x < 99.95 ? fixed(x, 1) : fixed(x, 0); }
function bytes(value) {
  if (value == null || Number.isNaN(value)) return "?";
  let size = Math.abs(value);
  const sign = value < 0 ? "-" : "";
  if (size < 1024) return `${sign}${fixed(size, 0)} B`;
  for (const unit of ["KiB", "MiB", "GiB"]) {
    size /= 1024;
    if (size < 1023.995) return `${sign}${digits(size)} ${unit}`;
  }
  return `${sign}${digits(size / 1024)} TiB`;
}
function short(text) { return text.replace(/(\\.\\d*?)0+(?= )/, "$1").replace(/\\.(?= )/, ""); }
function clock(seconds) {
  const whole = Math.floor(Math.abs(seconds) + 1e-9), sign = seconds < 0 ? "-" : "";
  const two = (n) => String(n).padStart(2, "0");
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return whole >= 3600 ? `${sign}${Math.floor(whole / 3600)}:${rest}` : sign + rest.replace(/^0/, "");
}
function count(value) {
  if (value == null || Number.isNaN(value)) return "?";
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(value) >= size) return short(digits(value / size) + " ") .trim() + unit;
  return short(digits(value) + " ").trim();
}
"""


def themed(model: Model, **looks: Ink | tuple[Any, Any]) -> None:
    """Give a model its light look now, and both looks as a tag.

    Args:
        model: Any Bokeh model.
        looks: Property name to its value on a light and on a dark ground.

    Example:
        >>> line = Span(dimension="height")
        >>> themed(line, line_color=Ink("#000000", "#ffffff"))
        >>> line.tags
        [{'light': {'line_color': '#000000'}, 'dark': {'line_color': '#ffffff'}}]
    """
    light = {name: ink[0] for name, ink in looks.items()}
    model.update(**light)
    model.tags = [{"light": light, "dark": {name: ink[1] for name, ink in looks.items()}}]


def time_columns(curve: Curve, first: int = 0) -> Columns:
    """Compute the columns over time of a process.

    Args:
        curve: Its polls.
        first: Leave out the points before this one.

    Returns:
        `TIME_COLUMNS`, each ``(n_points - first,) float64``; rates per second, NaN where unknown.
    """
    columns: Columns = {
        name: curve.column(name) for name in TIME_COLUMNS if not name.endswith("_rate") and name != "time_s"
    }
    columns["time_s"] = curve.times_s
    columns["allocation_rate"] = curve.rates("allocations")
    columns["free_rate"] = curve.rates("frees")
    return {name: columns[name][first:].copy() for name in TIME_COLUMNS}


def mark_columns(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Compute the marks of warnings, failures and changes of the limit."""
    looks = {
        "warning": ("triangle", palette.WARN_AT.light),
        "limit_changed": ("diamond", palette.RESIDENT.light),
    }
    failure = ("x", palette.LIMIT.light)
    return {
        "time_s": [event.time_s for event in events],
        "live_bytes": [event.live_bytes for event in events],
        "marker": [looks.get(event.kind, failure)[0] for event in events],
        "color": [looks.get(event.kind, failure)[1] for event in events],
        "what": [EVENT_LABELS.get(event.kind, event.kind) for event in events],
        "when": [format_seconds(event.time_s) for event in events],
        "live": [format_bytes(event.live_bytes) for event in events],
        "threshold": [format_bytes(event.threshold_bytes) for event in events],
    }


class Heat(NamedTuple):
    """Live bytes of size classes over time.

    Args:
        image: ``(n_rows, HEAT_STEPS) float32`` live bytes, smallest class first; NaN where nothing is live.
        labels: Names of the rows.
        start_s: Time of the left edge.
        end_s: Time of the right edge.
        highest_bytes: Largest value of the image, 0 where all is empty.
    """

    image: npt.NDArray[np.float32]
    labels: list[str]
    start_s: float
    end_s: float
    highest_bytes: float


def compute_heat(curve: Curve) -> Heat:
    """Bring the polls of a curve to even steps of time; classes too small to be told by colour are left out.

    Example:
        >>> compute_heat(Curve()).labels
        []
    """
    values, times_s = curve.class_live_bytes, curve.times_s
    highest_of_class = values.max(axis=0, initial=0.0)
    highest = float(highest_of_class.max(initial=0.0))
    held = np.flatnonzero(highest_of_class > highest / (1 << _HEAT_DOUBLINGS))
    if not len(held):
        return Heat(np.full((1, HEAT_STEPS), np.nan, np.float32), [], 0.0, 1.0, 0.0)
    start_s, end_s = float(times_s[0]), float(times_s[-1])
    if end_s <= start_s:
        start_s = end_s - 1.0
    rows = _heat_rows(curve.class_bytes, held)
    edges = np.linspace(start_s, end_s, HEAT_STEPS + 1)
    # Each step shows the highest of the polls within it, and a step without a poll the last one before it.
    first = np.searchsorted(times_s, edges[:-1], side="right") - 1
    last = np.searchsorted(times_s, edges[1:], side="right") - 1
    columns = np.stack([values[:, row].sum(axis=1) for row in rows], axis=1)
    image = columns[np.maximum(last, 0)]
    for step in np.flatnonzero(last > first + 1):
        image[step] = columns[first[step] + 1 : last[step] + 1].max(axis=0)
    image = np.where(image > 0, image, np.nan).astype(np.float32).T
    names = curve.class_bytes
    labels = [class_label(names[row[-1]], names) for row in rows]
    return Heat(np.ascontiguousarray(image), labels, start_s, end_s, float(columns.max()))


def _heat_rows(class_bytes: Sequence[int | None], held: npt.NDArray[np.int64]) -> list[list[int]]:
    """Give each class a row, or each doubling of sizes where there would be more rows than an eye can tell apart."""
    if len(held) <= HEAT_ROWS:
        return [[place] for place in held.tolist()]
    doublings: dict[int, list[int]] = {}
    places: list[int] = held.tolist()
    for place in places:
        size = class_bytes[place]
        # Sizes of a class end 8 bytes past a round number.
        doublings.setdefault(99 if size is None else max(0, size - 9).bit_length(), []).append(place)
    return list(doublings.values())


def time_range() -> DataRange1d:
    """Make the range of time that the pictures of one process share."""
    return DataRange1d(range_padding=0, name="time-range", min_interval=1)


class MemoryPicture(NamedTuple):
    """The picture of `memory_figure`, and its parts that are adjusted while it is shown."""

    plot: figure
    y_range: DataRange1d
    lines: dict[str, GlyphRenderer[Any]]
    legend: dict[str, LegendItem]


def memory_figure(
    source: ColumnDataSource, marks: ColumnDataSource, x_range: DataRange1d, *, height: int = 240
) -> MemoryPicture:
    """Make the picture of live, mapped, resident, peak and limit over time, with marks for what went wrong.

    Args:
        source: `time_columns`.
        marks: `mark_columns`.
        x_range: `time_range`.
        height: Height in pixels.
    """
    y_range = DataRange1d(start=0, range_padding=0.2, only_visible=True)
    plot = _time_figure("memory", x_range, y_range, height)
    area = plot.varea("time_s", 0, "live_bytes", source=source, fill_alpha=0.13)
    themed(area.glyph, fill_color=palette.LIVE)
    inks = {
        "Resident": ("resident_bytes", palette.RESIDENT, {"line_width": 1.5}),
        "Mapped": ("mapped_bytes", palette.MAPPED, {"line_width": 1.5}),
        "Peak": ("live_bytes_peak", palette.PEAK, {"line_width": 1.2, "line_dash": [2, 3]}),
        "Live": ("live_bytes", palette.LIVE, {"line_width": 2.2}),
        "Warn at": ("warn_at_bytes", palette.WARN_AT, {"line_width": 1.5, "line_dash": [6, 4]}),
        "Limit": ("limit_bytes", palette.LIMIT, {"line_width": 1.8, "line_dash": [6, 4]}),
    }
    lines = {column: _line(plot, source, column, ink, **style) for column, ink, style in inks.values()}
    x_range.renderers = [lines["live_bytes"]]  # a mark from before the first poll must not stretch the time
    points = plot.scatter(
        "time_s", "live_bytes", source=marks, marker="marker", line_color="color", fill_color="color",
        size=9, line_width=2,
    )  # fmt: skip
    plot.yaxis[0].update(
        ticker=AdaptiveTicker(
            base=1024, mantissas=[float(1 << power) for power in range(10)], min_interval=1,
            desired_num_ticks=5, num_minor_ticks=0,
        ),
        formatter=_formatter("return short(bytes(tick));"),
    )  # fmt: skip
    shown = _legend(
        plot,
        [
            (name, [lines[column], area] if name == "Live" else [lines[column]])
            for name, (column, _, _) in reversed(inks.items())
        ],
    )
    rows = "".join(_row(name, f"@{column}{{custom}}", ink) for name, (column, ink, _) in inks.items())
    _hover(plot, lines["live_bytes"], rows, dict.fromkeys(lines, "bytes"))
    plot.add_tools(
        HoverTool(
            renderers=[points],
            tooltips=_box(
                _row("@what", "@live live") + _row("at", "@when") + _row("threshold", "@threshold")
            ),
        )
    )
    items = {column: shown[-1 - place] for place, column in enumerate(lines)}
    for name in _THRESHOLDS:
        items[name].visible = False
    return MemoryPicture(plot, y_range, lines, items)


def fit_memory(picture: MemoryPicture, columns: Columns) -> None:
    """Show limit and warning threshold where they are set; they stretch the scale only where near."""
    always = ["live_bytes", "live_bytes_peak", "mapped_bytes", "resident_bytes"]
    highest = max(float(np.nanmax(columns[name], initial=0.0)) for name in always)
    near = [
        name for name in _THRESHOLDS if len(columns[name]) and columns[name][-1] <= _LIMIT_IN_VIEW * highest
    ]
    for name in _THRESHOLDS:
        known = bool(np.isfinite(columns[name]).any())
        if picture.legend[name].visible != known:
            picture.legend[name].visible = known
    wanted = [picture.lines[name] for name in (*always, *near)]
    if picture.y_range.renderers != wanted:
        picture.y_range.renderers = list(wanted)


def rate_figure(source: ColumnDataSource, x_range: DataRange1d, *, height: int = 130) -> figure:
    """Make the picture of allocations and frees per second, over `time_columns`."""
    plot = _time_figure("rate", x_range, DataRange1d(start=0, range_padding=0.2, only_visible=True), height)
    area = plot.varea("time_s", 0, "allocation_rate", source=source, fill_alpha=0.13)
    themed(area.glyph, fill_color=palette.ALLOCATIONS)
    allocations = _line(plot, source, "allocation_rate", palette.ALLOCATIONS, line_width=1.8)
    frees = _line(plot, source, "free_rate", palette.FREES, line_width=1.3)
    plot.yaxis[0].update(
        ticker=BasicTicker(desired_num_ticks=3, num_minor_ticks=0),
        formatter=_formatter("return count(tick);"),
    )
    _legend(plot, [("Allocations per second", [allocations, area]), ("Frees per second", [frees])])
    rows = _row("allocated", "@allocation_rate{custom}/s", palette.ALLOCATIONS) + _row(
        "freed", "@free_rate{custom}/s", palette.FREES
    )
    _hover(plot, allocations, rows, {"allocation_rate": "count", "free_rate": "count"})
    return plot


class HeatPicture(NamedTuple):
    """The picture of `heat_figure`, and its parts that `update_heat` fills."""

    plot: figure
    source: ColumnDataSource
    y_range: Range1d
    axis: Axis
    ticker: FixedTicker
    colors: LogColorMapper


def heat_figure(x_range: DataRange1d, *, height: int = 260) -> HeatPicture:
    """Make the heat map of size classes over time, empty."""
    source = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
    y_range = Range1d(start=0, end=1)
    plot = _time_figure("heat", x_range, y_range, height)
    colors = LogColorMapper(palette=palette.HEAT_LIGHT, low=KiB, high=1024 * KiB, nan_color="rgba(0,0,0,0)")
    themed(colors, palette=(palette.HEAT_LIGHT, palette.HEAT_DARK))
    glyph = Image(image="image", x="x", y="y", dw="dw", dh="dh", color_mapper=colors)
    image = plot.add_glyph(source, glyph)
    plot.ygrid.visible = False
    axis, ticker = plot.yaxis[0], FixedTicker(ticks=[])
    axis.ticker = ticker
    bar = ColorBar(
        color_mapper=colors,
        orientation="horizontal",
        width=180,
        height=7,
        padding=2,
        margin=0,
        location="top_right",
        label_standoff=3,
        bar_line_color=None,
        background_fill_color=None,
        major_tick_line_color=None,
        major_label_text_font_size=_FONT_SIZE,
        major_label_text_font=_FONT,
        ticker=FixedTicker(ticks=[float(1 << power) for power in range(0, 44, 5)]),
        formatter=_formatter("return short(bytes(tick));"),
    )
    themed(bar, major_label_text_color=palette.TEXT)
    plot.add_layout(bar, "above")
    plot.add_tools(
        HoverTool(
            renderers=[image],
            tooltips=_box(_row("$y{custom}", "@image{custom}") + _row("at", "$x{custom}")),
            formatters={
                "$y": CustomJSHover(
                    args={"axis": axis}, code="return axis.tags[0]?.labels?.[Math.floor(value)] ?? '';"
                ),
                "@image": CustomJSHover(
                    code=NUMBERS_JS
                    + "return value == null || Number.isNaN(value) ? 'nothing live' : bytes(value);"
                ),
                "$x": CustomJSHover(code=NUMBERS_JS + "return clock(value);"),
            },
        )
    )
    return HeatPicture(plot, source, y_range, axis, ticker, colors)


def update_heat(picture: HeatPicture, heat: Heat) -> None:
    """Bring a `heat_figure` up to date, touching only what changed."""
    rows = max(1, len(heat.labels))
    axis = picture.axis
    if _shown_labels(axis) != heat.labels:
        every = -(-rows * _HEAT_LABEL_PIXELS // (picture.plot.height or 260))
        shown: dict[float | str, Any] = {
            place + 0.5: label for place, label in enumerate(heat.labels) if place % every == 0
        }
        picture.ticker.ticks = [float(place) for place in shown]
        axis.major_label_overrides = shown
        axis.tags = [{**axis.tags[0], "labels": heat.labels}]
        picture.y_range.end = rows
    highest = float(1 << max(1 << 15, int(heat.highest_bytes) - 1).bit_length())
    if picture.colors.high != highest:
        picture.colors.update(low=highest / (1 << _HEAT_DOUBLINGS), high=highest)
    picture.source.data = {
        "image": [heat.image],
        "x": [heat.start_s],
        "y": [0],
        "dw": [heat.end_s - heat.start_s],
        "dh": [rows],
    }


def _shown_labels(axis: Axis) -> list[str]:
    return axis.tags[0].get("labels", [])


def reset_mark(plots: Sequence[figure]) -> list[Span]:
    """Add a line to each picture that says where a baseline was taken; hidden until it has a location."""
    spans: list[Span] = []
    for plot in plots:
        span = Span(dimension="height", line_dash=[3, 3], line_width=1.2, visible=False, location=0)
        themed(span, line_color=palette.TEXT)
        plot.add_layout(span)
        spans.append(span)
    return spans


def _time_figure(name: str, x_range: DataRange1d, y_range: Range, height: int) -> figure:
    plot = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        x_range=x_range,
        y_range=y_range,
        toolbar_location=None,
        tools="",
        min_border_left=64,
        min_border_right=12,
        min_border_top=4,
        border_fill_color=None,
        background_fill_color=None,
        outline_line_color=None,
        output_backend="canvas",
    )
    wheel = WheelZoomTool(dimensions="width", modifiers={"ctrl": True})
    pan = PanTool(dimensions="width")
    plot.toolbar = Toolbar(tools=[pan, wheel, ResetTool()], active_drag=pan, active_scroll=wheel, logo=None)
    plot.xaxis.ticker = CompositeTicker(
        tickers=[
            AdaptiveTicker(base=10, mantissas=[1, 2, 5], min_interval=0, max_interval=0.5, num_minor_ticks=0),
            AdaptiveTicker(
                base=60, mantissas=[1, 2, 5, 10, 15, 30], min_interval=1, max_interval=1800, num_minor_ticks=0
            ),
            AdaptiveTicker(
                base=24,
                mantissas=[1, 2, 4, 6, 8, 12],
                min_interval=3600,
                max_interval=None,
                num_minor_ticks=0,
            ),
        ]
    )
    plot.xaxis.formatter = _formatter(
        "const step = ticks.length > 1 ? ticks[1] - ticks[0] : 1;"
        "return step < 1 ? `${Number(tick.toFixed(3))} s` : clock(tick);"
    )
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.update(
            major_label_text_font=_FONT,
            major_label_text_font_size=_FONT_SIZE,
            axis_line_color=None,
            major_tick_line_color=None,
            minor_tick_line_color=None,
        )
        themed(axis, major_label_text_color=palette.TEXT)
    plot.xgrid.grid_line_color = None
    for grid in plot.ygrid:
        themed(grid, grid_line_color=palette.GRID)
    return plot


def _line(plot: figure, source: ColumnDataSource, column: str, ink: Ink, **style: Any) -> GlyphRenderer[Any]:
    line = plot.line("time_s", column, source=source, name=column, line_join="round", **style)
    themed(line.glyph, line_color=ink)
    return line


def _legend(plot: figure, items: Sequence[tuple[str, list[GlyphRenderer[Any]]]]) -> list[LegendItem]:
    entries = [LegendItem(label=name, renderers=list(renderers)) for name, renderers in items]
    legend = Legend(
        items=list(entries),
        orientation="horizontal",
        location="top_left",
        click_policy="hide",
        background_fill_color=None,
        border_line_color=None,
        inactive_fill_alpha=0.0,
        label_text_font=_FONT,
        label_text_font_size=_FONT_SIZE,
        glyph_width=14,
        glyph_height=12,
        label_standoff=4,
        spacing=9,
        padding=0,  # pyright: ignore[reportArgumentType] (a number is accepted, the stub knows objects only)
        margin=2,
    )
    themed(legend, label_text_color=palette.TEXT)
    plot.add_layout(legend, "above")
    return entries


def _hover(plot: figure, renderer: GlyphRenderer[Any], rows: str, formats: dict[str, str]) -> None:
    formatters: dict[str, Any] = {
        f"@{column}": CustomJSHover(code=f"{NUMBERS_JS} return {function}(value);")
        for column, function in formats.items()
    }
    formatters["@time_s"] = CustomJSHover(code=f"{NUMBERS_JS} return clock(value);")
    plot.add_tools(
        HoverTool(
            renderers=[renderer],
            mode="vline",
            point_policy="snap_to_data",
            tooltips=_box(_row("at", "@time_s{custom}") + rows),
            formatters=formatters,
        )
    )
    crosshair = CrosshairTool(dimensions="height", line_width=1)
    themed(crosshair, line_color=palette.TEXT)
    plot.add_tools(crosshair)


def _formatter(code: str) -> CustomJSTickFormatter:
    return CustomJSTickFormatter(code=NUMBERS_JS + code)


def _row(label: str, value: str, ink: Ink | None = None) -> str:
    look = "display:inline-block;width:8px;height:8px;border-radius:4px"
    dot = f'<i style="{look};background:{ink.light}"></i> ' if ink else ""
    return (
        f'<tr><td style="padding-right:10px;opacity:.75">{dot}{label}</td>'
        f'<td style="text-align:right;font-variant-numeric:tabular-nums">{value}</td></tr>'
    )


def _box(rows: str) -> str:
    return f'<table style="font:12px {_FONT};border-spacing:0 1px">{rows}</table>'

"""A comparison as one HTML file that needs nothing else: Pareto figures, courses over time, the table."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bokeh.embed import components
from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    HoverTool,
    LabelSet,
    Range1d,
    TeeHead,
    Whisker,
)
from bokeh.plotting import figure
from bokeh.resources import INLINE

from heapsmith import __version__
from heapsmith.errors import HeapsmithError
from heapsmith.lab.comparison import FIGURE, Comparison, Result, Unit
from heapsmith.lab.replay.player import Replay
from heapsmith.lab.statistics import Difference, Spread
from heapsmith.outputs import write_output
from heapsmith.show.compare import known_figures
from heapsmith.show.quantities import format_quantity, format_ratio, format_spread
from heapsmith.show.service_lines import render_lines

_INKS: Final = (
    "#3d4752", "#0072b2", "#d55e00", "#009e73", "#cc79a7",
    "#b07900", "#56b4e9", "#7a5195", "#8c564b", "#17a2a2",
)  # fmt: skip
"""Told apart by people with any colour vision (after Okabe and Ito); the baseline is the grey one."""
_TIMES: Final = ("time_s", "cpu_s")
_TIMES_OF_REPLAYS: Final = ("cpu_s_per_call",)
_RESIDENTS: Final = ("resident_bytes_peak", "resident_bytes_settled", "resident_bytes_mean")
_BYTES_JS: Final = """
let size = Math.abs(tick), unit = 'B';
for (const next of ['KiB', 'MiB', 'GiB', 'TiB']) { if (size < 1024) break; size /= 1024; unit = next; }
const digits = size < 10 ? +size.toFixed(3) : size < 100 ? +size.toFixed(2) : +size.toFixed(1);
return (tick < 0 ? '-' : '') + digits + ' ' + unit;
"""
_SECONDS_JS: Final = """
const t = Math.abs(tick);
return t === 0 ? '0 s' : t >= 1 ? +tick.toPrecision(4) + ' s'
  : t >= 1e-3 ? +(tick * 1e3).toPrecision(4) + ' ms'
  : t >= 1e-6 ? +(tick * 1e6).toPrecision(4) + ' us' : +(tick * 1e9).toPrecision(4) + ' ns';
"""
_STYLE: Final = """
:root { color-scheme: light; --ink: #1f2933; --quiet: #5f6c7b; --line: #dfe4ea; --good: #00714f; --bad: #b23c00; }
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif; color: var(--ink);
       max-width: 1240px; margin: 0 auto; padding: 24px 20px 60px; background: #fff; }
h1 { font: 600 19px/1.4 ui-monospace, 'DejaVu Sans Mono', monospace; margin: 0 0 6px; overflow-wrap: anywhere; }
h2, h3, p { overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 34px 0 8px; }
.answer { font-size: 18px; font-weight: 600; border-left: 4px solid #0072b2; padding: 6px 0 6px 14px; margin: 18px 0; }
.quiet { color: var(--quiet); } .good { color: var(--good); } .bad { color: var(--bad); }
code, pre { font: 13px/1.45 ui-monospace, 'DejaVu Sans Mono', monospace; }
pre { background: #f5f7f9; padding: 10px 12px; overflow-x: auto; border-radius: 4px; margin: 4px 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 12px; }
.wide, .pair > div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: 6px 12px 6px 0; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; } td small { font-size: 12px; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; vertical-align: bottom; }
td:first-child, td.bad { white-space: normal; min-width: 220px; text-align: left; }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 7px; }
"""
_PLOT_PIXELS: Final = (440.0, 360.0)
"""About the inside of a Pareto figure, for the places of its labels."""
_LABEL_PIXELS: Final = (6.6, 14.0)
"""About a letter of a label: width and height."""


def write_page(
    path: Path,
    comparison: Comparison,
    recommendation: str,
    notes: Sequence[str] = (),
    *,
    before: str = "",
    after: str = "",
) -> None:
    """Write the page of a comparison.

    Args:
        path: The file; it is complete or not there.
        comparison: What was compared.
        recommendation: What follows from it.
        notes: What a person has to know about the program.
        before: What stands before the figures, as HTML.
        after: All there may be more, as HTML.

    Raises:
        HeapsmithError: The file cannot be written.
    """
    write_output(path, render_page(comparison, recommendation, notes, before=before, after=after))


def check_page(path: Path | None) -> None:
    """Refuse a page that could not be written, before hours are spent on what it should show.

    Raises:
        HeapsmithError: Its folder is not there.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise HeapsmithError(f"cannot write {path}", "its folder does not exist", "make the folder first")


def render_page(
    comparison: Comparison,
    recommendation: str,
    notes: Sequence[str] = (),
    *,
    before: str = "",
    after: str = "",
) -> str:
    """Make the text of the page; `before` the figures and `after` all there may be more, as HTML."""
    drawn = [result for result in comparison.results if result.runs]
    inks = {
        result.candidate.label: _INKS[index % len(_INKS)] for index, result in enumerate(comparison.results)
    }
    replay = comparison.workload.replay
    across = _first_known(drawn, _TIMES if replay is None else _TIMES_OF_REPLAYS)
    residents = [name for name in _RESIDENTS if _first_known(drawn, [name])][:2]
    figures = {name: _draw_pareto(comparison, drawn, inks, across, name) for name in residents if across}
    figures["course"] = _draw_course(drawn, inks, replay)
    present = {name: drawing for name, drawing in figures.items() if drawing is not None}
    script, places = components(present) if present else ("", {})
    workload = comparison.workload
    parts = [
        f"<h1>{_escape(workload.words())}</h1>",
        f"<p class='quiet'>{_how(comparison)}</p>",
        f"<p class='answer'>{_escape(recommendation)}</p>",
        *(f"<p class='quiet'>Note: {_escape(note)}.</p>" for note in notes),
        before,
    ]
    if across is not None and residents:
        parts += [
            "<h2>Time against resident bytes</h2>",
            "<p class='quiet'>Medians with 95 % intervals; the nearer to the lower left corner, the better. "
            "No candidate is better in both than one on the line.</p>",
            "<div class='pair'>" + "".join(f"<div>{places[name]}</div>" for name in residents) + "</div>",
        ]
    if "course" in places:
        parts += [
            "<h2>Resident bytes over time</h2>",
            "<p class='quiet'>Of each candidate the run nearest to its median; a click hides it.</p>",
            f"<div class='wide'>{places['course']}</div>",
        ]
    parts += [_figures_table(comparison, inks), _environment(comparison), after]
    body = "\n".join(parts)
    title = f"heapsmith: {_escape(workload.words())}"
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>\n"
        f"<meta name='viewport' content='width=device-width'>\n<style>{_STYLE}</style>\n{INLINE.render()}\n"
        "</head>\n"
        f"<body>\n{body}\n{script}\n</body></html>\n"
    )


def _how(comparison: Comparison) -> str:
    runs = max((result.runs for result in comparison.results), default=0)
    replay = comparison.workload.replay
    watched = (
        "watched from outside"
        if replay is None
        else f"{format_quantity(replay.operations, 'count')} recorded calls each, speed {replay.speed}"
    )
    text = (
        f"{len(comparison.results)} candidates, up to {runs} runs each, interleaved in random order, "
        f"{watched}; ratios are against "
        f"<b>{_escape(comparison.baseline.candidate.label)}</b>. heapsmith {__version__}."
    )
    if comparison.accounting:
        text += f" Memory: {_escape(comparison.accounting)}."
    if comparison.workers > 1:
        text += f" {comparison.workers} workers; only runs on the same worker were compared."
    return text + (" <b>Broken off: the figures so far.</b>" if comparison.interrupted else "")


def _first_known(results: Sequence[Result], names: Sequence[str]) -> str | None:
    return next(
        (name for name in names if any(result.spreads[name].median is not None for result in results)), None
    )


def _draw_pareto(
    comparison: Comparison, drawn: Sequence[Result], inks: dict[str, str], across: str, upward: str
) -> Any:
    columns: dict[str, list[Any]] = defaultdict(list)
    for result in drawn:
        x, y = result.spreads[across], result.spreads[upward]
        if x.median is None or y.median is None:
            continue
        for axis, spread in (("x", x), ("y", y)):
            columns[axis].append(spread.median)
            columns[f"{axis}_low"].append(spread.low or spread.median)
            columns[f"{axis}_high"].append(spread.high or spread.median)
        columns["label"].append(result.candidate.label)
        columns["ink"].append(inks[result.candidate.label])
        columns["x_text"].append(format_spread(x, FIGURE[across].unit))
        columns["y_text"].append(format_spread(y, FIGURE[upward].unit))
        columns["size"].append(15 if result is comparison.baseline else 11)
    if not columns["x"]:
        return None
    ranges = [_range(columns[f"{axis}_low"], columns[f"{axis}_high"]) for axis in ("x", "y")]
    places = place_labels(
        [
            tuple(
                (value - axis.start) / (axis.end - axis.start) * pixels
                for value, axis, pixels in zip(point, ranges, _PLOT_PIXELS, strict=True)
            )
            for point in zip(columns["x"], columns["y"], strict=True)
        ],
        columns["label"],
    )
    columns["shift"] = [8 if place[0] > 0 else -8 for place in places]
    columns["align"] = ["left" if place[0] > 0 else "right" for place in places]
    columns["rise"] = [place[1] for place in places]
    source = ColumnDataSource(columns)
    plot: Any = _plot(FIGURE[across].title, FIGURE[upward].title)
    plot.xaxis.formatter = CustomJSTickFormatter(code=_SECONDS_JS)
    plot.xaxis.ticker = plot.xgrid.ticker = BasicTicker(
        desired_num_ticks=4
    )  # as many as a phone has room for
    plot.yaxis.formatter = CustomJSTickFormatter(code=_BYTES_JS)
    plot.yaxis.ticker = plot.ygrid.ticker = AdaptiveTicker(
        base=1024, mantissas=[2.0**power for power in range(10)]
    )
    front = _front(list(zip(columns["x"], columns["y"], strict=True)))
    plot.step(
        x=[x for x, _ in front],
        y=[y for _, y in front],
        mode="after",
        line_color="#9aa5b1",
        line_dash="dashed",
    )
    for across_too, low, high in (("x", "y_low", "y_high"), ("y", "x_low", "x_high")):
        whisker = Whisker(
            base=across_too,
            lower=low,
            upper=high,
            source=source,
            dimension="height" if across_too == "x" else "width",
            line_color="#9aa5b1",
            upper_head=TeeHead(size=6, line_color="#9aa5b1"),
            lower_head=TeeHead(size=6, line_color="#9aa5b1"),
        )
        plot.add_layout(whisker)
    points = plot.scatter("x", "y", size="size", color="ink", source=source, line_color="#ffffff")
    plot.add_layout(
        LabelSet(
            x="x",
            y="y",
            text="label",
            source=source,
            x_offset="shift",
            y_offset="rise",
            text_font_size="12px",
            text_color="ink",
            text_align="align",
        )
    )
    plot.add_tools(
        HoverTool(
            renderers=[points],
            tooltips=[("", "@label"), (FIGURE[across].title, "@x_text"), (FIGURE[upward].title, "@y_text")],
        )
    )
    plot.x_range, plot.y_range = ranges
    return plot


def _range(low: Sequence[float], high: Sequence[float]) -> Any:
    """From the smallest to the largest value with its interval, and some room around."""
    first, last = min(low), max(high)
    room = 0.12 * ((last - first) or last or 1.0)
    return Range1d(start=first - room, end=last + room)


def place_labels(points: Sequence[tuple[float, ...]], labels: Sequence[str]) -> list[tuple[int, float]]:
    """Find a place beside each point where its label covers no other label and no other point.

    Args:
        points: Where the points are, in pixels.
        labels: Their labels.

    Returns:
        Of each, on which side its label goes (1: right, -1: left), and how many pixels above its point it begins.

    Example:
        >>> place_labels([(100, 100), (110, 100)], ["one", "two"])
        [(-1, 3.0), (1, 3.0)]
    """
    width, height = _LABEL_PIXELS
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    chosen: list[tuple[int, float]] = []
    # Beside a point are the lines of its intervals: above them first, below them then.
    rises = [rise for step in range(8) for rise in (3 + step * height, -3 - (step + 1) * height)]
    places = [(side, rise) for rise in rises for side in (1, -1)]
    for (x, y), label in zip(points, labels, strict=True):
        for side, rise in places:
            edge = x + 8 * side + width * len(label) * side
            box = (min(x + 8 * side, edge), y + rise, max(x + 8 * side, edge), y + rise + height)
            inside = box[0] >= -20 and box[2] <= _PLOT_PIXELS[0] and box[1] >= 0 and box[3] <= _PLOT_PIXELS[1]
            if inside and not any(_meet(box, other) for other in taken):
                break
        else:
            side, rise, box = 1, 3.0, (x, y, x, y)
        taken.append(box)
        chosen.append((side, rise))
    return chosen


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def _draw_course(drawn: Sequence[Result], inks: dict[str, str], replay: Replay | None) -> Any:
    with_series = [result for result in drawn if result.series[0]]
    if not with_series:
        return None
    plot: Any = _plot("time since start", "resident")
    plot.xaxis.formatter = CustomJSTickFormatter(code=_SECONDS_JS)
    plot.xaxis.ticker = plot.xgrid.ticker = BasicTicker(
        desired_num_ticks=4
    )  # as many as a phone has room for
    plot.yaxis.formatter = CustomJSTickFormatter(code=_BYTES_JS)
    plot.yaxis.ticker = plot.ygrid.ticker = AdaptiveTicker(
        base=1024, mantissas=[2.0**power for power in range(10)]
    )
    plot.y_range.start = 0
    if replay is not None:
        texts = [format_quantity(value, "bytes") for value in replay.live_bytes]
        live = {"x": replay.times_s, "y": replay.live_bytes, "text": texts}
        plot.varea(
            "x", y1=0, y2="y", source=ColumnDataSource(live), legend_label="requested live", color="#dfe4ea",
            name="requested live",
        )  # fmt: skip
    for result in with_series:
        times, values = result.series
        label = result.candidate.label
        source = ColumnDataSource(
            {"x": times, "y": values, "text": [format_quantity(value, "bytes") for value in values]}
        )
        plot.line("x", "y", source=source, legend_label=label, color=inks[label], line_width=2, name=label)
    plot.add_tools(
        HoverTool(tooltips=[("", "$name"), ("at", "@x{0.00} s"), ("resident", "@text")], mode="mouse")
    )
    plot.legend.click_policy = "hide"
    plot.legend.label_text_font_size = "12px"
    plot.legend.orientation = "vertical"
    plot.legend.location = "left"
    # Beside the plot the names of settings would leave a phone nothing of it.
    plot.add_layout(plot.legend[0], "below")
    plot.height += 24 * len(plot.legend[0].items)
    return plot


def _plot(across: str, upward: str) -> Any:
    plot: Any = figure(
        height=430, sizing_mode="stretch_width", x_axis_label=across, y_axis_label=upward,
        tools="pan,wheel_zoom,box_zoom,reset,save",
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.outline_line_color = None
    plot.grid.grid_line_color = "#e8ecf0"
    plot.axis.axis_line_color = "#9aa5b1"
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    return plot


def _figures_table(comparison: Comparison, inks: dict[str, str]) -> str:
    figures = known_figures(comparison)
    head = "".join(f"<th title='{_escape(item.note)}'>{_escape(item.title)}</th>" for item in figures)
    rows: list[str] = []
    for result in comparison.results:
        label = result.candidate.label
        name = f"<span class='swatch' style='background:{inks[label]}'></span>{_escape(label)}"
        if result.candidate.version:
            name += f" <span class='quiet'>{_escape(result.candidate.version)}</span>"
        if result.failed is not None:
            said = f" It said: {result.complaint}" if result.complaint else ""
            text = f"out: {_escape(result.failed + said)}"
            rows.append(
                f"<tr><td>{name}</td><td>{result.runs}</td>"
                f"<td colspan='{len(figures)}' class='bad'>{text}</td></tr>"
            )
            continue
        cells = "".join(
            f"<td>{_spread(result.spreads[item.name], item.unit)}"
            f"{_ratio_line(result.differences.get(item.name), less_is_better=item.less_is_better)}</td>"
            for item in figures
        )
        rows.append(f"<tr><td>{name}</td><td>{result.runs}</td>{cells}</tr>")
    return (
        "<h2>All figures</h2><p class='quiet'>Medians; below, their 95 % intervals and the ratio to the baseline. "
        "<i>noise</i>: not told from the baseline.</p><div class='wide'><table><thead><tr><th>allocator</th>"
        f"<th>runs</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _spread(spread: Spread, unit: Unit) -> str:
    median = format_quantity(spread.median, unit)
    if spread.low is None or spread.high is None:
        return median
    low, high = (format_quantity(value, unit) for value in (spread.low, spread.high))
    return f"{median}<br><small class='quiet'>{low} – {high}</small>"


def _ratio_line(difference: Difference | None, *, less_is_better: bool) -> str:
    text = format_ratio(difference)
    if not text or difference is None or difference.ratio is None:
        return ""
    kind = "quiet"
    if difference.more_than_noise:
        kind = "good" if (difference.ratio < 1) == less_is_better else "bad"
    return f"<br><span class='{kind}'>{text}</span>"


def _environment(comparison: Comparison) -> str:
    lines = [
        f"<p>{_escape(result.candidate.label)}</p><pre>{_escape(render_lines(result.candidate, 'env'))}</pre>"
        for result in comparison.results
        if result.candidate.lines()
    ]
    return "<h2>How to start the program on each</h2>" + "".join(lines) if lines else ""


def _escape(text: str) -> str:
    return html.escape(text, quote=True)

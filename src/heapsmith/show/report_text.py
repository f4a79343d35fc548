"""A report in the terminal: what it says in words, the curve, the places, sizes, lifetimes, threads, processes."""

from __future__ import annotations

from typing import Final

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from heapsmith.show.report_words import (
    MOST_PROCESSES,
    Sentence,
    describe,
    describe_limits,
    name_process,
    name_site,
)
from heapsmith.trace.report import Report, ReportedProcess
from heapsmith.units import format_bytes, format_count, format_seconds

_BARS: Final = " ▁▂▃▄▅▆▇█"
_CURVE_WIDTH: Final = 96
_CURVE_ROWS: Final = 6
_MOST_SITES: Final = 20
_MOST_ROWS: Final = 12
_STYLES: Final = {"leak": "bold red", "growth": "bold red", "spike": "bold yellow", "churn": "bold yellow",
                  "fragmentation": "bold yellow", "slack": "yellow"}  # fmt: skip


def render_report(report: Report) -> RenderableType:
    """Make the report for a terminal."""
    manifest = report.manifests[0]
    command = " ".join(" ".join(manifest.command).split()) or "(attached)"
    files = report.paths[0] if len(report.paths) == 1 else f"{len(report.paths)} files"
    processes = len(report.processes)
    parts: list[RenderableType] = [
        Text(f"{files}: {command}", style="bold"),
        Text(
            f"{format_count(report.events)} events of {processes} process{'' if processes == 1 else 'es'}"
            + (f" on {manifest.allocator}" if manifest.allocator else ""),
            style="dim",
        ),
        *(Text(f"note: {note}", style="yellow") for note in describe_limits(report)),
    ]
    by_size = sorted(report.processes, key=lambda process: -process.figures.live_bytes_peak)
    told = dict(describe(report))
    for process in by_size[:MOST_PROCESSES]:
        parts += [Text(), Text(name_process(process), style="bold underline")]
        parts += _words(told.get(name_process(process), []))
        parts += [Text(), _curve(process), Text(), _sites(report, process)]
        parts += _details(process)
    if processes > 1:
        parts += [Text(), _processes(by_size)]
    return Group(*parts)


def _words(sentences: list[Sentence]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for sentence in sentences:
        lines.append(
            Text("• ", style=_STYLES.get(sentence.kind, "bold")).append(sentence.text, style="default")
        )
        for place, figure in sentence.places:
            lines.append(Text(f"    {figure:>18}  ", style="cyan").append(place, style="default"))
        if sentence.advice:
            lines.append(Text(f"    → {sentence.advice}", style="italic"))
    return lines


def _curve(process: ReportedProcess) -> RenderableType:
    line = process.figures.time_line
    figures = process.figures
    if line is None or not figures.live_bytes_peak:
        return Text("(nothing was live)", style="dim")
    chunks = np.array_split(line.live_bytes_highest, min(_CURVE_WIDTH, len(line.live_bytes_highest)))
    levels = np.array([chunk.max() for chunk in chunks]) / figures.live_bytes_peak * _CURVE_ROWS * 8
    rows: list[str] = []
    for row in range(_CURVE_ROWS - 1, -1, -1):
        cells = "".join(_BARS[int(np.clip(np.ceil(level) - row * 8, 0, 8))] for level in levels)
        label = format_bytes(figures.live_bytes_peak) if row == _CURVE_ROWS - 1 else ""
        rows.append(f"{label:>10} {cells}")
    end = format_seconds(figures.duration_s)
    rows.append(f"{'':>10} 0 s{'live bytes over time':^{_CURVE_WIDTH - 4 - len(end)}}{end}")
    return Text("\n".join(rows), style="blue")


def _sites(report: Report, process: ReportedProcess) -> RenderableType:
    table = Table(title="Places", title_justify="left", pad_edge=False, box=None)
    for title in ("at peak", "at exit", "allocated", "allocations", "temporary", "mean lifetime"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    for site in process.sites[:_MOST_SITES]:
        kind = " [mapping]" if site.mapped else ""
        cache = f" [{site.cache}]" if site.cache else ""
        table.add_row(
            _held(site.live_bytes_at_peak, site.live_bytes_at_peak_error),
            _held(site.live_bytes_at_exit, site.live_bytes_at_exit_error),
            _held(site.allocated_bytes, site.allocated_bytes_error),
            format_count(site.allocations),
            format_count(site.temporary_allocations),
            "" if site.lifetime_s is None else format_seconds(site.lifetime_s),
            escape(name_site(site.label) + kind + cache),
        )
    rest = process.sites[_MOST_SITES:]
    if rest:
        table.add_row(
            format_bytes(sum(site.live_bytes_at_peak for site in rest if not site.mapped)),
            format_bytes(sum(site.live_bytes_at_exit for site in rest if not site.mapped)),
            format_bytes(sum(site.allocated_bytes for site in rest if not site.mapped)),
            format_count(sum(site.allocations for site in rest if not site.mapped)), "", "",
            f"{format_count(len(rest))} more places",
        )  # fmt: skip
    del report
    return table


def _held(value: float, error: float) -> str:
    return format_bytes(value) if not error else f"{format_bytes(value)} ± {format_bytes(error)}"


def _details(process: ReportedProcess) -> list[RenderableType]:
    figures = process.figures
    parts: list[RenderableType] = [Text()]
    facts = [
        f"{format_count(figures.allocations)} allocations, {format_count(figures.frees)} frees, "
        f"{format_bytes(figures.allocated_bytes)} allocated in all",
        f"internal fragmentation at the peak: {_percent(figures.internal_fragmentation)} of "
        f"{format_bytes(figures.usable_live_bytes_at_peak)} usable",
    ]
    if figures.memory is not None and len(figures.memory):
        resident = float(figures.memory["resident_bytes"].max())
        facts.append(f"resident peak as the recorder saw it: {format_bytes(resident)}")
    if figures.mapped_bytes_peak:
        facts.append(f"mapped by the program itself: {format_bytes(figures.mapped_bytes_peak)} at most")
    if figures.python_bytes_at_peak:
        facts.append(f"CPython's own objects at the peak: {format_bytes(figures.python_bytes_at_peak)}")
    if figures.unknown_frees:
        from_where = "inherited by fork or " if figures.forked else ""
        facts.append(
            f"{format_count(figures.unknown_frees)} frees of blocks {from_where}allocated before the recording"
        )
    parts += [Text(f"  {fact}") for fact in facts]
    grid = Table.grid(padding=(0, 4))
    grid.add_row(_classes(process), _lifetimes(process))
    parts += [Text(), grid]
    if len(figures.threads) > 1:
        parts += [Text(), _threads(process)]
    return parts


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.1f} %"


def _classes(process: ReportedProcess) -> Table:
    table = Table(title="Requested sizes, most frequent", title_justify="left", pad_edge=False, box=None)
    for title in ("requested", "usable", "allocations"):
        table.add_column(title, justify="right")
    for requested, usable, count in process.figures.requested_sizes[:_MOST_ROWS]:
        table.add_row(format_bytes(requested), format_bytes(usable), format_count(count))
    return table


def _lifetimes(process: ReportedProcess) -> Table:
    table = Table(title="Lifetimes of what was freed", title_justify="left", pad_edge=False, box=None)
    table.add_column("below", justify="right")
    table.add_column("blocks", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("")
    lifetimes = process.figures.lifetimes
    if lifetimes is None:
        return table
    blocks, held = lifetimes.blocks_by_time, lifetimes.bytes_by_time
    highest = float(blocks.max(initial=0.0))
    used = np.flatnonzero(blocks > 0)
    for low in range(0, 64, 3):
        part = slice(low, low + 3)
        if not len(used) or low + 3 <= used[0] or low > used[-1]:
            continue
        count = float(blocks[part].sum())
        bar = "█" * round(24 * count / max(1.0, 2 * highest))
        table.add_row(
            format_seconds((1 << (low + 2)) * 1e-9),
            format_count(count),
            format_bytes(float(held[part].sum())),
            bar,
        )
    return table


def _threads(process: ReportedProcess) -> Table:
    table = Table(title="Threads", title_justify="left", pad_edge=False, box=None)
    for title in ("allocations", "allocated", "frees", "of others' blocks", "still live", "temporary"):
        table.add_column(title, justify="right")
    table.add_column("thread")
    ranked = sorted(process.figures.threads, key=lambda thread: -thread.allocated_bytes)
    for thread in ranked[:_MOST_ROWS]:
        table.add_row(
            format_count(thread.allocations), format_bytes(thread.allocated_bytes), format_count(thread.frees),
            format_count(thread.remote_frees), format_bytes(thread.live_bytes_at_exit),
            format_count(thread.temporary_allocations), escape(f"{thread.name} ({thread.tid or '?'})"),
        )  # fmt: skip
    if len(ranked) > _MOST_ROWS:
        table.add_row("", "", "", "", "", "", f"{len(ranked) - _MOST_ROWS} more")
    return table


def _processes(ranked: list[ReportedProcess]) -> Table:
    table = Table(title="Processes", title_justify="left", pad_edge=False, box=None)
    for title in ("pid", "peak", "at exit", "allocated", "allocations", "started", "duration", "end"):
        table.add_column(title, justify="right")
    table.add_column("name")
    for process in ranked[:50]:
        f = process.figures
        end = "?" if not f.ended else f"signal {f.signal}" if f.signal else f"exit {f.exit_code}"
        table.add_row(
            str(f.pid), format_bytes(f.live_bytes_peak), format_bytes(f.live_bytes_at_exit),
            format_bytes(f.allocated_bytes), format_count(f.allocations), format_seconds(f.start_s),
            format_seconds(f.duration_s), end, escape(f.name),
        )  # fmt: skip
    if len(ranked) > 50:
        table.add_row("", "", "", "", "", "", "", "", f"{len(ranked) - 50} more")
    return table

"""A report as one HTML file that needs nothing else: words, curves, flame graph, tables; its data are compressed inside."""

from __future__ import annotations

import base64
import html
import math
import re
import zlib
from importlib import resources
from typing import Any, Final

import msgspec
import numpy as np

from heapsmith import __version__
from heapsmith.show import palette
from heapsmith.show.figures import NUMBERS_JS
from heapsmith.show.labels import class_label
from heapsmith.show.report_words import Sentence, describe, describe_limits, name_process
from heapsmith.trace.findings import external_fragmentation
from heapsmith.trace.report import Report, ReportedProcess, total_time_line
from heapsmith.trace.tree import build_tree
from heapsmith.units import format_bytes, format_count, format_seconds

_MOST_SITES: Final = 3000
_MOST_DETAILED: Final = 30
_MOST_PROCESSES: Final = 1500
_MOST_THREADS: Final = 200
_OWNERS: Final = ("own", "library", "runtime")


def render_report_page(report: Report, *, title: str = "") -> str:
    """Make the text of the page."""
    manifest = report.manifests[0]
    command = " ".join(manifest.command) or "an attached process"
    heading = title or command
    data = base64.b64encode(zlib.compress(msgspec.json.encode(_build_data(report)), 6)).decode()
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>\n"
        f"<title>heapsmith: {_escape(heading)}</title>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<style>{_colours()}{_resource('report_page.css')}</style></head>\n<body>\n"
        f"<header><h1>{_escape(heading)}</h1><p class='quiet'>{_facts(report)}</p></header>\n"
        f"{_notes(report)}<section id='summary'>{_words(report)}</section>\n"
        f"{_resource('report_page.html')}\n"
        f"<script id='data' type='application/octet-stream'>{data}</script>\n"
        f"<script>{NUMBERS_JS}{_resource('report_page.js')}</script>\n</body></html>\n"
    )


def _resource(name: str) -> str:
    return resources.files("heapsmith.show").joinpath(name).read_text(encoding="utf-8")


def _colours() -> str:
    names = ("TEXT", "GRID", "LIVE", "RESIDENT", "MAPPED", "LIMIT", "WARN_AT", "FREES")
    inks = {name.lower().replace("_", "-"): getattr(palette, name) for name in names}
    light = "".join(f"--{name}:{ink.light};" for name, ink in inks.items())
    dark = "".join(f"--{name}:{ink.dark};" for name, ink in inks.items())
    return f":root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _facts(report: Report) -> str:
    manifest = report.manifests[0]
    processes = len(report.processes)
    words = [
        f"{format_count(report.events)} events of {processes} process{'' if processes == 1 else 'es'}",
        *([f"{len(report.paths)} files"] if len(report.paths) > 1 else []),
        *([f"on {manifest.allocator}"] if manifest.allocator else []),
        f"stacks: {manifest.stacks}",
        f"heapsmith {__version__}",
    ]
    return _escape(" · ".join(words))


def _notes(report: Report) -> str:
    notes = describe_limits(report)
    if not notes:
        return ""
    return "<ul class='notes'>" + "".join(f"<li>{_escape(note)}</li>" for note in notes) + "</ul>\n"


def _words(report: Report) -> str:
    parts: list[str] = []
    told = describe(report)
    for heading, sentences in told:
        if len(report.processes) > 1:
            parts.append(f"<h2>{_escape(heading)}</h2>")
        parts.append("<ol class='words'>" + "".join(map(_sentence, sentences)) + "</ol>")
    rest = len(report.processes) - len(told)
    if rest > 0:
        parts.append(f"<p class='quiet'>{rest} more processes: see the table below.</p>")
    return "".join(parts)


def _sentence(sentence: Sentence) -> str:
    rows = "".join(
        f"<tr><td>{_escape(figure)}</td>"
        f"<td><button class='find' title='show in the graph'>{_escape(place)}</button></td></tr>"
        for place, figure in sentence.places
    )
    table = f"<table class='said'>{rows}</table>" if rows else ""
    said = re.sub(r"`([^`]+)`", r"<code>\1</code>", _escape(sentence.advice))
    advice = f"<p class='advice'>{said}</p>" if said else ""
    return f"<li class='{sentence.kind}'><p>{_escape(sentence.text)}</p>{table}{advice}</li>"


def _build_data(report: Report) -> dict[str, Any]:
    tree = build_tree(report)
    used = sorted({label for label in tree.label if label >= 0})
    number = {label: place for place, label in enumerate(used)}
    labels = [report.forest.labels[label] for label in used]
    files = sorted({label.file for label in labels if label.file})
    file_number = {file: place for place, file in enumerate(files)}
    ranked = sorted(
        range(len(report.processes)), key=lambda place: -report.processes[place].figures.live_bytes_peak
    )
    detailed = ranked[:_MOST_DETAILED]
    sites = sorted(
        (site for process in report.processes for site in process.sites),
        key=lambda site: (-max(site.live_bytes_at_peak, site.live_bytes_at_exit), -site.allocated_bytes),
    )
    times, live, mapped = (
        total_time_line(report.processes)
        if len(report.paths) == 1 and len(report.processes) > 1
        else (np.zeros(0),) * 3
    )
    return {
        "sampled": report.sampled,
        "tick_ns": report.manifests[0].tick_ns,
        "functions": [label.function for label in labels],
        "files": files,
        "file_of": [-1 if label.file is None else file_number[label.file] for label in labels],
        "line_of": [label.line or 0 for label in labels],
        "module_of": [(label.module or "").rpartition("/")[2] for label in labels],
        "owner_of": [_OWNERS.index(report.forest.owner_of(label)) for label in labels],
        "tree": {
            "parent": tree.parent,
            "label": [-1 if label < 0 else number[label] for label in tree.label],
            "process": tree.process,
            "hidden": tree.hidden,
            "values": {name: _whole(values) for name, values in tree.values.items()},
            "times_s": tree.times_s,
            "changes": [[nodes, _whole(amounts)] for nodes, amounts in tree.changes],
            "processes_left_out": tree.processes_left_out,
        },
        "names": [name_process(process) for process in report.processes[:_MOST_PROCESSES]],
        "processes": [_process_row(report.processes[place], place) for place in ranked[:_MOST_PROCESSES]],
        "details": {str(place): _details(report.processes[place]) for place in detailed},
        "total": {
            "times_s": _rounded(times),
            "live": _whole(live.tolist()),
            "mapped": _whole(mapped.tolist()),
        },
        "sites": [
            [
                site.label.function,
                site.label.place,
                site.label.file or site.label.module or "",
                site.process,
                int(site.mapped),
                site.cache or "",
                int(site.growing and site.cache is None),
                round(site.live_bytes_at_peak),
                round(site.live_bytes_at_exit),
                round(site.allocated_bytes),
                round(site.allocations),
                round(site.temporary_allocations),
                site.lifetime_s,
                round(site.live_bytes_at_peak_error),
                round(site.live_bytes_at_exit_error),
                _OWNERS.index(report.forest.owner_of(site.label)),
            ]
            for site in sites[:_MOST_SITES]
        ],
        "sites_left_out": max(0, len(sites) - _MOST_SITES),
    }


def _whole(values: list[float]) -> list[int]:
    return [round(value) for value in values]


def _rounded(values: Any, digits: int = 6) -> list[float | None]:
    return [round(float(value), digits) if math.isfinite(value) else None for value in values]


def _process_row(process: ReportedProcess, place: int) -> list[Any]:
    f = process.figures
    end = "?" if not f.ended else f"signal {f.signal}" if f.signal else f"exit {f.exit_code}"
    return [
        place, f.name, f.pid, round(f.live_bytes_peak), round(f.live_bytes_at_exit), round(f.allocated_bytes),
        round(f.allocations), round(f.temporary_allocations), f.start_s, f.duration_s, end, len(f.threads),
        f.dropped_events,
    ]  # fmt: skip


def _details(process: ReportedProcess) -> dict[str, Any]:
    f = process.figures
    line = f.time_line
    assert line is not None
    memory = external_fragmentation(f)
    lifetimes = f.lifetimes
    names = [row.class_bytes for row in f.size_classes]
    return {
        "start_s": f.start_s,
        "exit_s": f.exit_s,
        "end_s": f.end_s,
        "peak": round(f.live_bytes_peak),
        "peak_at_s": f.live_bytes_peak_at_s,
        "line": {
            "times_s": _rounded(line.ends_s),
            "live": _whole(line.live_bytes.tolist()),
            "highest": _whole(line.live_bytes_highest.tolist()),
            "usable": _whole(line.usable_live_bytes.tolist()),
            "mapped": _whole(line.mapped_bytes.tolist()),
            "allocations": _whole(line.allocations.tolist()),
        },
        "memory": {
            "times_s": _rounded(f.memory["time_ns"] * 1e-9) if f.memory is not None else [],
            "resident": [int(value) for value in f.memory["resident_bytes"]] if f.memory is not None else [],
        },
        "marks": [[round(at, 6), name] for at, name in f.marks],
        "drops": [[since, until, count, reason] for since, until, count, reason in f.drops],
        "classes": [
            [class_label(row.class_bytes, names), round(row.allocations), round(row.live_bytes_at_peak),
             round(row.live_bytes_at_exit), round(row.allocated_bytes)]
            for row in f.size_classes if row.allocations
        ],
        "sizes": [[size, usable, round(count)] for size, usable, count in f.requested_sizes[:100]],
        "distinct_sizes": f.distinct_sizes,
        "lifetimes": [
            _whole(column.tolist())
            for column in (lifetimes.blocks_by_time, lifetimes.bytes_by_time, lifetimes.blocks_by_allocations,
                           lifetimes.bytes_by_allocations)
        ] if lifetimes else [],
        "threads": [
            [t.name, t.tid, round(t.allocations), round(t.allocated_bytes), round(t.frees), round(t.remote_frees),
             round(t.freed_by_others), round(t.live_bytes_at_exit), round(t.temporary_allocations)]
            for t in sorted(f.threads, key=lambda t: -t.allocated_bytes)[:_MOST_THREADS]
        ],
        "facts": _fact_rows(process, memory),
    }  # fmt: skip


def _fact_rows(process: ReportedProcess, memory: Any) -> list[list[str]]:
    f = process.figures
    rows = [
        ["allocations and frees", f"{format_count(f.allocations)} and {format_count(f.frees)}"],
        ["allocated in all", f"{format_bytes(f.allocated_bytes)}"
         + (f", {f.churn:.3g} times the peak" if f.churn is not None else "")],
        ["peak", f"{format_bytes(f.live_bytes_peak)} in {format_count(f.live_blocks_at_peak)} blocks, "
         f"{format_seconds(f.live_bytes_peak_at_s - f.start_s)} after the start"],
        ["live at the end", f"{format_bytes(f.live_bytes_at_exit)} in {format_count(f.live_blocks_at_exit)} blocks"],
        ["internal fragmentation at the peak", "?" if f.internal_fragmentation is None else
         f"{100 * f.internal_fragmentation:.1f} % of {format_bytes(f.usable_live_bytes_at_peak)} usable"],
    ]  # fmt: skip
    if memory is not None and len(memory):
        extra = memory[:, 1] - memory[:, 2]
        worst = int(np.argmax(extra))
        rows.append(
            [
                "resident beyond what was live",
                f"{format_bytes(float(extra[worst]))} at most, at {format_seconds(float(memory[worst, 0]) - f.start_s)}: "
                f"{format_bytes(float(memory[worst, 1]))} resident, {format_bytes(float(memory[worst, 2]))} live "
                "(code, stacks and the allocator's own data included)",
            ]
        )
    if f.mapped_bytes_peak:
        rows.append(["mapped by the program itself", f"{format_bytes(f.mapped_bytes_peak)} at most"])
    if f.python_bytes_at_peak:
        rows.append(
            ["of the peak", f"{format_bytes(f.python_bytes_at_peak)} CPython's own objects, "
             f"{format_bytes(f.malloc_bytes_at_peak)} from malloc"]
        )  # fmt: skip
    if f.remote_frees:
        rows.append(["freed by another thread than allocated", f"{format_count(f.remote_frees)} blocks"])
    if f.unknown_frees:
        rows.append(["frees of blocks from before the recording", format_count(f.unknown_frees)])
    if f.dropped_events:
        rows.append(["events dropped", format_count(f.dropped_events)])
    return rows

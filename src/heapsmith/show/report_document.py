"""A report, a list of leaks or a difference as one JSON document."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from heapsmith.show.report_words import describe, describe_limits
from heapsmith.trace.report import Report, ReportedProcess
from heapsmith.trace.sites import Site

REPORT_SCHEMA: Final = "heapsmith.report/1"
MOST_PLACES: Final = 20_000
"""Of a process; the rest is added up."""


def build_report_document(report: Report) -> dict[str, Any]:
    """Build the JSON document of ``report --format json``."""
    return {
        "schema": REPORT_SCHEMA,
        "files": report.paths,
        "command": report.manifests[0].command,
        "events": report.events,
        "dropped_events": report.dropped_events,
        "sample_every_bytes": report.manifests[0].sample_every_bytes,
        "complete": all(report.complete) and not any(report.damages),
        "notes": describe_limits(report),
        "findings": [
            {
                "process": heading,
                "kind": sentence.kind,
                "text": sentence.text,
                "places": [{"place": place, "figure": figure} for place, figure in sentence.places],
                "advice": sentence.advice or None,
            }
            for heading, sentences in describe(report)
            for sentence in sentences
        ],
        "processes": [_process(report, process) for process in report.processes],
    }


def whole(value: Any) -> int:
    """A figure as JSON: whole bytes and counts, also of estimates."""
    return round(float(value))


def _process(report: Report, process: ReportedProcess) -> dict[str, Any]:
    f = process.figures
    sampled = report.manifests[process.trace].sample_every_bytes is not None
    places, left_out = _places(report, process)
    return {
        "pid": f.pid,
        "name": f.name,
        "file": report.paths[process.trace],
        "command": f.command,
        "started_s": f.start_s,
        "duration_s": f.duration_s,
        "exit": {"code": f.exit_code, "signal": f.signal} if f.ended else None,
        "events": f.events,
        "dropped_events": f.dropped_events,
        "allocations": whole(f.allocations),
        "frees": whole(f.frees),
        "allocated_bytes": whole(f.allocated_bytes),
        "allocated_bytes_error": whole(f.allocated_bytes_error) if sampled else 0,
        "live_bytes_peak": whole(f.live_bytes_peak),
        "live_bytes_peak_error": whole(f.live_bytes_peak_error) if sampled else 0,
        "live_bytes_peak_at_s": f.live_bytes_peak_at_s - f.start_s,
        "live_blocks_at_peak": whole(f.live_blocks_at_peak),
        "usable_live_bytes_at_peak": whole(f.usable_live_bytes_at_peak),
        "live_bytes_at_exit": whole(f.live_bytes_at_exit),
        "live_bytes_at_exit_error": whole(f.live_bytes_at_exit_error) if sampled else 0,
        "live_blocks_at_exit": whole(f.live_blocks_at_exit),
        "python_bytes_at_peak": whole(f.python_bytes_at_peak),
        "python_bytes_at_exit": whole(f.python_bytes_at_exit),
        "mapped_bytes_peak": whole(f.mapped_bytes_peak),
        "mapped_bytes_at_exit": whole(f.mapped_bytes_at_exit),
        "temporary_allocations": whole(f.temporary_allocations),
        "temporary_bytes": whole(f.temporary_bytes),
        "churn": f.churn,
        "internal_fragmentation": f.internal_fragmentation,
        "remote_frees": whole(f.remote_frees),
        "unknown_frees": f.unknown_frees,
        "resident_bytes_peak": int(f.memory["resident_bytes"].max())
        if f.memory is not None and len(f.memory)
        else None,
        "threads": [
            {
                "tid": thread.tid,
                "name": thread.name,
                "allocations": whole(thread.allocations),
                "allocated_bytes": whole(thread.allocated_bytes),
                "frees": whole(thread.frees),
                "remote_frees": whole(thread.remote_frees),
                "freed_by_others": whole(thread.freed_by_others),
                "live_bytes_at_exit": whole(thread.live_bytes_at_exit),
                "temporary_allocations": whole(thread.temporary_allocations),
            }
            for thread in f.threads
        ],
        "size_classes": [
            {
                "class_bytes": row.class_bytes,
                "allocations": whole(row.allocations),
                "allocated_bytes": whole(row.allocated_bytes),
                "live_blocks_at_peak": whole(row.live_blocks_at_peak),
                "live_bytes_at_peak": whole(row.live_bytes_at_peak),
                "live_blocks_at_exit": whole(row.live_blocks_at_exit),
                "live_bytes_at_exit": whole(row.live_bytes_at_exit),
            }
            for row in f.size_classes
            if row.allocations
        ],
        "requested_sizes": [
            {"requested_bytes": size, "usable_bytes": usable, "allocations": whole(count)}
            for size, usable, count in f.requested_sizes
        ],
        "lifetimes": _lifetimes(process),
        "sites": [_site(report, site) for site in process.sites[:MOST_PLACES]],
        "places": places,
        "places_left_out": left_out,
    }


def _lifetimes(process: ReportedProcess) -> dict[str, Any]:
    lifetimes = process.figures.lifetimes
    if lifetimes is None:
        return {}
    by_time = [
        {"below_ns": 1 << bits, "blocks": whole(blocks), "bytes": whole(held)}
        for bits, (blocks, held) in enumerate(
            zip(lifetimes.blocks_by_time.tolist(), lifetimes.bytes_by_time.tolist(), strict=True)
        )
        if blocks
    ]
    by_allocations = [
        {"below_allocations": 1 << bits, "blocks": whole(blocks), "bytes": whole(held)}
        for bits, (blocks, held) in enumerate(
            zip(
                lifetimes.blocks_by_allocations.tolist(), lifetimes.bytes_by_allocations.tolist(), strict=True
            )
        )
        if blocks
    ]
    return {"by_time": by_time, "by_allocations": by_allocations}


def _site(report: Report, site: Site) -> dict[str, Any]:
    return {
        "place": site.label.text,
        "function": site.label.function,
        "file": site.label.file,
        "line": site.label.line,
        "kind": "mapping" if site.mapped else "heap",
        "owner": report.forest.owner_of(site.label),
        "cache": site.cache,
        "growing": site.growing,
        "stacks": site.stacks,
        "allocations": whole(site.allocations),
        "allocated_bytes": whole(site.allocated_bytes),
        "live_bytes_at_peak": whole(site.live_bytes_at_peak),
        "live_bytes_at_exit": whole(site.live_bytes_at_exit),
        "live_blocks_at_exit": whole(site.live_blocks_at_exit),
        "temporary_allocations": whole(site.temporary_allocations),
        "lifetime_s": site.lifetime_s,
    }


def _places(report: Report, process: ReportedProcess) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    places = process.places
    if not len(places):
        return [], {"places": 0, "allocations": 0, "allocated_bytes": 0, "live_bytes_at_exit": 0}
    held = np.maximum(places.live_bytes_at_peak, places.live_bytes_at_exit)
    order = np.lexsort((-places.allocations, -places.allocated_bytes, -held))
    shown, rest = order[:MOST_PLACES], order[MOST_PLACES:]
    sampled = report.manifests[process.trace].sample_every_bytes is not None
    texts: dict[int, list[str]] = {}
    rows: list[dict[str, Any]] = []
    for row in shown.tolist():
        node = int(process.node[row])
        if node not in texts:
            texts[node] = [label.text for label in report.forest.path(node)]
        document: dict[str, Any] = {
            "stack": texts[node],
            "kind": "mapping" if places.mapped[row] else "heap",
            "allocations": whole(places.allocations[row]),
            "allocated_bytes": whole(places.allocated_bytes[row]),
            "live_bytes_at_peak": whole(places.live_bytes_at_peak[row]),
            "live_blocks_at_peak": whole(places.live_blocks_at_peak[row]),
            "live_bytes_at_exit": whole(places.live_bytes_at_exit[row]),
            "live_blocks_at_exit": whole(places.live_blocks_at_exit[row]),
            "live_bytes_peak": whole(places.live_bytes_peak[row]),
            "temporary_allocations": whole(places.temporary_allocations[row]),
            "lifetime_s": float(places.lifetime_s[row]) if np.isfinite(places.lifetime_s[row]) else None,
        }
        if sampled:
            document |= {
                "allocated_bytes_error": whole(places.allocated_bytes_error[row]),
                "live_bytes_at_peak_error": whole(places.live_bytes_at_peak_error[row]),
                "live_bytes_at_exit_error": whole(places.live_bytes_at_exit_error[row]),
            }
        rows.append(document)
    left_out = {
        "places": len(rest),
        "allocations": whole(places.allocations[rest].sum()),
        "allocated_bytes": whole(places.allocated_bytes[rest].sum()),
        "live_bytes_at_exit": whole(places.live_bytes_at_exit[rest].sum()),
    }
    return rows, left_out

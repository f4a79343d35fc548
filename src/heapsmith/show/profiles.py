"""A report in the formats of other people's viewers: pprof, speedscope, folded stacks."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from heapsmith import __version__
from heapsmith.show.report_words import name_process
from heapsmith.trace.places import Label
from heapsmith.trace.report import Report

_SPEEDSCOPE_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"
_TITLES: Final = {
    "live_bytes_at_peak": "live at the peak",
    "live_bytes_at_exit": "still live at the end",
    "allocated_bytes": "all allocated bytes",
    "temporary_bytes": "temporary",
}
_PPROF_COLUMNS: Final = (
    ("alloc_objects", "count", "allocations"),
    ("alloc_space", "bytes", "allocated_bytes"),
    ("inuse_objects", "count", "live_blocks_at_exit"),
    ("inuse_space", "bytes", "live_bytes_at_exit"),
    ("peak_objects", "count", "live_blocks_at_peak"),
    ("peak_space", "bytes", "live_bytes_at_peak"),
)
"""The first four as Go's and jemalloc's heap profiles name them; the last two are live at the process's peak."""


def render_folded(report: Report, measure: str = "live_bytes_at_peak") -> str:
    """Make folded stacks, outermost frame first: ``a;b;c bytes``, one line for each distinct stack.

    Args:
        report: The report.
        measure: Of what: one of `heapsmith.trace.report.MEASURES`.
    """
    lines: dict[str, int] = {}
    for path, value in _stacks(report, measure):
        text = ";".join(name.replace(";", ",").replace("\n", " ") for name in path)
        lines[text] = lines.get(text, 0) + value
    return "".join(f"{text} {value}\n" for text, value in lines.items())


def _stacks(report: Report, measure: str) -> Iterator[tuple[list[str], int]]:
    several = len(report.processes) > 1
    for process in report.processes:
        prefix = [name_process(process)] if several else []
        values = np.where(process.places.mapped, 0.0, getattr(process.places, measure))
        for node, value in zip(process.node.tolist(), values.tolist(), strict=True):
            if value >= 0.5:
                yield [*prefix, *(label.text for label in reversed(report.forest.path(node)))], round(value)


def render_speedscope(report: Report) -> bytes:
    """Make a speedscope file: one profile for each measure, frames shared."""
    frames: list[dict[str, Any]] = []
    numbers: dict[Label | str, int] = {}

    def number(frame: Label | str) -> int:
        place = numbers.get(frame)
        if place is None:
            place = numbers[frame] = len(frames)
            entry: dict[str, Any] = {"name": frame if isinstance(frame, str) else frame.function}
            if isinstance(frame, Label):
                if file := frame.file or frame.module:
                    entry["file"] = file
                if frame.line:
                    entry["line"] = frame.line
            frames.append(entry)
        return place

    several = len(report.processes) > 1
    profiles: list[dict[str, Any]] = []
    for measure, title in _TITLES.items():
        samples: list[list[int]] = []
        weights: list[int] = []
        for process in report.processes:
            values = np.where(process.places.mapped, 0.0, getattr(process.places, measure))
            prefix = [number(name_process(process))] if several else []
            for node, value in zip(process.node.tolist(), values.tolist(), strict=True):
                if value >= 0.5:
                    samples.append(
                        [*prefix, *(number(label) for label in reversed(report.forest.path(node)))]
                    )
                    weights.append(round(value))
        profiles.append(
            {
                "type": "sampled",
                "name": title,
                "unit": "bytes",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        )
    document = {
        "$schema": _SPEEDSCOPE_SCHEMA,
        "shared": {"frames": frames},
        "profiles": profiles,
        "name": " ".join(report.manifests[0].command),
        "activeProfileIndex": 0,
        "exporter": f"heapsmith {__version__}",
    }
    return msgspec.json.encode(document)


def render_pprof(report: Report) -> bytes:
    """Make a gzipped pprof profile, as `go tool pprof`, Pyroscope and speedscope read it.

    Samples carry the labels ``process`` and ``pid``, so that `-tagfocus` tells processes apart.
    """
    texts: dict[str, int] = {"": 0}
    out: list[bytes] = []

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    for kind, unit, _ in _PPROF_COLUMNS:
        out.append(_message(1, _integer(1, text(kind)) + _integer(2, text(unit))))
    locations: dict[Label, int] = {}
    functions: dict[tuple[str, str], int] = {}
    mappings: dict[str, int] = {}
    tables: list[bytes] = []

    def location(label: Label) -> int:
        known = locations.get(label)
        if known is not None:
            return known
        place = locations[label] = len(locations) + 1
        file = label.file or ""
        function = functions.get((label.function, file))
        if function is None:
            function = functions[label.function, file] = len(functions) + 1
            name = text(label.function)
            tables.append(
                _message(
                    5, _integer(1, function) + _integer(2, name) + _integer(3, name) + _integer(4, text(file))
                )
            )
        mapping = 0
        if label.module:
            mapping = mappings.get(label.module, 0)
            if not mapping:
                mapping = mappings[label.module] = len(mappings) + 1
                flags = b"".join(_integer(field, 1) for field in (7, 8, 9, 10))
                tables.append(_message(3, _integer(1, mapping) + _integer(5, text(label.module)) + flags))
        line = _message(4, _integer(1, function) + _integer(2, label.line or 0))
        tables.append(_message(4, _integer(1, place) + _integer(2, mapping) + line))
        return place

    for process in report.processes:
        columns = [getattr(process.places, name) for _, _, name in _PPROF_COLUMNS]
        labels = _message(3, _integer(1, text("process")) + _integer(2, text(name_process(process))))
        labels += _message(3, _integer(1, text("pid")) + _integer(3, process.figures.pid))
        for row in np.flatnonzero(~process.places.mapped).tolist():
            stack = _packed(1, [location(label) for label in report.forest.path(int(process.node[row]))])
            values = _packed(2, [round(float(column[row])) for column in columns])
            out.append(_message(2, stack + values + labels))
    out += tables
    comment = text(f"heapsmith {__version__}: " + " ".join(report.manifests[0].command))
    default = text("peak_space")
    started = min((m.started_unix_ns for m in report.manifests), default=0)
    out += [_message(6, value.encode()) for value in texts]
    duration = max((process.figures.end_s for process in report.processes), default=0.0)
    out.append(_integer(9, started) + _integer(10, round(duration * 1e9)))
    mean = report.manifests[0].sample_every_bytes
    if mean is not None:
        out.append(
            _message(11, _integer(1, texts["alloc_space"]) + _integer(2, texts["bytes"])) + _integer(12, mean)
        )
    out.append(_integer(13, comment) + _integer(14, default))
    return gzip.compress(b"".join(out), mtime=0)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _packed(field: int, values: Sequence[int]) -> bytes:
    return _message(field, b"".join(map(_varint, values)))

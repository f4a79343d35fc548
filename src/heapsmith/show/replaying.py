"""A replay in the terminal, and as a JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from heapsmith.lab.comparison import Comparison
from heapsmith.lab.replay.validation import Validation
from heapsmith.show.compare import build_comparison_document, render_comparison
from heapsmith.units import format_bytes, format_count

SCHEMA: Final = "heapsmith.replay/1"


def render_replay(
    comparison: Comparison, recommendation: str, notes: Sequence[str], validation: Validation | None = None
) -> RenderableType:
    """Make the table of a replay, below what was replayed.

    Args:
        comparison: What was measured.
        recommendation: What follows from it, in one sentence.
        notes: What a person has to know of the figures.
        validation: How faithful the replay is, where that was asked.
    """
    replay = comparison.workload.replay
    assert replay is not None
    head = (
        f"{format_count(replay.operations)} calls of {replay.source}, speed {replay.speed};"
        f" at most {format_bytes(replay.live_bytes_peak)} requested and live"
    )
    parts: list[RenderableType] = [Text(head), render_comparison(comparison, recommendation, notes)]
    if validation is not None:
        parts.append(
            Text(
                f"{'faithful' if validation.faithful else 'not faithful'}: on {validation.allocator} the replay's peak is"
                f" {validation.ratio:.3f} times that of the recorded run ({format_bytes(validation.replayed_bytes_peak)},"
                f" {format_bytes(validation.recorded_bytes_peak)}; {validation.samples} moments,"
                f" {validation.mean_error_ratio:.1%} apart on average;"
                f" {format_bytes(validation.outside_bytes)} outside of the heap left out)",
                style="green" if validation.faithful else "red",
            )
        )
    return Group(*parts)


def build_replay_document(
    comparison: Comparison,
    recommendation: str,
    machine: dict[str, Any],
    notes: Sequence[str],
    validation: Validation | None = None,
) -> dict[str, Any]:
    """Build the JSON document of ``replay --json``."""
    replay = comparison.workload.replay
    assert replay is not None
    document = build_comparison_document(comparison, recommendation, machine, notes)
    del document["command"]
    for result, entry in zip(comparison.results, document["results"], strict=True):
        times, resident = result.series
        entry["course"] = {"times_s": times, "resident_bytes": resident}
    return document | {
        "schema": SCHEMA,
        "trace": replay.source,
        "speed": replay.speed,
        "operations": replay.operations,
        "requested_live_bytes_peak": replay.live_bytes_peak,
        "validation": None if validation is None else msgspec.to_builtins(validation),
        "requested_live": {"times_s": replay.times_s, "bytes": replay.live_bytes},
    }

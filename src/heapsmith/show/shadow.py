"""What a heap in a program's shadow would have held, in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from heapsmith.tune.shadow import ShadowResult
from heapsmith.units import format_bytes, format_count


def render_shadow(result: ShadowResult) -> RenderableType:
    """Make the comparison of the real process and the heap in its shadow."""
    parts: list[RenderableType] = [
        Text(
            f"in the shadow of process {result.pid}, after {format_count(result.events)} events, `{result.heap}` would have"
            f" held at most {format_bytes(result.shadow_bytes_peak)}, {format_bytes(result.shadow_bytes_mean)} on average",
            style="bold",
        ),
        Text(
            "the process ended before its own memory was looked at"
            if result.own_bytes_peak is None
            else f"the process, on its own allocator, held at most {format_bytes(result.own_bytes_peak)} anonymous,"
            f" {format_bytes(result.own_bytes_mean)} on average; {format_bytes(result.outside_bytes)} of that was there"
            " before its heap grew"
        ),
    ]
    if not result.complete:
        parts.append(
            Text(
                "events were dropped, or the program outgrew the shadow: the figures are not of all of it",
                style="yellow",
            )
        )
    return Group(*parts)

"""How far a heap reaches, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table

from heapsmith.lab.reach import Reach
from heapsmith.units import format_bytes


def render_reach(found: Sequence[Reach], allocator: str) -> RenderableType:
    """Make the table: one line for each child that was sent.

    Args:
        found: In the order in which they were sent.
        allocator: On which they ran, for the title.
    """
    table = Table(title=f"how much heap can be had here ({allocator})", title_justify="left", pad_edge=False)
    table.add_column("way")
    table.add_column("memory")
    table.add_column("had", justify="right")
    table.add_column("stopped by")
    for reach in found:
        way = {
            "malloc": "one block, by malloc",
            "realloc": "one block, by realloc",
            "blocks": f"blocks of {format_bytes(reach.block_bytes)}",
        }[reach.how]
        stopped = f"{reach.stopped_by}: {reach.detail}"
        style = "red" if reach.stopped_by == "killed" else None
        table.add_row(
            way,
            "written" if reach.touched else "only asked for",
            format_bytes(reach.reached_bytes),
            stopped,
            style=style,
        )
    return table

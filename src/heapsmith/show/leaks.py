"""What was still live at the end: as text, as JSON, as metamalloc's list."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heapsmith.show.report_document import whole
from heapsmith.show.report_words import describe_limits, name_process, name_site
from heapsmith.trace.leaks import LeftBlocks
from heapsmith.trace.report import Report
from heapsmith.units import format_bytes, format_count

LEAKS_SCHEMA: Final = "heapsmith.leaks/1"
_MOST_SITES: Final = 30
_FRAMES: Final = 12


def render_leaks(report: Report, left: LeftBlocks, fail_above_bytes: int | None) -> RenderableType:
    """Make the text."""
    parts: list[RenderableType] = [Text(f"note: {note}", style="yellow") for note in describe_limits(report)]
    several = len(report.processes) > 1
    error = f" ± {format_bytes(left.error_bytes)}" if left.error_bytes else ""
    headline = (
        f"{format_bytes(left.remaining_bytes)}{error} in {format_count(left.remaining_blocks)} blocks of "
        f"{len(left.sites)} place{'' if len(left.sites) == 1 else 's'} were still live at the end"
    )
    parts.append(Text(headline if left.sites else "nothing was still live at the end", style="bold"))
    for site in left.sites[:_MOST_SITES]:
        held = format_bytes(site.live_bytes_at_exit)
        if site.live_bytes_at_exit_error:
            held += f" ± {format_bytes(site.live_bytes_at_exit_error)}"
        line = Text(f"{held:>12}", style="bold cyan")
        line.append(f"  {format_count(site.live_blocks_at_exit)} blocks  ", style="default")
        line.append(name_site(site.label), style="bold default")
        if site.growing:
            line.append("  grew step by step", style="red")
        if several:
            line.append(f"  {name_process(report.processes[site.process])}", style="dim")
        parts.append(line)
        path = report.forest.path(site.node)
        for label in path[:_FRAMES]:
            parts.append(Text(f"                {label.text}", style="dim", overflow="fold"))
        if len(path) > _FRAMES:
            parts.append(Text(f"                {len(path) - _FRAMES} more frames", style="dim"))
    rest = left.sites[_MOST_SITES:]
    if rest:
        held = format_bytes(sum(site.live_bytes_at_exit for site in rest))
        parts.append(Text(f"{held:>12}  in {len(rest)} more places"))
    for title, group in (("known one-time caches", left.caches), ("ignored", left.ignored)):
        if group:
            table = Table(title=f"{title}, not counted", title_justify="left", box=None, pad_edge=False)
            table.add_column("bytes", justify="right")
            table.add_column("blocks", justify="right")
            table.add_column("what")
            for name, (held_bytes, blocks) in sorted(group.items(), key=lambda item: -item[1][0]):
                table.add_row(format_bytes(held_bytes), format_count(blocks), Text(name))
            parts += [Text(), table]
    if fail_above_bytes is not None:
        failed = left.remaining_bytes > fail_above_bytes
        parts.append(
            Text(
                f"{'FAILED: more' if failed else 'passed: not more'} than {format_bytes(fail_above_bytes)}",
                style="bold red" if failed else "green",
            )
        )
    return Group(*parts)


def build_leaks_document(report: Report, left: LeftBlocks, fail_above_bytes: int | None) -> dict[str, Any]:
    """Build the JSON document."""
    return {
        "schema": LEAKS_SCHEMA,
        "files": report.paths,
        "dropped_events": report.dropped_events,
        "notes": describe_limits(report),
        "live_bytes_at_exit": whole(sum(process.figures.live_bytes_at_exit for process in report.processes)),
        "live_blocks_at_exit": whole(
            sum(process.figures.live_blocks_at_exit for process in report.processes)
        ),
        "remaining_bytes": whole(left.remaining_bytes),
        "remaining_bytes_error": whole(left.error_bytes),
        "remaining_blocks": whole(left.remaining_blocks),
        "caches": [
            {"name": name, "live_bytes_at_exit": whole(held), "live_blocks_at_exit": whole(blocks)}
            for name, (held, blocks) in left.caches.items()
        ],
        "ignored": [
            {"pattern": name, "live_bytes_at_exit": whole(held), "live_blocks_at_exit": whole(blocks)}
            for name, (held, blocks) in left.ignored.items()
        ],
        "fail_above_bytes": fail_above_bytes,
        "failed": fail_above_bytes is not None and left.remaining_bytes > fail_above_bytes,
        "places": [
            {
                "place": site.label.text,
                "pid": report.processes[site.process].figures.pid,
                "live_bytes_at_exit": whole(site.live_bytes_at_exit),
                "live_bytes_at_exit_error": whole(site.live_bytes_at_exit_error),
                "live_blocks_at_exit": whole(site.live_blocks_at_exit),
                "growing": site.growing,
                "stack": [label.text for label in report.forest.path(site.node)],
            }
            for site in left.sites
        ],
    }


def render_leaks_list(report: Report) -> str:
    """Make metamalloc's list: one line for each size class with live blocks, whoever holds them."""
    blocks: dict[int | None, float] = {}
    held: dict[int | None, float] = {}
    for process in report.processes:
        for row in process.figures.size_classes:
            blocks[row.class_bytes] = blocks.get(row.class_bytes, 0.0) + row.live_blocks_at_exit
            held[row.class_bytes] = held.get(row.class_bytes, 0.0) + row.live_bytes_at_exit
    lines = [
        f"Potential memory leak : sizeclass={size} count={whole(count)}\n"
        if size is not None
        else f"Potential memory leak : total size={whole(held[size])} \n"
        for size, count in blocks.items()
        if count >= 0.5
    ]
    return "".join(lines)

"""What a person reads in the terminal: the summary of a run, the list of watched processes, one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from heapsmith.run.values import Event, Exit, Process, PythonHeap, RunResult, SizeClass, Thread
from heapsmith.show.labels import (
    NO_VALUE,
    class_label,
    exit_is_bad,
    exit_label,
    percent,
    process_label,
    span_label,
    thread_label,
    was_replaced,
)
from heapsmith.show.tree import Branch, Folded, arrange
from heapsmith.units import format_bytes, format_count, format_seconds

SUMMARY_PROCESSES: Final = 16
SUMMARY_CLASSES: Final = 6
SUMMARY_THREADS: Final = 5
_BAR_CELLS: Final = 8
_LABEL = "bold"
_QUIET = "dim"
_GOOD = "green"
_BAD = "bold red"
_WARN = "yellow"
_UNTIL: Final = 60
_SHORTEST_COMMAND: Final = 8


def render_run_summary(result: RunResult) -> RenderableType:
    """Make the summary that ends a run: what a person wants to know of it in one screenful.

    Args:
        result: The run; several processes are shown as a tree, and the one with the highest peak in detail.

    Returns:
        A rich renderable.

    Example:
        >>> from rich.console import Console
        >>> nothing = RunResult("heapsmith.run/1", ["true"], Exit(0, None, False), 0.01, [])
        >>> Console(width=60).print(render_run_summary(nothing))
        heapsmith: true exited with 0 after 10.0 ms ────────────────
        <BLANKLINE>
          No process could be watched, so nothing was counted.
    """
    parts: list[RenderableType] = [_Heading(result), Text()]
    if not result.processes:
        parts.append(Text("  No process could be watched, so nothing was counted."))
        return Group(*parts)
    heaviest = max(result.processes, key=lambda process: process.live_bytes_peak)
    if len(result.processes) > 1:
        parts += [_process_table(result.processes, SUMMARY_PROCESSES, ended=True), Text()]
        parts.append(Text(f"  Highest peak: {process_label(heaviest)}", style=_LABEL))
    parts.append(Padding(_facts(heaviest), (0, 0, 0, 2)))
    parts += _tables(heaviest, SUMMARY_CLASSES, SUMMARY_THREADS)
    parts += _notes(result.processes)
    return Group(*parts)


class _Heading:
    """How it ended is said in full, whatever the width: the command gives way."""

    def __init__(self, result: RunResult) -> None:
        self._command = " ".join(result.command)
        self._ended = Text(f" {exit_label(result.exit)}", style=_exit_style(result.exit))
        self._time = Text(f" after {format_seconds(result.duration_s)}", style=_QUIET)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        title = Text("heapsmith: ", style=_LABEL)
        room = options.max_width - title.cell_len - self._ended.cell_len - len(" ─")
        has_time = room - self._time.cell_len >= _SHORTEST_COMMAND
        if has_time:
            room -= self._time.cell_len
        title.append(_shorten(self._command, max(_SHORTEST_COMMAND, min(room, _UNTIL))), style=_LABEL)
        title.append_text(self._ended)
        if has_time:
            title.append_text(self._time)
        yield Rule(title, align="left", style=_QUIET)


def render_processes(processes: Sequence[Process]) -> RenderableType:
    """Make the list of watched processes, as a tree."""
    if not processes:
        return Text("No watched process. Start one with: heapsmith run -- COMMAND")
    return _process_table(processes, None, ended=any(not process.alive for process in processes))


def render_process(process: Process, details: Mapping[str, str] | None = None) -> RenderableType:
    """Make everything known of one process.

    Args:
        process: The process.
        details: Further facts, label to finished text, shown after the others.
    """
    title = Text(process_label(process), style=_LABEL)
    title.append(f" {exit_label(process.exit)}", style=_exit_style(process.exit))
    title.append(f" · {_shorten(' '.join(process.command), _UNTIL)}", style=_QUIET)
    facts = _facts(process)
    for label, text in (details or {}).items():
        facts.add_row(label, text)
    return Group(
        Rule(title, align="left", style=_QUIET),
        Text(),
        Padding(facts, (0, 0, 0, 2)),
        *_tables(process, None, None),
        *([Text(), spans] if (spans := render_spans(process)) is not None else []),
        *_notes([process]),
    )


def _facts(process: Process) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=_LABEL, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Live peak", _peak(process))
    table.add_row("Live now" if process.alive else "Live at exit", _live(process))
    if process.mapped_bytes_peak:
        table.add_row(
            "Mapped",
            f"{format_bytes(process.mapped_bytes)} by the program itself, "
            f"peak {format_bytes(process.mapped_bytes_peak)}",
        )
    table.add_row("Allocations", _allocations(process))
    if process.python is not None:
        table.add_row(f"Python {process.python.version}", _python(process, process.python))
    if process.limit_bytes is not None or process.warn_at_bytes is not None or process.warnings:
        table.add_row("Limit", _limit(process))
    table.add_row("Failures", _failures(process))
    table.add_row("Kernel", _kernel(process))
    table.add_row(
        "Threads",
        f"{format_count(process.threads_started)} started, {format_count(process.threads_alive)} alive",
    )
    table.add_row("Allocator", process.allocator)
    if process.committed_bytes is not None:
        table.add_row("Heap", _heap(process))
    if fragmentation := _fragmentation(process):
        table.add_row("Fragmentation", fragmentation)
    if process.lost:
        table.add_row("Lost", Text(f"{format_count(process.lost)} events could not be counted", style=_WARN))
    return table


def _heap(process: Process) -> str:
    figures = (
        ("committed", process.committed_bytes),
        ("reserved", process.reserved_bytes),
        ("metadata", process.metadata_bytes),
        ("free and cached", process.free_cached_bytes),
    )
    return ", ".join(f"{format_bytes(value)} {name}" for name, value in figures if value is not None)


def _fragmentation(process: Process) -> str:
    """Only where the heap tells what it took: of other heaps the inner half alone is known."""
    inside, outside = process.internal_fragmentation_ratio, process.external_fragmentation_ratio
    if outside is None:
        return ""
    words = [f"{percent(outside)} of the committed bytes hold nothing live"]
    if inside is not None:
        words.append(f"{percent(inside)} of the live bytes were not asked for")
    return " · ".join(words)


def _peak(process: Process) -> Text:
    text = Text(format_bytes(process.live_bytes_peak), style="bold cyan")
    if process.live_bytes_peak_error_bound:
        text.append(f" ±{format_bytes(process.live_bytes_peak_error_bound)}", style=_QUIET)
    if process.live_bytes_peak_at_s is not None:
        text.append(f" at {format_seconds(process.live_bytes_peak_at_s)}", style="default not bold")
    return text


def _live(process: Process) -> str:
    bound = process.live_bytes_error_bound if process.alive else 0
    live = format_bytes(process.live_bytes) + (f" ±{format_bytes(bound)}" if bound else "")
    blocks = f"{format_count(process.live_blocks)} block{'' if process.live_blocks == 1 else 's'}"
    return (
        f"{live} in {blocks} (the program asked for about {format_bytes(process.requested_live_bytes)})"
        if process.live_blocks
        else f"{live} in {blocks}"
    )


def _allocations(process: Process) -> str:
    words = [format_count(process.allocations)]
    if process.temporary_ratio is not None and process.allocations:
        words.append(f"{percent(process.temporary_ratio)} freed again")
    if process.reallocations:
        words.append(f"{format_count(process.reallocations)} by realloc")
    if process.remote_frees:
        words.append(f"about {format_count(process.remote_frees)} freed by another thread")
    return " · ".join(words)


def render_spans(process: Process) -> RenderableType | None:
    """Make the table of a forged heap's spans by class, fullest to emptiest; None for other heaps."""
    rows = [row for row in process.spans if row.span_bytes]
    if not rows:
        return None
    table = _table("Spans of", "Spans", "Bytes", "Used blocks")
    table.add_column("full to empty", no_wrap=True)
    for row in rows:
        table.add_row(
            span_label(row),
            format_count(row.spans),
            format_bytes(row.span_bytes),
            format_count(row.used_blocks) if row.kind == "blocks" else NO_VALUE,
            _occupancy(row.spans_by_occupancy) if row.kind == "blocks" else Text(),
        )
    return Padding(table, (0, 0, 0, 2))


def _occupancy(bands: Sequence[int]) -> Text:
    most = max(bands)
    levels = (" ▁▂▃▄▅▆▇█"[-(-8 * count // most)] if most else " " for count in reversed(bands))
    return Text("".join(levels), style="cyan")


def _python(process: Process, python: PythonHeap) -> str:
    arenas = f"arenas {format_bytes(python.arena_bytes)}, peak {format_bytes(python.arena_bytes_peak)}"
    if python.live_bytes is None:
        return f"objects not counted: {python.note or 'not asked for'} · {arenas}"
    native = process.live_bytes - python.live_bytes
    return (
        f"objects {format_bytes(python.live_bytes)} in {format_count(python.blocks)} blocks · "
        f"native {format_bytes(native)} · {arenas}"
    )


def _limit(process: Process) -> str:
    words: list[str] = []
    if process.limit_bytes is not None:
        words.append(format_bytes(process.limit_bytes))
    if process.warn_at_bytes is not None or process.warnings:
        crossed = "once" if process.warnings == 1 else f"{format_count(process.warnings)} times"
        words.append(
            f"warn at {format_bytes(process.warn_at_bytes)}, "
            + (f"crossed {crossed}" if process.warnings else "not crossed")
        )
    return " · ".join(words)


def _failures(process: Process) -> Text:
    if not process.failures:
        return Text("none")
    words = f"{format_count(process.failures)} allocation{'' if process.failures == 1 else 's'} failed"
    if process.refused:
        words += f", {format_count(process.refused)} of them refused for the limit"
    if process.overflowed:
        words += f", {format_count(process.overflowed)} of more than any heap could hold"
    if process.last_failed_bytes is not None:
        words += f"; the last asked for {format_bytes(process.last_failed_bytes)}"
    return Text(words, style=_BAD)


def _kernel(process: Process) -> str:
    now = f"{format_bytes(process.resident_bytes)}, " if process.alive else ""
    return (
        f"resident {now}peak {format_bytes(process.resident_bytes_peak)} · page faults "
        f"{format_count(process.minor_faults)} minor, {format_count(process.major_faults)} major"
    )


def _tables(process: Process, most_classes: int | None, most_threads: int | None) -> list[RenderableType]:
    parts: list[RenderableType] = []
    classes = [row for row in process.size_classes if row.allocations or row.live_blocks]
    if classes:
        parts += [Text(), _class_table(process, classes, most_classes)]
    threads = [row for row in process.threads if row.allocations or row.live_blocks]
    if len(threads) > 1:
        parts += [Text(), _thread_table(threads, most_threads)]
    return parts


def _class_table(process: Process, rows: Sequence[SizeClass], most: int | None) -> RenderableType:
    python = any(row.python_live_blocks for row in rows)
    every = [row.class_bytes for row in process.size_classes]
    chosen = sorted(rows, key=lambda row: (-row.live_bytes_peak, -row.allocations))[:most]
    if most is None:
        chosen = list(rows)
    table = _table("Size class", "Allocations", "Live blocks", "Live", "Live peak")
    if python:
        table.add_column("Python's", justify="right", no_wrap=True)
    table.add_column("")
    most_bytes = max(row.live_bytes_peak for row in rows)
    for row in chosen:
        cells = [
            class_label(row.class_bytes, every),
            format_count(row.allocations),
            format_count(row.live_blocks),
            format_bytes(row.live_bytes),
            format_bytes(row.live_bytes_peak),
        ]
        if python:
            cells.append(format_bytes(row.python_live_bytes))
        table.add_row(*cells, _bar(row.live_bytes_peak, most_bytes))
    return _with_rest(table, len(rows) - len(chosen), "size class", "size classes")


def _thread_table(rows: Sequence[Thread], most: int | None) -> RenderableType:
    chosen = sorted(rows, key=lambda row: (-row.live_bytes, -row.allocations))[:most]
    table = _table("Thread", "Allocations", "Live blocks", "Live", "Remote frees")
    for row in chosen:
        table.add_row(
            _shorten(thread_label(row), 32),
            format_count(row.allocations),
            format_count(row.live_blocks),
            format_bytes(row.live_bytes),
            f"~{format_count(row.remote_frees)}" if row.remote_frees else "0",
        )
    return _with_rest(table, len(rows) - len(chosen), "thread", "threads")


def _process_table(processes: Sequence[Process], most: int | None, *, ended: bool) -> RenderableType:
    limits = any(process.limit_bytes is not None for process in processes)
    failures = any(process.failures for process in processes)
    all_ended = all(not process.alive for process in processes)
    table = _table("Process", "PID", "Live peak", "Live", "Resident peak" if all_ended else "Resident")
    if limits:
        table.add_column("Limit", justify="right", no_wrap=True)
    if failures:
        table.add_column("Failures", justify="right", no_wrap=True)
    if ended:
        table.add_column("State", no_wrap=True)
    for branch in arrange(processes, most):
        if isinstance(branch, Folded):
            table.add_row(Text(f"{'  ' * branch.depth}… {format_count(branch.processes)} more", style=_QUIET))
            continue
        process = branch.process
        cells: list[str | Text] = [
            Text(_shorten(branch_name(branch), 34)),
            str(process.pid),
            format_bytes(process.live_bytes_peak),
            format_bytes(process.live_bytes),
            format_bytes(process.resident_bytes_peak) if all_ended else _resident(process),
        ]
        if limits:
            cells.append(NO_VALUE if process.limit_bytes is None else format_bytes(process.limit_bytes))
        if failures:
            cells.append(Text(format_count(process.failures), style=_BAD if process.failures else ""))
        if ended:
            cells.append(Text(exit_label(process.exit), style=_exit_style(process.exit)))
        table.add_row(*cells)
    return Padding(table, (0, 0, 0, 2))


def _resident(process: Process) -> str:
    return format_bytes(process.resident_bytes) if process.alive else NO_VALUE


def branch_name(branch: Branch) -> str:
    """Name a process indented to its place in the tree."""
    again = f" ({branch.process.image})" if was_replaced(branch.process.exit) else ""
    return f"{'  ' * (branch.depth - 1) + '└ ' if branch.depth else ''}{branch.process.name}{again}"


def _notes(processes: Sequence[Process]) -> list[RenderableType]:
    """Each different note once, with the processes it holds for."""
    holders: dict[str, list[Process]] = {}
    for process in processes:
        for note in process.notes:
            holders.setdefault(note, []).append(process)
    lines: list[RenderableType] = []
    for note, who in holders.items():
        names = ", ".join(process_label(process) for process in who[:3])
        more = f" and {format_count(len(who) - 3)} more" if len(who) > 3 else ""
        where = f" ({names}{more})" if len(processes) > 1 else ""
        lines.append(Padding(Text.assemble(("note ", _WARN), note, (where, _QUIET)), (0, 0, 0, 2)))
    return [Text(), *lines] if lines else []


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=_QUIET)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _with_rest(table: Table, left_out: int, one: str, many: str) -> RenderableType:
    inside = Padding(table, (0, 0, 0, 2))
    if left_out <= 0:
        return inside
    return Group(
        inside, Text(f"  … and {format_count(left_out)} more {one if left_out == 1 else many}", style=_QUIET)
    )


def _bar(value: float, largest: float) -> Text:
    eighths = round(8 * _BAR_CELLS * value / largest) if largest > 0 else 0
    whole, part = divmod(max(eighths, 1 if value > 0 else 0), 8)
    return Text("█" * whole + ("▏▎▍▌▋▊▉"[part - 1] if part else ""), style="cyan")


def _shorten(text: str, most: int) -> str:
    flat = " ".join(text.split())
    return flat if cell_len(flat) <= most else f"{set_cell_size(flat, most - 1)}…"


def _exit_style(ended: Exit | None) -> str:
    return _BAD if exit_is_bad(ended) else "" if ended else _GOOD


def render_event(process: Process, event: Event) -> str:
    """Make the line that reports a warning, a refusal or a failure; empty for what needs no line.

    Args:
        process: Where it happened.
        event: What happened.
    """
    who = process_label(process)
    at = format_seconds(event.time_s)
    live, asked = format_bytes(event.live_bytes), format_bytes(event.requested_bytes)
    match event.kind:
        case "warning":
            return f"{who}: live bytes passed {format_bytes(event.threshold_bytes)} (now {live}) after {at}"
        case "refused":
            limit = format_bytes(event.threshold_bytes)
            return f"{who}: refused {asked}: live bytes are {live} and the limit is {limit}"
        case "out_of_memory":
            return f"{who}: the allocator had no {asked} to give after {at}"
        case _:
            return ""

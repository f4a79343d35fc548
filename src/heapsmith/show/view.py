"""What the page and `top` say about processes, as finished words: a pure function of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from heapsmith.run.history import Curve, History, ProcessKey, key_of
from heapsmith.run.values import Process, SizeClass, SpanClass, Thread
from heapsmith.show.labels import (
    EVENT_LABELS,
    NO_VALUE,
    TOTAL,
    class_label,
    exit_is_bad,
    exit_label,
    percent,
    signed_bytes,
    signed_count,
    span_label,
    thread_label,
)
from heapsmith.show.save import shown_rows
from heapsmith.show.tree import Folded, arrange
from heapsmith.units import format_bytes, format_count, format_seconds

MOST_PROCESSES: Final = 40
ALL_PROCESSES: Final = 400
_TELLING_SHARE: Final = 0.02
"""An ended process whose peak was below this share of the highest is folded until a person asks."""
MOST_THREADS: Final = 300
MOST_EVENTS: Final = 30
ALL_THREADS: Final = "total"
ENDED_THREADS: Final = "ended"

Cell = tuple[float | None, str]
"""What to sort by, and what to read."""


class Entry(msgspec.Struct, frozen=True):
    """A process in the tree; one without a key stands for processes left out."""

    key: str
    name: str
    pid: str
    depth: int
    live: str
    share: float
    state: str
    tone: str
    chosen: bool


class Tile(msgspec.Struct, frozen=True):
    """One number a person looks for first."""

    name: str
    value: str
    note: str
    tone: str = ""
    title: str = ""


class Column(msgspec.Struct, frozen=True):
    """A column of the table; ``title`` says in full what it counts."""

    name: str
    title: str


class Happening(msgspec.Struct, frozen=True):
    """A warning, failure or change of limit."""

    when: str
    what: str
    detail: str
    tone: str


class Strip(msgspec.Struct, frozen=True):
    """The spans of a class as a strip, fullest first; a piece is its share of the strip, its tenth and its words."""

    name: str
    amount: str
    share: float
    pieces: list[tuple[float, int, str]]


class View(msgspec.Struct, frozen=True):
    """Everything a view says about the chosen process."""

    key: str
    processes: list[Entry]
    name: str
    pid: str
    command: str
    state: str
    tone: str
    ended: str
    facts: str
    tiles: list[Tile]
    limit: str
    warn_at: str
    alive: bool
    threads: list[tuple[str, str]]
    thread: str
    columns: list[Column]
    rows: list[list[Cell]]
    total: list[str]
    empty: str
    since: str
    hint: str
    events: list[Happening]
    notes: list[str]
    problem: str
    strips: list[Strip] = []


def encode_key(key: ProcessKey) -> str:
    """Write the name of a process image as one word.

    Example:
        >>> encode_key(ProcessKey(12, 1, 1.5))
        '12-1-1.5'
    """
    return f"{key.pid}-{key.image}-{key.start_time_s!r}"


def decode_key(text: str) -> ProcessKey | None:
    """Read the name of a process image; None for anything else.

    Example:
        >>> decode_key("12-1-1.5"), decode_key("twelve")
        (ProcessKey(pid=12, image=1, start_time_s=1.5), None)
    """
    try:
        pid, image, start = text.split("-", 2)
        return ProcessKey(int(pid), int(image), float(start))
    except ValueError:
        return None


def find_thread(process: Process, choice: str) -> Thread | None:
    """The thread that a choice names; None for the total, and for one that is not (or no longer) there."""
    if choice == ALL_THREADS:
        return None
    return next((thread for thread in process.threads if _choice(thread) == choice), None)


def compute_view(
    history: History,
    process: Process | None,
    counted: Process | None,
    choice: str,
    since_s: float | None,
    problem: str,
    *,
    unfold: bool = False,
) -> View:
    """Say what is to be seen.

    Args:
        history: All processes, latest poll.
        process: The chosen one, as it is.
        counted: The same, as differences from the baseline where there is one.
        choice: The chosen thread.
        since_s: When the baseline was taken, in seconds since the process started.
        problem: Why values may be stale; empty if all is well.
        unfold: Show all processes, not only those that run or were large.
    """
    entries = _entries(history.processes, process, unfold)
    if process is None or counted is None:
        return _nothing(entries, problem)
    curve = history.curve(key_of(process))
    thread = find_thread(counted, choice)
    all_rows = counted.size_classes if thread is None else thread.size_classes
    rows = shown_rows(all_rows)
    every = [row.class_bytes for row in all_rows]
    python = any(row.python_live_blocks for row in process.size_classes)
    return View(
        key=encode_key(key_of(process)),
        processes=entries,
        name=process.name,
        pid=f"pid {process.pid}",
        command=" ".join(process.command),
        state=exit_label(process.exit),
        tone=_tone(process),
        ended="" if process.alive else f"{process.name} {_how_it_ended(process)}",
        facts=_facts(process),
        tiles=_tiles(process, counted, curve, since_s is not None),
        limit="" if process.limit_bytes is None else format_bytes(process.limit_bytes),
        warn_at="" if process.warn_at_bytes is None else format_bytes(process.warn_at_bytes),
        alive=process.alive,
        threads=_threads(process),
        thread=ALL_THREADS if thread is None else choice,
        columns=_columns(python, since_s is not None),
        rows=[_row(row, every, python, since_s is not None) for row in rows],
        total=_sum(counted, thread, rows, python, since_s is not None),
        empty="Nothing was allocated or freed since the reset."
        if since_s is not None
        else "Nothing allocated.",
        since="" if since_s is None else f"counted since {format_seconds(since_s)}",
        hint=""
        if process.alive or len(curve) > 1
        else "It ended too soon for curves: these are its last values.",
        events=_happenings(process),
        notes=process.notes,
        problem=problem,
        strips=_strips(process),
    )


def _strips(process: Process) -> list[Strip]:
    """Say how full the spans are: the largest first, what is free last."""
    widest = max((row.span_bytes for row in process.spans), default=0)
    return [
        Strip(
            name=span_label(row),
            amount=format_bytes(row.span_bytes),
            share=round(row.span_bytes / widest, 4),
            pieces=_pieces(row),
        )
        for row in sorted(process.spans, key=lambda row: (row.kind in ("dirty", "purged"), -row.span_bytes))
        if row.span_bytes
    ]


def _pieces(row: SpanClass) -> list[tuple[float, int, str]]:
    if row.kind != "blocks":
        tenth = {"large": 9, "dirty": 0, "purged": -1}[row.kind]
        runs = f"{format_count(row.spans)} run{'' if row.spans == 1 else 's'}, {format_bytes(row.span_bytes)}"
        return [(1.0, tenth, f"{span_label(row)}: {runs}")]
    pieces = [
        (
            count / row.spans,
            tenth,
            f"{span_label(row)}: {format_count(count)} of {format_count(row.spans)} spans are "
            f"{10 * tenth} to {10 * tenth + 10} % full",
        )
        for tenth, count in enumerate(row.spans_by_occupancy)
        if count
    ]
    return pieces[::-1]


def _nothing(entries: list[Entry], problem: str) -> View:
    return View(
        key="", processes=entries, name="", pid="", command="", state="", tone="", ended="", facts="",
        tiles=[],
        limit="", warn_at="", alive=False, threads=[], thread=ALL_THREADS, columns=[], rows=[], total=[],
        empty="", since="", hint="", events=[], notes=[], problem=problem,
    )  # fmt: skip


def _entries(processes: Sequence[Process], chosen: Process | None, unfold: bool) -> list[Entry]:
    highest = max((process.live_bytes_peak for process in processes), default=0)
    telling = sum(p.alive or p.live_bytes_peak >= _TELLING_SHARE * highest for p in processes)
    heaviest = max((process.live_bytes for process in processes), default=0)
    entries: list[Entry] = []
    for branch in arrange(processes, ALL_PROCESSES if unfold else min(telling, MOST_PROCESSES)):
        if isinstance(branch, Folded):
            more = f"… {format_count(branch.processes)} more"
            entries.append(Entry("", more, "", branch.depth, "", 0.0, "", "", False))
            continue
        process = branch.process
        entries.append(
            Entry(
                key=encode_key(key_of(process)),
                name=process.name,
                pid=str(process.pid),
                depth=branch.depth,
                live=format_bytes(process.live_bytes),
                share=round(max(0, process.live_bytes) / heaviest, 3) if heaviest > 0 else 0.0,
                state=exit_label(process.exit),
                tone=_tone(process),
                chosen=process is chosen,
            )
        )
    return entries


def _tone(process: Process) -> str:
    return "alive" if process.alive else "bad" if exit_is_bad(process.exit) else "ended"


def _how_it_ended(process: Process) -> str:
    label = exit_label(process.exit)
    verb = f"was {label}" if label.startswith("killed") else label
    return f"{verb} after {format_seconds(process.time_s)}. These are its last values."


def _facts(process: Process) -> str:
    words = [f"{process.allocator} malloc"]
    if process.python is not None:
        words.append(f"Python {process.python.version}")
    alive, started = format_count(process.threads_alive), format_count(process.threads_started)
    words.append(f"{alive} of {started} threads alive")
    if process.temporary_ratio is not None:
        words.append(f"{percent(process.temporary_ratio)} of the allocations freed again")
    words.append(f"running for {format_seconds(process.time_s)}" if process.alive else "ended")
    return " · ".join(words)


def _tiles(process: Process, counted: Process, curve: Curve, since: bool) -> list[Tile]:
    bound = process.live_bytes_peak_error_bound
    exactly = f" ±{format_bytes(bound)}" if bound else ""
    peak_s = process.live_bytes_peak_at_s
    when = "" if peak_s is None else f"at {format_seconds(peak_s)}"
    growth = f"{signed_bytes(counted.live_bytes)} since the reset"
    tiles = [
        Tile(
            "Live",
            format_bytes(process.live_bytes),
            growth if since else f"{format_count(process.live_blocks)} blocks",
            title=f"Not yet freed. The program asked for about {format_bytes(process.requested_live_bytes)}",
        ),
        Tile(
            "Peak",
            format_bytes(process.live_bytes_peak),
            f"{when}{exactly}".strip(),
            title="Highest live bytes",
        ),
        Tile(
            "Mapped",
            format_bytes(process.mapped_bytes),
            f"peak {format_bytes(process.mapped_bytes_peak)}",
            title="Anonymous memory that the program mapped itself",
        ),
        Tile(
            "Resident",
            format_bytes(process.resident_bytes) if process.alive else NO_VALUE,
            f"peak {format_bytes(process.resident_bytes_peak)}",
            title="Memory of the process that is backed by physical pages, as the kernel counts it",
        ),
        Tile(
            "Allocations",
            signed_count(counted.allocations) if since else format_count(counted.allocations),
            _rate(process, curve, counted),
            title="Blocks handed out; how many a second; how many of them were freed again",
        ),
    ]
    if process.python is not None:
        python = process.python
        tiles.append(
            Tile(
                "Python objects",
                NO_VALUE if python.live_bytes is None else format_bytes(python.live_bytes),
                python.note or f"arenas {format_bytes(python.arena_bytes)}",
                title="CPython's own small objects, also part of live; arenas are what they lie in",
            )
        )
    if process.committed_bytes is not None:
        tiles += _heap_tiles(process, process.committed_bytes)
    tiles.append(_limit_tile(process))
    failed = process.last_failed_bytes
    last = "" if failed is None else f"the last of {format_bytes(failed)}"
    tiles.append(
        Tile(
            "Failures",
            format_count(counted.failures),
            last if process.failures else "no allocation failed",
            "bad" if process.failures else "",
            title="Allocations that gave NULL: refused for the limit, or by the allocator",
        )
    )
    if process.lost:
        tiles.append(Tile("Lost", format_count(process.lost), "events not counted", "bad"))
    return tiles


def _heap_tiles(process: Process, committed_bytes: int) -> list[Tile]:
    """What the heap itself tells: of the system, and of what lies idle in it."""
    reserved = "" if process.reserved_bytes is None else f"of {format_bytes(process.reserved_bytes)} reserved"
    tiles = [
        Tile("Committed", format_bytes(committed_bytes), reserved, title="Taken by the heap from the system")
    ]
    if process.metadata_bytes is not None:
        tiles[0] = msgspec.structs.replace(
            tiles[0], title=f"{tiles[0].title}, {format_bytes(process.metadata_bytes)} of it metadata"
        )
    if process.free_cached_bytes is not None:
        outside = process.external_fragmentation_ratio
        tiles.append(
            Tile(
                "Free in heap",
                format_bytes(process.free_cached_bytes),
                "" if outside is None else f"{percent(outside)} fragmented",
                title="Committed and free: in the threads' caches, in waiting batches, as warm pages. Fragmented: the "
                "share of the committed bytes that holds nothing live"
                + (
                    ""
                    if process.metadata_bytes is None
                    else f"; metadata {format_bytes(process.metadata_bytes)}"
                ),
            )
        )
    return tiles


def _limit_tile(process: Process) -> Tile:
    warn = "" if process.warn_at_bytes is None else f"warn at {format_bytes(process.warn_at_bytes)}"
    warned = process.warn_at_bytes is not None and process.live_bytes >= process.warn_at_bytes
    if process.limit_bytes is None:
        return Tile("Limit", "none", warn or "not set", "warn" if warned else "")
    used = process.live_bytes / process.limit_bytes if process.limit_bytes else 1.0
    tone = "bad" if used >= 0.95 else "warn" if used >= 0.8 or warned else ""
    return Tile(
        "Limit", format_bytes(process.limit_bytes), f"{percent(min(used, 1.0))} used", tone, title=warn
    )


def _rate(process: Process, curve: Curve, counted: Process) -> str:
    freed = "" if counted.temporary_ratio is None else f"{percent(counted.temporary_ratio)} freed"
    if not process.alive or len(curve) < 2:
        return freed
    rate = float(curve.rates("allocations")[-1])
    return f"{format_count(rate)} per second" if rate == rate else freed


def _choice(thread: Thread) -> str:
    return ENDED_THREADS if thread.tid is None else str(thread.tid)


def _threads(process: Process) -> list[tuple[str, str]]:
    busiest = sorted(process.threads, key=lambda thread: (not thread.alive, -thread.allocations))
    choices = [
        (_choice(thread), f"{thread_label(thread)}  ({format_bytes(thread.live_bytes)})")
        for thread in busiest[:MOST_THREADS]
    ]
    return [(ALL_THREADS, f"{TOTAL}  ({format_bytes(process.live_bytes)})"), *choices]


def _columns(python: bool, since: bool) -> list[Column]:
    change = "change of " if since else ""
    delta = "Δ " if since else ""
    columns = [
        Column("Size class", "Largest usable bytes of the blocks in this row"),
        Column(f"{delta}Live", f"{change}live bytes: usable bytes of the live blocks"),
        Column(f"{delta}Peak", "Highest live bytes" + (" above those at the reset" if since else "")),
        Column(f"{delta}Blocks", f"{change}live blocks: allocated and not yet freed"),
        Column("Allocations", "Allocation count: blocks handed out"),
        Column("Frees", "Deallocation count: blocks taken back"),
        Column("Remote", "Remote frees: of the frees, those of another thread's blocks (estimated)"),
    ]
    if python:
        columns.append(Column("Python's", f"{change}live bytes of CPython's own objects, part of live"))
    return columns


def _row(row: SizeClass, every: Sequence[int | None], python: bool, since: bool) -> list[Cell]:
    size, count = (signed_bytes, signed_count) if since else (format_bytes, format_count)
    cells: list[Cell] = [
        (row.class_bytes, class_label(row.class_bytes, every)),
        (row.live_bytes, size(row.live_bytes)),
        (row.live_bytes_peak, size(row.live_bytes_peak)),
        (row.live_blocks, count(row.live_blocks)),
        (row.allocations, format_count(row.allocations)),
        (row.frees, format_count(row.frees)),
        (row.remote_frees, format_count(row.remote_frees)),
    ]
    if python:
        cells.append((row.python_live_bytes, size(row.python_live_bytes)))
    return cells


def _sum(
    counted: Process, thread: Thread | None, rows: Sequence[SizeClass], python: bool, since: bool
) -> list[str]:
    size, count = (signed_bytes, signed_count) if since else (format_bytes, format_count)
    cells = [
        "SUM",
        size(sum(row.live_bytes for row in rows)),
        # Peaks of different moments are never added: the process has one of its own, a thread has none.
        size(counted.live_bytes_peak) if thread is None else NO_VALUE,
        count(sum(row.live_blocks for row in rows)),
        format_count(sum(row.allocations for row in rows)),
        format_count(sum(row.frees for row in rows)),
        format_count(sum(row.remote_frees for row in rows)),
    ]
    if python:
        cells.append(size(sum(row.python_live_bytes for row in rows)))
    return cells


def _happenings(process: Process) -> list[Happening]:
    happenings: list[Happening] = []
    for event in process.events[: -MOST_EVENTS - 1 : -1]:
        asked = f"asked for {format_bytes(event.requested_bytes)}" if event.requested_bytes else ""
        where = f"{format_bytes(event.live_bytes)} live, threshold {format_bytes(event.threshold_bytes)}"
        happenings.append(
            Happening(
                when=format_seconds(event.time_s),
                what=EVENT_LABELS.get(event.kind, event.kind),
                detail=f"{asked}; {where}" if asked else where,
                tone={"warning": "warn", "limit_changed": ""}.get(event.kind, "bad"),
            )
        )
    return happenings

"""A plan: the calls of one recorded process, made ready for the player (`native/replay/plan.h` says the layout)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from heapsmith.errors import TraceError
from heapsmith.lab.replay import compiling
from heapsmith.lab.replay.speed import MAX, Speed
from heapsmith.run.limits import LimitEffect, read_bounds
from heapsmith.trace import IS_BORN, EventBatch, Operation, OperationFlag, Trace, TraceProcess
from heapsmith.units import format_count

_MAGIC: Final = 0x314E414C50524548
_HEADER: Final = np.dtype(
    [
        (name, "<u8")
        for name in (
            "magic",
            "thread_count",
            "segment_count",
            "sample_count",
            "slot_count",
            "rest_count",
            "window",
            "sync_events",
            "operations",
            "threads_at",
            "segments_at",
            "samples_at",
        )
    ]
)
_THREAD: Final = np.dtype([("first_order", "<u8"), ("first_segment", "<u4"), ("ends", "<u4")])
_SEGMENT: Final = np.dtype([("words_at", "<u8"), ("word_count", "<u4"), ("next", "<u4")])
_NO_SEGMENT: Final = 0xFFFFFFFF
_NOT_OURS: Final = 0xFFFFFFFF
_POINTS: Final = 2000
_WINDOW: Final = (2048, 32768)
_FEWEST_OPERATIONS: Final = 1000
_PAGE_BYTES: Final = 4096


@dataclass(frozen=True)
class Plan:
    """A plan on disk, and what is known of it.

    Attributes:
        path: The file.
        source: The trace it was made of.
        process: Which process of the trace.
        events: Of that process, of every kind: what orders count.
        operations: Calls of malloc's family that are replayed.
        threads: How many take part.
        live_bytes_peak: Requested, exact.
        peak_order: Where in the events that peak is.
        orders: ``(n,)`` places among the events, rising.
        live_bytes: ``(n,)`` requested live bytes at those places.
        times_s: ``(n,)`` recorded times of those places, since the process's first event.
        duration_s: From the first to the last event, as recorded.
        speed: The pace that the plan keeps.
        notes: What a person has to know of it, as clauses.
    """

    path: Path
    source: Path
    process: int
    events: int
    operations: int
    threads: int
    live_bytes_peak: int
    peak_order: int
    orders: NDArray[np.int64]
    live_bytes: NDArray[np.int64]
    times_s: NDArray[np.float64]
    duration_s: float
    speed: Speed
    notes: tuple[str, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the file and the folder it has for itself."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass(frozen=True)
class Part:
    """A part of a process's events, from one to before another; all of them by default.

    What lives at its beginning is allocated in the events before, from which all else is left out.
    """

    first: int = 0
    behind: int | None = None


def available_bytes() -> int:
    """Return what this process may still take: of the machine, or of what its container and its limits leave.

    Example:
        >>> available_bytes() > 0
        True
    """
    hard = (bound for bound in read_bounds("self") if bound.effect is not LimitEffect.THROTTLE)
    return min(bound.available_bytes for bound in hard)


def choose_process(trace: Trace, pid: int | None = None) -> TraceProcess:
    """Choose the process to replay: the one with that number, or the one with the most events.

    Raises:
        TraceError: There is no such process, or nothing was recorded at all.
    """
    if not trace.processes:
        raise TraceError(f"{trace.path} holds no process", "nothing was recorded", "record it again")
    if pid is None:
        return max(trace.processes, key=lambda process: process.events)
    found = [process for process in trace.processes if process.start.pid == pid]
    if not found:
        known = ", ".join(str(process.start.pid) for process in trace.processes)
        raise TraceError(f"{trace.path} holds no process {pid}", hint=f"it holds {known}")
    return max(found, key=lambda process: process.events)


def check_replayable(trace: Trace, process: TraceProcess) -> list[str]:
    """Refuse what cannot be replayed, and say what is missing from the rest.

    Returns:
        Notes: clauses with their consequence.

    Raises:
        TraceError: The trace is sampled, or holds no events.
    """
    if trace.manifest.sample_every_bytes is not None:
        raise TraceError(
            f"{trace.path} cannot be replayed",
            "only samples of its allocations were recorded",
            "record it again without --stacks sampled",
        )
    if process.events == 0:
        raise TraceError(
            f"{trace.path} cannot be replayed", f"no event of process {process.start.pid} was recorded"
        )
    notes: list[str] = []
    if len(trace.processes) > 1:
        others = len(trace.processes) - 1
        share = process.events / max(1, trace.events)
        notes.append(
            f"process {process.start.pid} ({process.start.name}) is replayed, which has {share:.0%} of the events;"
            f" {others} other process{'es are' if others > 1 else ' is'} left out"
        )
    if process.dropped_events:
        share = process.dropped_events / (process.events + process.dropped_events)
        notes.append(
            f"{format_count(process.dropped_events)} events ({share:.2%}) were dropped when it was recorded: blocks whose"
            " free is missing stay live, so footprints are upper bounds; record again with --on-full wait"
        )
    if trace.damage is not None:
        notes.append(
            f"the file is damaged from byte {trace.damage.offset_bytes} on ({trace.damage.reason}): what is before is used"
        )
    elif trace.end is None:
        notes.append("the recording did not end well: the program's last events may be missing")
    if process.start.forked_from is not None:
        notes.append("the process was forked: blocks of its parent are not replayed")
    return notes


def read_calls(
    trace: Trace, process: int, part: Part, *, python_objects: bool, first_event: int = 0
) -> Iterator[tuple[EventBatch, NDArray[np.uint8]]]:
    """Yield the batches of a process with what each event is to the player (`compiling.NOTHING`: nothing).

    Args:
        trace: The trace.
        process: Index of the process.
        part: Only these events.
        python_objects: Blocks out of CPython's own arenas are malloc's too.
        first_event: Batches before the one that begins here are left out.
    """
    of_operation = np.full(256, compiling.NOTHING, np.uint8)
    flags = (0, int(OperationFlag.PYTHON)) if python_objects else (0,)
    for flag in flags:
        of_operation[Operation.ALLOCATE | flag] = compiling.ALLOCATE
        of_operation[Operation.ALLOCATE_ZEROED | flag] = compiling.ZEROED
        of_operation[Operation.ALLOCATE_ALIGNED | flag] = compiling.ALIGNED
        of_operation[Operation.FREE | flag] = compiling.FREE
        of_operation[Operation.REALLOCATE_MOVED | flag] = compiling.REALLOCATE
        of_operation[Operation.REALLOCATE_IN_PLACE | flag] = compiling.REALLOCATE
    for batch in trace.batches(process, first_event):
        behind = batch.first_event + len(batch)
        if part.behind is not None and batch.first_event >= part.behind:
            return
        kinds = of_operation[batch.operation]
        if part.behind is not None and behind > part.behind:
            kinds[part.behind - batch.first_event :] = compiling.NOTHING
        yield batch, kinds


def make_plan(
    trace: Trace,
    *,
    speed: Speed = MAX,
    pid: int | None = None,
    python_objects: bool = False,
    part: Part | None = None,
    perturbed_share: float = 0.0,
    folder: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Plan:
    """Make the plan of a trace, a batch at a time: neither trace nor plan need fit into memory.

    Args:
        trace: The trace.
        speed: The pace to keep.
        pid: The process to replay; the one with the most events when left out.
        python_objects: Blocks out of CPython's own arenas are malloc's too (as with ``PYTHONMALLOC=malloc``).
        part: Only these events.
        perturbed_share: So many of the blocks get another size, up to a quarter smaller or larger: another day's work.
        folder: Where the plan goes; a new folder in the temporary directory when left out.
        progress: Told what share is done.

    Raises:
        TraceError: The trace cannot be replayed.
    """
    process = choose_process(trace, pid)
    notes = check_replayable(trace, process)
    where = Path(tempfile.mkdtemp(prefix="heapsmith-replay-", dir=folder))
    try:
        maker = _Maker(
            trace, process, speed, python_objects, part or Part(), perturbed_share, where, progress
        )
        return maker.make(notes)
    except BaseException as error:
        shutil.rmtree(where, ignore_errors=True)
        if isinstance(error, OSError):
            raise TraceError(
                f"the plan of {trace.path} cannot be written", error.strerror or str(error),
                "TMPDIR says where it goes; it needs about 12 bytes per event",
            ) from error  # fmt: skip
        raise


class _Maker:
    def __init__(
        self,
        trace: Trace,
        process: TraceProcess,
        speed: Speed,
        python_objects: bool,
        part: Part,
        perturbed_share: float,
        folder: Path,
        progress: Callable[[float], None],
    ) -> None:
        self._trace = trace
        self._process = process
        self._speed = speed
        self._python_objects = python_objects
        self._part = part
        self._perturbed_share = perturbed_share
        self._folder = folder
        self._progress = progress
        events = process.events
        self._window = int(np.clip(events // 64, *_WINDOW))
        self._dense = np.zeros(0, np.uint32)
        self._dies_early = np.zeros(0, np.uint8)

    def _calls(self, pass_number: int) -> Iterator[tuple[EventBatch, NDArray[np.uint8], NDArray[np.uint32]]]:
        for batch, kinds in read_calls(
            self._trace, self._process.index, self._part, python_objects=self._python_objects
        ):
            before = self._part.first - batch.first_event
            if before > 0 and pass_number > 0:
                survivors = batch.born[:before] >= 0
                survivors[survivors] = self._dies_early[batch.born[:before][survivors]] == 0
                kinds[:before][~survivors] = compiling.NOTHING
            yield batch, kinds, self._number(batch.thread)
            self._progress((pass_number + (batch.first_event + len(batch)) / self._process.events) / 2)

    def _number(self, thread: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Number threads as they come: traces may number them with gaps."""
        most = int(thread.max(initial=0))
        if most >= len(self._dense):
            more = np.full(most + 1 - len(self._dense), _NOT_OURS, np.uint32)
            self._dense = np.concatenate([self._dense, more])
        unseen = np.unique(thread[self._dense[thread] == _NOT_OURS])
        if len(unseen):
            known = int(np.count_nonzero(self._dense != _NOT_OURS))
            self._dense[unseen] = known + np.arange(len(unseen), dtype=np.uint32)
        return self._dense[thread]

    def _column(self, name: str, dtype: Any, length: int, fill: int) -> NDArray[Any]:
        """One value per object: in memory, or on disk where that would take too much of it."""
        nbytes = length * np.dtype(dtype).itemsize
        if nbytes < available_bytes() // 16:
            return np.full(length, fill, dtype)
        column = np.lib.format.open_memmap(self._folder / name, "w+", dtype, (length,))
        column[:] = fill
        return column

    def make(self, notes: list[str]) -> Plan:
        objects = sum(
            int(np.count_nonzero(IS_BORN[batch.operation]))
            for batch in self._trace.batches(self._process.index)
        )
        owners = self._column("owners", np.uint32, objects, 0x7FFFFFFF)
        if self._part.first:
            self._dies_early = self._column("early", np.uint8, objects, 0)
        unknown = births = unsized = 0
        for batch, kinds, thread in self._calls(0):
            compiling.find_owners(kinds, thread, batch.born, batch.died, owners)
            ours = kinds != compiling.NOTHING
            before = self._part.first - batch.first_event
            if before > 0:
                dying = batch.died[:before]
                self._dies_early[dying[dying >= 0]] = 1
            unknown += int(np.count_nonzero(ours & (batch.died == -2)))
            of_born = ours & (batch.born >= 0)
            births += int(np.count_nonzero(of_born))
            unsized += int(np.count_nonzero(of_born & (batch.size_bytes == 0)))
        if births and unsized == births:
            raise TraceError(
                f"{self._trace.path} cannot be replayed",
                "it has no sizes",
                "record it again with this heapsmith",
            )
        if births < _FEWEST_OPERATIONS:
            raise TraceError(
                f"{self._trace.path} is too short to tell anything",
                f"it has {births} allocations",
                f"record at least {_FEWEST_OPERATIONS:,} of them: a longer run, or more of its work",
            )
        if unknown:
            notes.append(f"{format_count(unknown)} frees of blocks from before the recording are left out")
        return self._write(owners, objects, notes)

    def _write(self, owners: NDArray[np.uint32], objects: int, notes: list[str]) -> Plan:
        threads = int(np.count_nonzero(self._dense != _NOT_OURS))
        slot_of = self._column("slots", np.uint32, objects, _NOT_OURS)
        sizes = self._column("sizes", np.uint64, objects, 0)
        state = np.array([0, _NOT_OURS, _NOT_OURS, self._window], np.int64)
        freed_at = np.zeros(1 << 16, np.int64)
        following = np.zeros(1 << 16, np.uint32)
        heads = np.full(threads, _NOT_OURS, np.uint32)
        synced_at = np.full(threads, -1, np.int64)
        calls_since = np.zeros(threads, np.int64)
        paced_at = np.zeros(threads, np.int64)
        rest = np.array([0, -1, 0, 0], np.int64)
        pace = np.array([self._speed.factor, self._speed.rests_from_ns], np.float64)
        live_state = np.zeros(3, np.int64)
        every = max(1, self._process.events // _POINTS)
        orders: list[NDArray[np.int64]] = []
        live: list[NDArray[np.int64]] = []
        times: list[NDArray[np.int64]] = []
        segments: list[tuple[int, int, int, int]] = []
        first_orders = np.full(threads, -1, np.int64)
        ends = np.zeros(threads, np.uint32)
        operations = 0
        started_ns = ended_ns = None
        path = self._folder / "plan"
        with path.open("wb") as file:
            file.write(b"\0" * _PAGE_BYTES)
            for batch, kinds, thread in self._calls(1):
                started_ns = int(batch.time_ns[0]) if started_ns is None else started_ns
                ended_ns = int(batch.time_ns[-1])
                room = int(state[0]) + len(batch) + 1
                if room > len(following):
                    freed_at = np.concatenate([freed_at, np.zeros(room, np.int64)])
                    following = np.concatenate([following, np.zeros(room, np.uint32)])
                per_thread = np.bincount(thread[kinds != compiling.NOTHING], minlength=threads)
                # Two more for the rest that the first event of a thread may meet.
                begins = np.concatenate([[0], np.cumsum(per_thread * compiling.MOST_WORDS + 2)]).astype(
                    np.int64
                )
                words = np.empty(int(begins[-1]), np.uint64)
                sizes_now = self._perturb(batch)
                cursor = begins[:-1].copy()
                operations += compiling.write_words(
                    kinds, thread, batch.born, batch.died, sizes_now, batch.alignment,
                    batch.time_ns - started_ns, batch.first_event, owners, slot_of, state, freed_at, following,
                    heads, synced_at, calls_since, paced_at, pace, rest, cursor, words,
                )  # fmt: skip
                for number in np.flatnonzero(cursor > begins[:-1]):
                    written = words[begins[number] : cursor[number]]
                    if first_orders[number] < 0:
                        first_orders[number] = int(written[0]) >> 4
                    segments.append((int(number), file.tell(), len(written), _NO_SEGMENT))
                    file.write(written.tobytes())
                at, value = (
                    np.empty(len(batch) // every + 1, np.int64),
                    np.empty(len(batch) // every + 1, np.int64),
                )
                points = compiling.follow_live(
                    kinds, batch.born, batch.died, sizes_now, batch.first_event, sizes, live_state, every, at,
                    value,
                )  # fmt: skip
                orders.append(at[:points])
                live.append(value[:points])
                times.append(batch.time_ns[at[:points] - batch.first_event] - started_ns)
                ended = batch.operation == Operation.THREAD_END
                ends[thread[ended]] = 1
            all_orders = np.concatenate(orders)
            if operations == 0:
                raise TraceError(f"{self._trace.path} cannot be replayed", "it holds no call of malloc")
            peak_order = int(live_state[2])
            self._finish(
                file, segments, first_orders, ends, all_orders, peak_order, state, int(rest[0]), operations
            )
        for leftover in ("owners", "slots", "sizes", "early"):
            (self._folder / leftover).unlink(missing_ok=True)
        return Plan(
            path=path,
            source=self._trace.path,
            process=self._process.index,
            events=self._process.events,
            operations=operations,
            threads=int(np.count_nonzero(first_orders >= 0)),
            live_bytes_peak=int(live_state[1]),
            peak_order=peak_order,
            orders=all_orders,
            live_bytes=np.concatenate(live),
            times_s=np.concatenate(times) / 1e9,
            duration_s=((ended_ns or 0) - (started_ns or 0)) / 1e9,
            speed=self._speed,
            notes=tuple(notes),
        )

    def _perturb(self, batch: EventBatch) -> NDArray[np.uint64]:
        """Change the sizes of some blocks, the same ones each time."""
        if not self._perturbed_share:
            return batch.size_bytes
        random = np.random.default_rng(batch.first_event)
        factor = np.where(
            random.random(len(batch)) < self._perturbed_share, random.uniform(0.75, 1.25, len(batch)), 1.0
        )
        return np.where(batch.size_bytes > 0, np.maximum(1, batch.size_bytes * factor), 0).astype(np.uint64)

    def _finish(
        self,
        file: Any,
        segments: list[tuple[int, int, int, int]],
        first_orders: NDArray[np.int64],
        ends: NDArray[np.uint32],
        orders: NDArray[np.int64],
        peak_order: int,
        state: NDArray[np.int64],
        rests: int,
        operations: int,
    ) -> None:
        """Write the tables behind the words, and the header before them."""
        taking_part = np.flatnonzero(first_orders >= 0)
        main = self._main_thread(first_orders)
        by_start = sorted(
            taking_part.tolist(), key=lambda number: (number != main, int(first_orders[number]))
        )
        place = {number: index for index, number in enumerate(by_start)}
        chain = np.zeros(len(segments), _SEGMENT)
        latest: dict[int, int] = {}
        table = np.zeros(len(by_start), _THREAD)
        for index, (number, words_at, count, _) in enumerate(segments):
            chain[index] = words_at, count, _NO_SEGMENT
            if number in latest:
                chain[latest[number]]["next"] = index
            else:
                # The main thread is there from the beginning.
                first = 0 if number == main else int(first_orders[number])
                table[place[number]] = first, index, ends[number]
            latest[number] = index
        samples = np.unique(np.append(orders, peak_order)).astype("<u8")
        offsets: list[int] = []
        for part in (table, chain, samples):
            offsets.append(file.tell())
            file.write(part.tobytes())
        header = np.zeros(1, _HEADER)
        header[0] = (
            _MAGIC, len(table), len(chain), len(samples), int(state[0]), rests, self._window,
            compiling.SYNC_EVENTS, operations, *offsets,
        )  # fmt: skip
        file.seek(0)
        file.write(header.tobytes())

    def _main_thread(self, first_orders: NDArray[np.int64]) -> int:
        """The thread whose number is the process's; in doubt the one that came first."""
        pid = self._process.start.pid
        for index, thread in self._process.threads.items():
            if thread.tid == pid and index < len(self._dense) and self._dense[index] != _NOT_OURS:
                number = int(self._dense[index])
                if first_orders[number] >= 0:
                    return number
        known = np.where(first_orders >= 0, first_orders, np.iinfo(np.int64).max)
        return int(np.argmin(known))

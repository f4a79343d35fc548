"""One pass over the events of a process: the state that grows with what lives, and the figures made of it at the end.

An allocation of `s` bytes is in a sample with the probability 1 - exp(-s / mean) and stands for 1 / that many of its kind.

Heap bytes are requested bytes. Anonymous mappings that the program made itself are counted apart: CPython's arenas are
mappings, and the objects in them are blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.trace.batch import BATCH_HEADER, decode_batch
from heapsmith.trace.columns import decode_column, split_column
from heapsmith.trace.layout import OPERATION_MASK, Operation
from heapsmith.trace.process_figures import (
    Floats,
    Integers,
    Lifetimes,
    Moments,
    Places,
    ProcessFigures,
    SizeClassFigures,
    ThreadFigures,
    TimeLine,
)
from heapsmith.trace.reader import Trace, TraceProcess

_SEVERAL: Final = 1.959964
"""Standard errors on each side of a 95 % interval."""
_LATEST_NS: Final = 1 << 62
"""146 years: a later time is damage."""
_LARGEST_THREADS: Final = 1 << 22
_LARGEST_GAP: Final = 1 << 28
_LINE_BYTES: Final = 64
_DISTINCT_SIZES: Final = 200_000

Progress = Callable[[int], None]


def read_end_ns(trace: Trace, process: TraceProcess) -> int:
    """Answer when a process ended, or its last event, in ns since the start of the trace; its start where it has none."""
    started_ns = process.start.started_ns
    ended_ns = max(started_ns, process.end.ended_ns if process.end else 0)
    try:
        payload = trace.first_payload(process.index, last=True)
        if payload is None:
            return ended_ns
        header = np.frombuffer(payload, BATCH_HEADER, 1)[0]
        offset = BATCH_HEADER.itemsize
        for _ in range(2):
            *_, offset = split_column(payload, offset)
        ticks, _ = decode_column(payload, offset)
    except ValueError:
        return ended_ns
    last_ns = (int(header["base_tick"]) + int(ticks.sum())) * trace.manifest.tick_ns
    return max(ended_ns, last_ns) if last_ns < _LATEST_NS else ended_ns


def _start_of_events_ns(trace: Trace, process: TraceProcess) -> int:
    try:
        payload = trace.first_payload(process.index)
        if payload is not None:
            return int(np.frombuffer(payload, BATCH_HEADER, 1)[0]["base_tick"]) * trace.manifest.tick_ns
    except ValueError:
        pass
    return process.start.started_ns


def stacks_are_sampled(trace: Trace) -> bool:
    """Whether all events were recorded and a sample of them has stacks: then totals are exact and places estimates.

    Where only a sample was recorded at all, each of its allocations has a stack.
    """
    if trace.manifest.sample_every_bytes is None:
        return False
    for process in trace.processes:
        try:
            payload = trace.first_payload(process.index)
            if payload is None:
                continue
            batch = decode_batch(
                payload, process=process.index, first_event=0, tick_ns=trace.manifest.tick_ns
            )
        except ValueError:
            continue
        born = (batch.born >= 0) & (batch.operation & OPERATION_MASK != Operation.MAP)
        if born.any():
            return bool((batch.stack[born] == 0).any())
    return False


class EventPass:
    """The state of one pass, and its room: arrays that grow between batches, never within."""

    def __init__(
        self,
        trace: Trace,
        process: TraceProcess,
        moments_ns: Sequence[int],
        class_bytes: Sequence[int | None],
        bins: int,
        ending_stacks: NDArray[np.bool_] | None = None,
    ) -> None:
        from heapsmith.trace import kernel

        self._k = kernel
        self._trace, self._process = trace, process
        self._tick_ns = trace.manifest.tick_ns
        self._mean = trace.manifest.sample_every_bytes
        self._stacks_sampled = stacks_are_sampled(trace)
        self._class_bytes = list(class_bytes)
        if self._class_bytes[-1:] != [None]:
            self._class_bytes.append(None)
        self._bounds = np.array([size for size in self._class_bytes if size is not None], np.float64)
        end_ns = read_end_ns(trace, process)
        self._start_ns = min(process.start.started_ns, _start_of_events_ns(trace, process))
        self._end_ns = max(end_ns, self._start_ns)
        self._bins_end_ns = np.linspace(self._start_ns, self._end_ns, bins + 1)[1:]
        self._edges = np.ceil(self._bins_end_ns / self._tick_ns).astype(np.int64)
        self._moments_ns = list(moments_ns)
        self.numbers = np.zeros(kernel.N_COUNT, np.int64)
        self.numbers[kernel.N_EPOCH] = self.numbers[kernel.N_INTERVAL] = 1
        self.levels = np.zeros(kernel.F_COUNT)
        self.keys = _zeros((64, kernel.K_COUNT))
        self.threads = np.zeros((0, kernel.T_COUNT))
        self.classes = np.zeros((len(self._class_bytes), kernel.C_COUNT))
        self.lifetimes = np.zeros((64, kernel.L_COUNT))
        self.bins = np.zeros((bins, kernel.B_COUNT))
        self.dirty = np.zeros(64, np.int64)
        self.slots = np.zeros((0, kernel.S_COUNT))
        self.sampled_slots = np.zeros((0, 2))
        self.free_slots = np.zeros(0, np.int32)
        self.page_of = np.zeros(0, np.int32)
        self.pages = np.zeros((0, kernel.PAGE), np.int32)
        self.page_live = np.zeros(0, np.int32)
        self.free_pages = np.zeros(0, np.int32)
        stacks = len(trace.stacks)
        self._key_of = np.full(2 * stacks, -1, np.int64)
        self._stack_of_key = np.zeros(64, np.int64)
        self._key_count = 0
        self._sizes: dict[tuple[int, int], int] = {}
        self._size_rows: list[NDArray[np.int64]] = []
        self._moment_rows: list[tuple[Integers, Floats]] = []
        self._ending_stacks = ending_stacks if ending_stacks is not None else np.zeros(stacks, np.bool_)
        self._watches_ending = bool(self._ending_stacks.any())
        self._at_ending: tuple[Floats, Floats, Floats, Floats, float] | None = None
        """Of keys, classes and threads what was live, the levels, and the time in s."""

    def run(self, on_events: Progress | None) -> ProcessFigures:
        """Go through all events; what is damaged ends the pass, and the figures say so."""
        k = self._k
        unreadable = ""
        try:
            for payload in self._trace.payloads(self._process.index):
                events = self._take(payload)
                self.numbers[k.N_EVENTS_BEFORE] += events
                if on_events is not None:
                    on_events(events)
        except (ValueError, IndexError, OverflowError) as error:
            unreadable = str(error)
        while len(self._moment_rows) < len(self._moments_ns):
            self._end_interval()
        return self._figures(unreadable)

    def _take(self, payload: memoryview) -> int:
        k = self._k
        header = np.frombuffer(payload, BATCH_HEADER, 1)[0]
        offset = BATCH_HEADER.itemsize
        (operations, *wide_operations), offset = _split(payload, offset)
        columns: list[tuple[NDArray[Any], ...]] = []
        for _ in range(4):
            split, offset = _split(payload, offset)
            columns.append(split)
        tables: list[NDArray[np.uint64]] = []
        for _ in range(3):
            values, offset = decode_column(payload, offset)
            tables.append(values)
        split, offset = _split(payload, offset)
        columns.append(split)
        stack_table, offset = decode_column(payload, offset)
        count = int(header["events"])
        if any(len(w) for w in wide_operations) or not (
            len(operations) == len(columns[k.THREADS][0]) == len(columns[k.TICKS][0]) == count
        ):
            raise ValueError("the columns of a batch do not fit each other")
        sizes, slacks, alignments = tables
        if not len(sizes) == len(slacks) == len(alignments):
            raise ValueError("the columns of a batch do not fit each other")
        births = len(columns[k.SHAPES][0])
        first_object = int(header["first_object"])
        if first_object > int(self.numbers[k.N_OBJECT]) + _LARGEST_GAP:
            raise ValueError("objects are missing before it")
        if int(header["base_tick"]) * self._tick_ns >= _LATEST_NS:
            raise ValueError("its time is beyond all times")
        if first_object < int(self.numbers[k.N_OBJECT]):
            raise ValueError("objects are numbered twice")
        self.numbers[k.N_OBJECT] = first_object
        self.numbers[k.N_TICK] = int(header["base_tick"])
        self.numbers[k.N_EVENT] = self.numbers[k.N_DEATH] = self.numbers[k.N_BIRTH] = 0
        wide = self._join_wide(columns)
        self._make_room(births, first_object, _largest(columns[k.THREADS]))
        shapes = self._weigh(sizes, slacks)
        rows = self._keys_of(stack_table, operations)
        without = np.flatnonzero(stack_table == 0) if len(stack_table) else np.zeros(1, np.int64)
        no_stack_row = int(without[0]) if len(without) else -1
        codes = [column[0] for column in columns]
        while True:
            place = len(self._moment_rows)
            stop = self._moments_ns[place] if place < len(self._moments_ns) else None
            result = k.run(
                operations, *codes, wide, shapes, rows, no_stack_row,
                self.numbers, self.levels, self.keys, self.threads, self.classes, self.lifetimes, self.bins,
                self._edges, self.dirty, self.slots, self.sampled_slots, self.free_slots,
                self.page_of, self.pages, self.page_live, self.free_pages,
                np.iinfo(np.int64).max if stop is None else -(-stop // self._tick_ns), self._tick_ns,
                self._stacks_sampled, self._watches_ending,
            )  # fmt: skip
            if result == k.DAMAGED:
                raise ValueError("the columns of a batch do not fit each other")
            if result == k.DONE:
                break
            if result == k.ENDING:
                self._note_ending()
            else:
                self._end_interval()
        self._note_sizes(sizes, slacks, shapes[:, k.H_COUNTED].astype(np.int64))
        blocks = shapes[:, k.H_COUNTED] - shapes[:, k.H_MAPS]
        for column, each in ((k.C_ALLOCATIONS, k.H_BLOCKS), (k.C_BYTES, k.H_BYTES)):
            self.classes[:, column] += np.bincount(
                shapes[:, k.H_CLASS].astype(np.int64), blocks * shapes[:, each], len(self.classes)
            )
        return count

    def _join_wide(self, columns: list[tuple[NDArray[Any], ...]]) -> Integers:
        """Put the wider values of the columns behind each other, and say where each width of each column begins."""
        at, parts = 0, list[NDArray[Any]]()
        for column, (codes, *widths) in enumerate(columns):
            is_wide = any(len(values) for values in widths)
            for width, values in enumerate(widths):
                if is_wide and np.count_nonzero(codes == 253 + width) != len(values):
                    raise ValueError("the streams of a column do not fit each other")
                self.numbers[self._k.N_WIDE + 3 * column + width] = at
                at += len(values)
                parts.append(values)
            if not is_wide and len(codes) and int(codes.max()) >= 253:
                raise ValueError("the streams of a column do not fit each other")
        return np.concatenate(parts).astype(np.int64)

    def _weigh(self, sizes: NDArray[np.uint64], slacks: NDArray[np.uint64]) -> Floats:
        k = self._k
        size = sizes.astype(np.float64)
        usable = size + slacks.astype(np.float64)
        shapes = np.zeros((len(sizes), k.H_COUNT))
        blocks = np.ones(len(sizes))
        if self._mean is not None:
            share = -np.expm1(-np.maximum(size, 1.0) / self._mean)
            blocks = 1 / share
            shapes[:, k.H_VARIANCE] = size * size * (1 - share) / (share * share)
        shapes[:, k.H_STACK_BLOCKS] = blocks
        shapes[:, k.H_STACK_BYTES] = size * blocks
        shapes[:, k.H_BLOCKS] = 1.0 if self._stacks_sampled else blocks
        shapes[:, k.H_BYTES] = size * shapes[:, k.H_BLOCKS]
        shapes[:, k.H_USABLE] = usable * shapes[:, k.H_BLOCKS]
        shapes[:, k.H_CLASS] = np.searchsorted(self._bounds, usable)
        return shapes

    def _keys_of(self, table: NDArray[np.uint64], operations: NDArray[np.uint8]) -> Integers:
        k = self._k
        stacks = len(self._trace.stacks)
        numbers = self._rows_of(table)
        rows = np.empty((len(numbers), k.R_COUNT), np.int64)
        rows[:, k.R_HEAP] = rows[:, k.R_MAPPED] = self._number(numbers)
        rows[:, k.R_ENDING] = self._ending_stacks[numbers]
        if (operations & OPERATION_MASK == Operation.MAP).any():
            rows[:, k.R_MAPPED] = self._number(numbers + stacks)
        if self._key_count > len(self.keys):
            room = max(self._key_count, 2 * len(self.keys))
            self.keys = _grown(self.keys, room)
            self.dirty = _grown(self.dirty, room)
        return rows

    def _rows_of(self, table: NDArray[np.uint64]) -> Integers:
        rows = table.astype(np.int64) if len(table) else np.zeros(1, np.int64)
        rows[(rows < 0) | (rows >= len(self._trace.stacks))] = 0
        return rows

    def _note_ending(self) -> None:
        """Keep what was live when the interpreter began to take itself down."""
        k = self._k
        self._watches_ending = False
        keys = self.keys[:, [k.K_LIVE_BYTES, k.K_LIVE_BLOCKS, k.K_LIVE_VARIANCE]].copy()
        classes = self.classes[:, [k.C_LIVE_BLOCKS, k.C_LIVE_BYTES]].copy()
        time_s = float(self.numbers[k.N_TICK]) * self._tick_ns * 1e-9
        self._at_ending = keys, classes, self.threads[:, k.T_LIVE_BYTES].copy(), self.levels.copy(), time_s

    def _number(self, rows: Integers) -> Integers:
        new = np.unique(rows[self._key_of[rows] < 0])
        if len(new):
            end = self._key_count + len(new)
            self._key_of[new] = np.arange(self._key_count, end)
            if end > len(self._stack_of_key):
                self._stack_of_key = _grown(self._stack_of_key, max(end, 2 * len(self._stack_of_key)))
            self._stack_of_key[self._key_count : end] = new
            self._key_count = end
        return self._key_of[rows]

    def _make_room(self, births: int, first_object: int, threads: int) -> None:
        k = self._k
        if threads > _LARGEST_THREADS:
            raise ValueError("a thread has a number that no thread has")
        if threads > len(self.threads):
            before = len(self.threads)
            self.threads = _grown(self.threads, max(threads, 2 * before))
            self.threads[before:, k.T_LAST_OBJECT] = -1
        free = int(self.numbers[k.N_FREE_SLOTS])
        if free < births:
            before = len(self.slots)
            room = max(before + births - free, before + before // 2, 1024)
            self.slots = _grown(self.slots, room)
            if self._stacks_sampled:
                self.sampled_slots = _grown(self.sampled_slots, room)
            self.free_slots = _grown(self.free_slots, room)
            added = np.arange(room - 1, before - 1, -1, dtype=np.int32)
            self.free_slots[free : free + len(added)] = added
            self.numbers[k.N_FREE_SLOTS] = free + len(added)
        pages = ((first_object + births) >> k.PAGE_SHIFT) + 2
        if pages > len(self.page_of):
            added_pages = np.full(max(pages, 2 * len(self.page_of)) - len(self.page_of), -1, np.int32)
            self.page_of = np.concatenate([self.page_of, added_pages])
        needed = int(self.numbers[k.N_PAGES]) + (births >> k.PAGE_SHIFT) + 2
        if needed > len(self.pages):
            room = max(needed, len(self.pages) + len(self.pages) // 2)
            fresh = np.full((room - len(self.pages), k.PAGE), -1, np.int32)
            self.pages = np.concatenate([self.pages, fresh])
            self.page_live = _grown(self.page_live, room)
            self.free_pages = _grown(self.free_pages, room)

    def _end_interval(self) -> None:
        k = self._k
        places = self.dirty[: int(self.numbers[k.N_DIRTY])].copy()
        self._moment_rows.append((places, self.keys[places, k.K_LIVE_BYTES]))
        self.numbers[k.N_DIRTY] = 0
        self.numbers[k.N_INTERVAL] += 1

    def _note_sizes(
        self, sizes: NDArray[np.uint64], slacks: NDArray[np.uint64], counts: NDArray[np.int64]
    ) -> None:
        rows = np.stack([sizes.astype(np.int64), slacks.astype(np.int64), counts], axis=1)
        self._size_rows.append(rows[counts > 0])
        if sum(map(len, self._size_rows)) > 4 * _DISTINCT_SIZES:
            self._size_rows = [_add_up(self._size_rows)[:_DISTINCT_SIZES]]

    def _figures(self, unreadable: str) -> ProcessFigures:
        k, process = self._k, self._process
        start, end = process.start, process.end
        self._finish_bins()
        levels, numbers = self.levels, self.numbers
        keys = self.keys[: self._key_count]
        at_exit = keys[:, [k.K_LIVE_BYTES, k.K_LIVE_BLOCKS, k.K_LIVE_VARIANCE]]
        exit_levels, exit_s = levels, self._end_ns * 1e-9
        if self._at_ending is not None:
            # Stacks that came later held nothing then.
            at_exit = _grown(self._at_ending[0][: self._key_count], self._key_count)
            exit_levels, exit_s = self._at_ending[3], self._at_ending[4]
        stale = keys[:, k.K_STAMP] != numbers[k.N_EPOCH]
        at_peak = np.where(stale, keys[:, k.K_LIVE_BYTES], keys[:, k.K_PEAK_BYTES])
        blocks_at_peak = np.where(stale, keys[:, k.K_LIVE_BLOCKS], keys[:, k.K_PEAK_BLOCKS])
        variance_at_peak = np.where(stale, keys[:, k.K_LIVE_VARIANCE], keys[:, k.K_PEAK_VARIANCE])
        stacks = len(self._trace.stacks)
        origin = self._stack_of_key[: self._key_count]
        used = keys[:, k.K_ALLOCATIONS] > 0  # of sampled stacks, those that stand for something
        row_of = np.cumsum(used) - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            lifetime_s = (
                keys[:, k.K_LIFE_TICKS]
                / (keys[:, k.K_ALLOCATIONS] - keys[:, k.K_LIVE_BLOCKS])
                * (self._tick_ns * 1e-9)
            )

        def error(variance: Floats) -> Floats:
            return _SEVERAL * np.sqrt(np.maximum(variance, 0.0))

        columns: Any = (
            origin % stacks, origin >= stacks, keys[:, k.K_ALLOCATIONS], keys[:, k.K_BYTES], at_peak, blocks_at_peak,
            at_exit[:, 0], at_exit[:, 1], keys[:, k.K_TEMPORARY], keys[:, k.K_TEMPORARY_BYTES],
            keys[:, k.K_OWN_PEAK], lifetime_s, error(keys[:, k.K_VARIANCE]), error(variance_at_peak),
            error(at_exit[:, 2]),
        )  # fmt: skip
        places = Places(*(np.ascontiguousarray(column[used]) for column in columns))
        moments = Moments(
            np.array(self._moments_ns, np.float64) * 1e-9,
            [row_of[rows] for rows, _ in self._moment_rows],
            [values for _, values in self._moment_rows],
        )
        peak_tick = int(numbers[k.N_PEAK_TICK])
        sizes = _add_up(self._size_rows)
        return ProcessFigures(
            index=process.index,
            pid=start.pid,
            name=start.name,
            command=start.command,
            start_s=self._start_ns * 1e-9,
            end_s=self._end_ns * 1e-9,
            exit_code=end.exit_code if end else None,
            signal=end.signal if end else None,
            ended=end is not None,
            forked=start.forked_from is not None,
            events=process.events,
            dropped_events=process.dropped_events,
            allocations=float(self.bins[:, k.B_ALLOCATIONS].sum()),
            frees=float(self.threads[:, k.T_FREES].sum()),
            allocated_bytes=float(self.bins[:, k.B_BYTES].sum()),
            live_bytes_peak=float(levels[k.F_PEAK]),
            live_bytes_peak_at_s=peak_tick * self._tick_ns * 1e-9
            if levels[k.F_PEAK]
            else self._start_ns * 1e-9,
            live_bytes_peak_event=int(numbers[k.N_PEAK_EVENT]),
            live_blocks_at_peak=float(levels[k.F_PEAK_BLOCKS]),
            usable_live_bytes_at_peak=float(levels[k.F_PEAK_USABLE]),
            usable_live_bytes_peak=float(levels[k.F_USABLE_PEAK]),
            exit_s=exit_s,
            interpreter_ended=self._at_ending is not None,
            live_bytes_at_end=float(levels[k.F_LIVE]),
            live_bytes_at_exit=float(exit_levels[k.F_LIVE]),
            live_blocks_at_exit=float(exit_levels[k.F_BLOCKS]),
            usable_live_bytes_at_exit=float(exit_levels[k.F_USABLE]),
            malloc_bytes_at_peak=float(levels[k.F_PEAK_MALLOC]),
            python_bytes_at_peak=float(levels[k.F_PEAK_PYTHON]),
            python_bytes_at_exit=float(exit_levels[k.F_PYTHON]),
            mapped_bytes_at_peak=float(levels[k.F_PEAK_MAPPED]),
            mapped_bytes_peak=float(levels[k.F_MAPPED_PEAK]),
            mapped_bytes_at_exit=float(exit_levels[k.F_MAPPED]),
            allocated_bytes_error=self._total_error(float(keys[:, k.K_VARIANCE].sum())),
            live_bytes_peak_error=self._total_error(float(levels[k.F_PEAK_VARIANCE])),
            live_bytes_at_exit_error=self._total_error(float(exit_levels[k.F_VARIANCE])),
            temporary_allocations=float(levels[k.F_TEMPORARY]),
            temporary_bytes=float(levels[k.F_TEMPORARY_BYTES]),
            remote_frees=float(self.threads[:, k.T_REMOTE_FREES].sum()),
            unknown_frees=int(numbers[k.N_UNKNOWN]),
            contradictions=int(numbers[k.N_TWICE]),
            unreadable=unreadable,
            places=places,
            time_line=self._time_line(),
            moments=moments,
            threads=self._thread_figures(),
            size_classes=self._class_figures(),
            requested_sizes=[(int(size), int(size + slack), float(n)) for size, slack, n in sizes[:200]],
            distinct_sizes=len(sizes),
            lifetimes=Lifetimes(*(np.ascontiguousarray(column) for column in self.lifetimes.T)),
            memory=process.memory,
            marks=[(mark.time_ns * 1e-9, mark.name) for mark in process.marks],
            drops=[(d.since_ns * 1e-9, d.until_ns * 1e-9, d.events, d.reason) for d in process.drops],
            notes=process.notes,
        )

    def _total_error(self, variance: float) -> float:
        return 0.0 if self._stacks_sampled else _SEVERAL * float(np.sqrt(max(0.0, variance)))

    def _finish_bins(self) -> None:
        """The bins behind the last event hold what was live then."""
        k = self._k
        last = int(self.numbers[k.N_BIN])
        for column, level in (
            (k.B_MAX, k.F_LIVE), (k.B_MIN, k.F_LIVE), (k.B_END, k.F_LIVE), (k.B_USABLE, k.F_USABLE),
            (k.B_MAPPED, k.F_MAPPED), (k.B_BLOCKS, k.F_BLOCKS),
        ):  # fmt: skip
            self.bins[last + 1 :, column] = self.levels[level]

    def _time_line(self) -> TimeLine:
        k = self._k
        order = (
            k.B_END, k.B_MAX, k.B_MIN, k.B_USABLE, k.B_MAPPED, k.B_BLOCKS, k.B_ALLOCATIONS, k.B_BYTES, k.B_FREES,
        )  # fmt: skip
        columns = (np.ascontiguousarray(self.bins[:, column]) for column in order)
        return TimeLine(self._bins_end_ns * 1e-9, *columns)

    def _thread_figures(self) -> list[ThreadFigures]:
        k = self._k
        found: list[ThreadFigures] = []
        live = self.threads[:, k.T_LIVE_BYTES]
        if self._at_ending is not None:
            live = _grown(self._at_ending[2], len(self.threads))
        for index, row in enumerate(self.threads.tolist()):
            record = self._process.threads.get(index)
            if record is None and not any(row[: k.T_LAST_OBJECT]):
                continue
            found.append(
                ThreadFigures(
                    index=index,
                    tid=record.tid if record else None,
                    name=record.name if record else f"thread {index}",
                    allocations=row[k.T_ALLOCATIONS],
                    allocated_bytes=row[k.T_BYTES],
                    frees=row[k.T_FREES],
                    remote_frees=row[k.T_REMOTE_FREES],
                    freed_by_others=row[k.T_FREED_BY_OTHERS],
                    live_bytes_at_exit=float(live[index]),
                    live_bytes_peak=row[k.T_LIVE_PEAK],
                    temporary_allocations=row[k.T_TEMPORARY],
                )
            )
        return found

    def _class_figures(self) -> list[SizeClassFigures]:
        k = self._k
        stale = self.classes[:, k.C_STAMP] != self.numbers[k.N_EPOCH]
        blocks = np.where(stale, self.classes[:, k.C_LIVE_BLOCKS], self.classes[:, k.C_PEAK_BLOCKS])
        held = np.where(stale, self.classes[:, k.C_LIVE_BYTES], self.classes[:, k.C_PEAK_BYTES])
        at_exit = self.classes[:, [k.C_LIVE_BLOCKS, k.C_LIVE_BYTES]]
        if self._at_ending is not None:
            at_exit = self._at_ending[1]
        return [
            SizeClassFigures(
                class_bytes=size,
                allocations=row[k.C_ALLOCATIONS],
                allocated_bytes=row[k.C_BYTES],
                live_blocks_at_peak=float(blocks[place]),
                live_bytes_at_peak=float(held[place]),
                live_blocks_at_exit=float(at_exit[place, 0]),
                live_bytes_at_exit=float(at_exit[place, 1]),
            )
            for place, (size, row) in enumerate(zip(self._class_bytes, self.classes.tolist(), strict=True))
        ]


def _split(payload: memoryview, offset: int) -> tuple[tuple[NDArray[Any], ...], int]:
    *streams, offset = split_column(payload, offset)
    return tuple(streams), offset


def _largest(streams: tuple[NDArray[Any], ...]) -> int:
    """One more than the largest value of a column."""
    return 1 + max((int(stream.max()) for stream in streams if len(stream)), default=0)


def _grown(array: NDArray[Any], rows: int) -> NDArray[Any]:
    larger = _zeros((rows, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _zeros(shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    """Zeros that begin with a line of the cache, so that a row of one line lies in one."""
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size_bytes + _LINE_BYTES, np.uint8)
    begin = -room.ctypes.data % _LINE_BYTES
    return room[begin : begin + size_bytes].view(dtype).reshape(shape)


def _add_up(rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Merge rows of size, slack and count by size and slack, the most frequent first."""
    if not rows:
        return np.zeros((0, 3), np.int64)
    everything = np.concatenate(rows)
    order = np.lexsort((everything[:, 1], everything[:, 0]))
    everything = everything[order]
    if not len(everything):
        return everything
    starts = np.flatnonzero(np.any(np.diff(everything[:, :2], axis=0, prepend=-1) != 0, axis=1))
    merged = everything[starts].copy()
    merged[:, 2] = np.add.reduceat(everything[:, 2], starts)
    return merged[np.argsort(-merged[:, 2], kind="stable")]

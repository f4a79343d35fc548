"""Reading a region: from shared memory to columns, and from columns to the values of a process.

A region is mapped read-only and copied as it stands; the program under study never waits and never knows.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from heapsmith.errors import RunError
from heapsmith.run.values import Event, Pool, PythonHeap, SizeClass, SpanClass, Thread
from heapsmith.wire.classes import CLASS_BYTES, CLASS_COUNT, FINE_CLASSES
from heapsmith.wire.region import (
    CONTROL,
    CONTROL_MAGIC,
    EVENT,
    EVENT_CAPACITY,
    PAGE_BYTES,
    REGION_HEADER,
    REGION_MAGIC,
    SLOT,
    SLOTS_OFFSET_BYTES,
    SPAN_ROWS,
    SPAN_TABLE,
    VERSION,
    Allocator,
    Counting,
    EventKind,
    PythonState,
    SlotKind,
    SlotState,
    SpanKind,
    format_python_version,
)

_HEADER_DTYPE: Final = REGION_HEADER.dtype()
_EVENT_DTYPE: Final = EVENT.dtype()
_SLOT_DTYPE: Final = SLOT.dtype()
_CONTROL_DTYPE: Final = CONTROL.dtype()
_SPAN_TABLE_DTYPE: Final = SPAN_TABLE.dtype()
_SPAN_KINDS: Final = frozenset(SpanKind)
_FOLD_ATTEMPTS: Final = 50
_HALF_A_CLASS_BYTES: Final = 8.0
_MOST: Final = 2.0**62  # what a damaged region claims beyond this fits no integer
_KNOWN_ALLOCATORS: Final = ("jemalloc", "mimalloc", "tcmalloc", "tbbmalloc", "snmalloc", "rpmalloc", "hoard")

TOLD: Final = {
    1 << 7: "committed_bytes",
    1 << 8: "reserved_bytes",
    1 << 9: "metadata_bytes",
    1 << 10: "free_cached_bytes",
}
"""The bits of heapsmith.h for what an allocator tells of itself."""
_PYTHON_STATES: Final = frozenset(PythonState)
EVENT_NAMES: Final = {kind.value: kind.name.lower() for kind in EventKind}

Counts = npt.NDArray[np.int64]


def _compute_mean_class_bytes() -> npt.NDArray[np.float64]:
    upper = [float(bound or 2 * (CLASS_BYTES[-2] or 0)) for bound in CLASS_BYTES]
    lower = [0.0, *upper[:-1]]
    means = [
        high if index < FINE_CLASSES else (low + high) / 2
        for index, (low, high) in enumerate(zip(lower, upper, strict=True))
    ]
    return np.array(means)


_MEAN_CLASS_BYTES: Final = _compute_mean_class_bytes()


def estimate_churn_bytes(blocks: Counts) -> int:
    """Estimate the usable bytes of blocks by class: the bound of a fine class, half way between those of the others.

    Args:
        blocks: ``(n_rows, n_classes)``.

    Example:
        >>> estimate_churn_bytes(np.eye(1, CLASS_COUNT, 2, dtype=np.int64))
        40
    """
    return int(np.rint((blocks * _MEAN_CLASS_BYTES).sum()))


class Region:
    """One region, mapped read-only for as long as this object lives.

    Args:
        path: Its file, or a link to it in ``/proc/PID/fd``.

    Raises:
        RunError: It is not a region, or one of another version.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes < SLOTS_OFFSET_BYTES:
                raise RunError(f"{path} is not a region of heapsmith", f"it has {size_bytes} bytes")
            self._bytes = mmap.mmap(descriptor, size_bytes, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        header = self._copy_header()
        if int(header["magic"]) != REGION_MAGIC:
            raise RunError(f"{path} is not a region of heapsmith", "it does not begin like one")
        if int(header["version"]) != VERSION:
            raise RunError(
                f"{path} cannot be read",
                f"it has layout {int(header['version'])}, this heapsmith reads {VERSION}",
                "use the heapsmith that started the program",
            )
        if int(header["slot_bytes"]) != SLOT.size_bytes or int(header["python_state"]) not in _PYTHON_STATES:
            raise RunError(f"{path} cannot be read", "it is damaged")
        self._image_mark = int(header["image_mark"])
        self.pid = int(header["pid"])
        """Of the process, in its namespace."""
        self.pid_namespace = int(header["pid_namespace"]) or None
        """Of the process; None is unknown."""

    @property
    def buffer(self) -> mmap.mmap:
        """The mapped bytes, as they change."""
        return self._bytes

    def is_of_another_image(self, mark: int | None) -> bool:
        """Whether a process with this mark runs another program than the one that made the region."""
        return mark is not None and mark != self._image_mark

    def read(self) -> RegionSnapshot:
        """Copy the counters as they stand, between two foldings of ended threads."""
        for attempt in range(_FOLD_ATTEMPTS):
            header = self._copy_header()
            used = min(int(header["slots_used"]), (len(self._bytes) - SLOTS_OFFSET_BYTES) // PAGE_BYTES)
            raw = self._bytes[SLOTS_OFFSET_BYTES : SLOTS_OFFSET_BYTES + used * PAGE_BYTES]
            after = self._copy_header()
            # A process killed in the middle of folding leaves an odd number: then the last copy has to do.
            folding = (
                int(header["fold_sequence"]) != int(after["fold_sequence"])
                or int(header["fold_sequence"]) % 2
            )
            if not folding or attempt == _FOLD_ATTEMPTS - 1:
                slots = np.frombuffer(raw, _SLOT_DTYPE)
                events = np.frombuffer(self._bytes[PAGE_BYTES : 2 * PAGE_BYTES], _EVENT_DTYPE, EVENT_CAPACITY)
                return RegionSnapshot(
                    header, slots[slots["state"] == SlotState.ALIVE], events, self._copy_spans(header, used)
                )
        raise AssertionError("unreachable")

    def _copy_spans(self, header: np.void, used: int) -> np.void | None:
        """The table of spans as it stood between two writings; None where there is none, or it never stood still."""
        index = int(header["spans_slot"])
        if not 0 < index < used:
            return None
        start = SLOTS_OFFSET_BYTES + index * PAGE_BYTES
        for _ in range(_FOLD_ATTEMPTS):
            tables = [
                np.frombuffer(self._bytes[start : start + PAGE_BYTES], _SPAN_TABLE_DTYPE, 1)[0]
                for _ in range(2)
            ]
            before, after = (int(table["sequence"]) for table in tables)
            if before == after and before % 2 == 0:
                return tables[0] if before else None
        return None

    def _copy_header(self) -> np.void:
        return np.frombuffer(self._bytes[:PAGE_BYTES], _HEADER_DTYPE, 1)[0]

    def close(self) -> None:
        """Give the mapping back."""
        self._bytes.close()


class Control:
    """The control block of a process: what the outside wants of it while it runs.

    Args:
        path: Its file, or a link to it in ``/proc/PID/fd``.

    Raises:
        RunError: It is not a control block.
        OSError: It cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._bytes = mmap.mmap(descriptor, PAGE_BYTES)
        finally:
            os.close(descriptor)
        self._block = np.frombuffer(self._bytes, _CONTROL_DTYPE, 1)
        if int(self._block["magic"][0]) != CONTROL_MAGIC:
            raise RunError(f"{path} is not a control block of heapsmith")

    def set(self, *, limit_bytes: int | None = None, warn_at_bytes: int | None = None) -> None:
        """Change what is given (0 takes it away); the program sees it within 64 KiB of growth of a thread."""
        if limit_bytes is not None:
            self._block["limit_bytes"][0] = limit_bytes
        if warn_at_bytes is not None:
            self._block["warn_at_bytes"][0] = warn_at_bytes
        self._block["sequence"][0] += 1


@dataclass(frozen=True)
class Rows:
    """Counters by thread and class, each ``(n_rows, n_classes)`` int64; a row is a thread's native or Python part."""

    allocations: Counts
    frees: Counts
    followed_allocations: Counts
    followed_slack_bytes: Counts
    remote_frees: Counts
    live_blocks: Counts
    live_bytes: Counts
    live_bytes_peak: Counts

    def take(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """The rows of a mask."""
        return Rows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class RegionSnapshot:
    """A copy of a region at one moment.

    Args:
        header: One record of the header's dtype.
        slots: The slots in use.
        events: The ring of events.
        spans: The table of a forged heap's spans.
    """

    def __init__(
        self,
        header: np.void,
        slots: npt.NDArray[np.void],
        events: npt.NDArray[np.void],
        spans: np.void | None = None,
    ) -> None:
        self.header = header
        self._spans = spans
        self.slots = slots
        self._events = events
        self.kinds: npt.NDArray[np.uint32] = slots["kind"]
        self.rows = self._compute_rows()

    def number(self, field: str) -> int:
        """A number of the header."""
        return int(self.header[field])

    def text(self, field: str) -> str:
        """A text of the header."""
        return bytes(self.header[field]).split(b"\0")[0].decode(errors="replace")

    @property
    def allocator(self) -> str:
        """The allocator's usual name, or the file name of the object that answers malloc."""
        if not self.number("malloc_is_ours"):
            return "Valgrind's" if self.is_redirected else "the program's own"
        if self.number("allocator") == Allocator.GLIBC:
            return "glibc"
        name = self.text("allocator_path").rsplit("/", 1)[-1]
        return next((known for known in _KNOWN_ALLOCATORS if known in name), name or "unknown")

    @property
    def is_redirected(self) -> bool:
        """Whether Valgrind redirects malloc, to look after it itself."""
        return "/vgpreload_" in self.text("allocator_path")

    @property
    def command(self) -> list[str]:
        """The arguments that the program was started with, as far as they fit."""
        raw = self._command_bytes()
        return [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]] if raw else []

    def _command_bytes(self) -> bytes:
        offset = _HEADER_DTYPE.fields["command"][1] if _HEADER_DTYPE.fields else 0
        raw = self.header.tobytes()[offset : offset + self.number("command_bytes")]
        return raw if raw.endswith(b"\0") or not raw else raw + b"\0"

    def live_bytes(self) -> int:
        """Usable bytes allocated and not yet freed: what is published and what each thread has not published yet."""
        native = self.kinds == SlotKind.NATIVE
        unpublished = self.slots["live_bytes"][native] - self.slots["published_bytes"][native]
        return max(0, self.number("published_live_bytes") + int(unpublished.sum()))

    def events(self) -> list[Event]:
        """What happened, oldest first, as far as the ring remembers."""
        start_ns = self.number("start_ns")
        written = self._events[self._events["sequence"] > 0]
        return [
            Event(
                time_s=max(0, int(event["time_ns"]) - start_ns) / 1e9,
                kind=EVENT_NAMES.get(int(event["kind"]), "unknown"),
                tid=int(event["tid"]),
                live_bytes=int(event["live_bytes"]),
                threshold_bytes=int(event["threshold_bytes"]),
                requested_bytes=int(event["requested_bytes"]),
                sequence=int(event["sequence"]),
            )
            for event in written[np.argsort(written["sequence"])]
        ]

    def python(self) -> PythonHeap | None:
        """CPython's own objects, where the process has an interpreter."""
        state = PythonState(self.number("python_state"))
        if state is PythonState.NO_PYTHON:
            return None
        counted = state is PythonState.COUNTED
        rows = self.rows.take(self._is_python())
        return PythonHeap(
            version=format_python_version(self.number("python_version")),
            arena_bytes=self.number("python_arena_bytes"),
            arena_bytes_peak=self.number("python_arena_bytes_peak"),
            blocks=int(rows.live_blocks.sum()) if counted else None,
            live_bytes=int(rows.live_bytes.sum()) if counted else None,
            note=self.text("python_note"),
        )

    def threads(self, names: dict[int, str]) -> list[Thread]:
        """The threads that are alive, then those that have ended as one row, then what came with a fork.

        Args:
            names: The kernel's present names by thread id; the probe's own note of the name where one is missing.
        """
        tids = self.slots["tid"]
        threads = [
            self._thread(
                (tids == tid) & (self.kinds <= SlotKind.PYTHON),
                tid,
                names.get(tid) or self._slot_name(tid),
                alive=True,
            )
            for tid in (int(t) for t in tids[self.kinds == SlotKind.NATIVE])
        ]
        shared = (
            ("ended threads", (SlotKind.ENDED_NATIVE, SlotKind.ENDED_PYTHON)),
            ("inherited at fork", (SlotKind.INHERITED_NATIVE, SlotKind.INHERITED_PYTHON)),
        )
        for name, kinds in shared:
            row = self._thread(np.isin(self.kinds, kinds), None, name, alive=False)
            if row.size_classes:
                threads.append(row)
        return threads

    def size_classes(self) -> list[SizeClass]:
        """The totals by class; classes in which nothing ever happened are left out."""
        return self._size_classes(np.ones(len(self.kinds), dtype=bool))

    def told(self) -> dict[str, int]:
        """What the allocator told of itself when the program last asked, by field; empty if it never did."""
        fields = self.number("told_fields") if self.number("told_ns") else 0
        return {name: self.number(f"told_{name}") for bit, name in TOLD.items() if fields & bit}

    @property
    def is_counted_by_batches(self) -> bool:
        """Whether the heap itself counts what moves in and out of its threads' caches, not each call."""
        return self.number("counting") == Counting.BATCHES

    def spans(self) -> list[SpanClass]:
        """What a forged heap's spans hold, by class, as it last said; empty where it never did."""
        if self._spans is None:
            return []
        rows = self._spans["rows"][: min(int(self._spans["rows_used"]), SPAN_ROWS)]
        return [
            SpanClass(
                kind=SpanKind(int(row["kind"])).name.lower(),
                class_bytes=int(row["class_bytes"]) or None,
                spans=int(row["spans_by_occupancy"].sum()),
                span_bytes=int(row["span_kib"]) * 1024,
                used_blocks=int(row["used_blocks"]),
                spans_by_occupancy=[int(count) for count in row["spans_by_occupancy"]],
            )
            for row in rows
            if int(row["kind"]) in _SPAN_KINDS
        ]

    def pools(self) -> list[Pool]:
        """The private pools that the program has registered."""
        return read_pools(self.header["pools"])

    def own_rows(self) -> Rows:
        """The rows of what this process did itself, without what it inherited at a fork."""
        return self.rows.take(~self._is_inherited())

    def _is_python(self) -> npt.NDArray[np.bool_]:
        return self.kinds % 2 == SlotKind.PYTHON

    def _is_inherited(self) -> npt.NDArray[np.bool_]:
        return self.kinds >= SlotKind.INHERITED_NATIVE

    def _slot_name(self, tid: int) -> str:
        raw = self.slots["name"][self.slots["tid"] == tid][0]
        return bytes(raw).decode(errors="replace")

    def _thread(self, mask: npt.NDArray[np.bool_], tid: int | None, name: str, *, alive: bool) -> Thread:
        rows = self.rows.take(mask)
        inherited = bool(self._is_inherited()[mask].any())
        return Thread(
            tid=tid,
            name=name,
            alive=alive,
            allocations=0 if inherited else int(rows.allocations.sum()),
            frees=int(rows.frees.sum()),
            remote_frees=int(rows.remote_frees.sum()),
            live_blocks=int(rows.live_blocks.sum()),
            live_bytes=int(rows.live_bytes.sum()),
            size_classes=self._size_classes(mask),
        )

    def _size_classes(self, mask: npt.NDArray[np.bool_]) -> list[SizeClass]:
        own = self.rows.take(mask & ~self._is_inherited())
        every = self.rows.take(mask)
        python = self.rows.take(mask & self._is_python())
        allocations, frees = own.allocations.sum(0), own.frees.sum(0)
        remote_frees = own.remote_frees.sum(0)
        live_blocks, live_bytes = every.live_blocks.sum(0), every.live_bytes.sum(0)
        requested_live = compute_requested_live_bytes(every)
        # Peaks of threads at different times are not added: the highest of one of them, or what is live now.
        peaks = np.maximum(every.live_bytes_peak.max(0, initial=0), live_bytes)
        python_blocks, python_bytes = python.live_blocks.sum(0), python.live_bytes.sum(0)
        seen = np.nonzero((allocations > 0) | (frees > 0) | (live_blocks > 0))[0]
        return [
            SizeClass(
                class_bytes=CLASS_BYTES[index],
                allocations=int(allocations[index]),
                frees=int(frees[index]),
                remote_frees=int(remote_frees[index]),
                live_blocks=int(live_blocks[index]),
                live_bytes=int(live_bytes[index]),
                live_bytes_peak=int(peaks[index]),
                requested_live_bytes=int(requested_live[index]),
                python_live_blocks=int(python_blocks[index]),
                python_live_bytes=int(python_bytes[index]),
            )
            for index in seen
        ]

    def _compute_rows(self) -> Rows:
        cells = self.slots["cells"]
        allocations = cells["allocations"].astype(np.int64)
        frees = allocations - (cells["live_blocks_peak"].astype(np.int64) - cells["below_peak_blocks"])
        net_blocks = allocations - frees
        usable = self._usable_by_row()
        net_bytes = net_blocks * usable
        peak_bytes = cells["live_blocks_peak"].astype(np.int64) * usable
        net_bytes[:, FINE_CLASSES:] = self.slots["large"]["live_bytes"]
        peak_bytes[:, FINE_CLASSES:] = np.maximum(0, self.slots["large"]["live_bytes_peak"])
        live_blocks, live_bytes = np.zeros_like(net_blocks), np.zeros_like(net_bytes)
        for group in (self._is_python(), ~self._is_python()):
            live_blocks[group] = attribute_to_owners(net_blocks[group])
            live_bytes[group] = attribute_to_owners(net_bytes[group])
        return Rows(
            allocations=allocations,
            frees=frees,
            followed_allocations=cells["followed_allocations"].astype(np.int64),
            followed_slack_bytes=cells["followed_slack_bytes"].astype(np.int64),
            remote_frees=self._estimate_remote_frees(allocations, frees),
            live_blocks=live_blocks,
            live_bytes=live_bytes,
            live_bytes_peak=np.maximum(peak_bytes, live_bytes),
        )

    def _usable_by_row(self) -> Counts:
        """The usable bytes of a block of each fine class: 8 above a multiple of 16 in glibc, the multiple elsewhere."""
        index = np.arange(CLASS_COUNT, dtype=np.int64)
        multiple = np.maximum(8, 16 * index)
        native = 16 * index + 8 if self.number("allocator") == Allocator.GLIBC else multiple
        pools = np.where(index <= 32, multiple, native)
        usable = np.where(self._is_python()[:, None], pools[None, :], native[None, :])
        usable[:, FINE_CLASSES:] = 0
        return usable

    def _estimate_remote_frees(self, allocations: Counts, frees: Counts) -> Counts:
        """Scale the share of followed blocks that others freed; frees beyond a thread's own allocations are certain."""
        if self.number("threads_started") <= 1 and not self.number("forked"):
            return np.zeros_like(frees)
        followed = self.slots["cells"]["followed_frees"].astype(np.float64)
        remote = self.slots["cells"]["followed_remote_frees"].astype(np.float64)
        whole = followed.sum(1, keepdims=True)
        overall = np.divide(remote.sum(1, keepdims=True), whole, out=np.zeros_like(whole), where=whole > 0)
        share = np.divide(
            remote, followed, out=np.broadcast_to(overall, remote.shape).copy(), where=followed > 0
        )
        estimate = np.rint(frees * share).clip(0, _MOST).astype(np.int64)
        return np.minimum(frees, np.maximum(estimate, frees - allocations))


def attribute_to_owners(net: Counts) -> Counts:
    """Turn what each thread allocated less what it freed into what of its own blocks is live.

    A thread that freed more than it allocated has freed blocks of others: its deficit is charged to the threads with
    blocks left, in proportion. No value is negative and the sum over threads is that of the process.

    Args:
        net: ``(n_threads, n_classes)`` allocations minus frees, in blocks or bytes.

    Example:
        >>> attribute_to_owners(np.array([[10], [-4], [5]]))[:, 0].tolist()
        [8, 0, 3]
    """
    held = np.maximum(net, 0)
    held_sum = held.sum(0)
    total = np.maximum(0, net.sum(0))
    nothing: npt.NDArray[np.float64] = np.zeros(len(total), np.float64)
    share = np.divide(total, held_sum, out=nothing, where=held_sum > 0)
    owned = np.minimum(held, np.floor(held * share).clip(0, _MOST).astype(np.int64))
    missing = total - owned.sum(0)
    if len(owned) and missing.any():
        owned[np.argmax(held, axis=0), np.arange(len(total))] += missing
    return owned


def compute_requested_live_bytes(rows: Rows) -> Counts:
    """Estimate what was asked for by the live blocks of each class, from the mean slack of followed blocks.

    In a class without followed blocks the slack is taken to be half of the 16 bytes that a class is wide.

    Args:
        rows: The rows to sum.

    Returns:
        ``(n_classes,)`` bytes, never more than the live bytes.
    """
    followed = rows.followed_allocations.sum(0)
    slack = rows.followed_slack_bytes.sum(0).astype(np.float64)
    mean = np.divide(slack, followed, out=np.full(len(slack), _HALF_A_CLASS_BYTES), where=followed > 0)
    live_bytes = rows.live_bytes.sum(0)
    slack_bytes = np.rint(rows.live_blocks.sum(0) * mean).clip(-_MOST, _MOST)
    return np.maximum(0, live_bytes - slack_bytes.astype(np.int64))


def read_pools(table: npt.NDArray[np.void]) -> list[Pool]:
    """The pools of a region's table that are registered."""
    return [
        Pool(
            name=bytes(pool["name"]).split(b"\0")[0].decode(errors="replace"),
            live_bytes=int(pool["live_bytes"]),
            live_bytes_peak=int(pool["live_bytes_peak"]),
            in_heap=bool(pool["in_heap"]),
        )
        for pool in table
        if int(pool["state"]) == SlotState.ALIVE
    ]


def read_exit(header: Any) -> int | None:
    """The exit code that the process noted when it left, if it did."""
    return int(header["exit_code"]) if int(header["exit_known"]) else None

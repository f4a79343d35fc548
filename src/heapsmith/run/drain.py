"""The recorder's native half, called through ctypes: it merges the rings of each process and pairs frees with allocations.

Every call lets other threads of this interpreter run. Layouts are those of ``native/drain/process.h``.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.errors import RunError
from heapsmith.native import library
from heapsmith.wire.recording import (
    RECORDER_FILE,
    RECORDING_HEADER,
    TEXTS_OFFSET_BYTES,
    OnFull,
    StackMode,
)

DRAIN_LIBRARY: Final = "libheapsmith_drain.so"
TICK_NS: Final = 1000
_THREADS_AT_ONCE: Final = 1024


class Totals(ctypes.Structure):
    """What is known of one process so far; ticks are of `TICK_NS`."""

    _fields_ = [
        ("events", ctypes.c_uint64),
        ("births", ctypes.c_uint64),
        ("unknown_deaths", ctypes.c_uint64),
        ("inferred_deaths", ctypes.c_uint64),
        ("lost_events", ctypes.c_uint64),
        ("waited_ns", ctypes.c_uint64),
        ("live_bytes", ctypes.c_uint64),
        ("live_blocks", ctypes.c_uint64),
        ("live_bytes_peak", ctypes.c_uint64),
        ("last_tick", ctypes.c_uint64),
        ("first_object", ctypes.c_uint64),
        ("threads", ctypes.c_uint32),
        ("rings_busy", ctypes.c_uint32),
    ]


class ThreadLife(ctypes.Structure):
    """A thread that began, ended or changed its name."""

    _fields_ = [
        ("index", ctypes.c_uint32),
        ("tid", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("start_tick", ctypes.c_uint64),
        ("end_tick", ctypes.c_uint64),
        ("has_ended", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    ]


class NamedMoment(ctypes.Structure):
    """A moment that the program named; where the name lies in the texts."""

    _fields_ = [("tick", ctypes.c_uint64), ("text_at", ctypes.c_uint32), ("text_bytes", ctypes.c_uint32)]


@functools.cache
def _native() -> ctypes.CDLL:
    native = ctypes.CDLL(str(library(DRAIN_LIBRARY)))
    pointer, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64

    def declare(name: str, result: Any, *arguments: Any) -> None:
        function = getattr(native, name)
        function.restype = result
        function.argtypes = arguments

    declare("hs_recorder_open", pointer, ctypes.c_char_p, u64, u32, u64, u32, u32)
    declare("hs_recorder_start_ns", u64, pointer)
    declare("hs_recorder_stop", None, pointer)
    declare("hs_recorder_close", None, pointer)
    declare("hs_recorder_run", None, pointer, ctypes.POINTER(pointer), u32, u64)
    declare("hs_process_open", pointer, pointer, ctypes.c_char_p)
    declare("hs_process_close", None, pointer)
    declare("hs_process_finish", u64, pointer, pointer)
    declare("hs_process_header", pointer, pointer)
    declare("hs_process_at", pointer, pointer, u64)
    declare("hs_process_number_stacks", u32, pointer, u32, ctypes.POINTER(u32), u32)
    declare("hs_process_tell", None, pointer, ctypes.POINTER(Totals))
    declare("hs_process_threads", u32, pointer, ctypes.POINTER(ThreadLife), u32)
    declare("hs_process_marks", u32, pointer, ctypes.POINTER(NamedMoment), u32)
    declare("hs_process_batch_events", u32, pointer)
    declare(
        "hs_process_take_batch",
        pointer,
        pointer,
        ctypes.POINTER(u64),
        ctypes.POINTER(u32),
        ctypes.POINTER(u32),
    )
    return native


class DrainedProcess:
    """One process image whose rings are read.

    Args:
        recorder: The native recorder.
        path: Its file in the run directory.

    Raises:
        RunError: The file is not a recording, or there is no memory.
    """

    def __init__(self, recorder: int, path: Path) -> None:
        self._native = _native()
        self.handle: int | None = self._native.hs_process_open(recorder, bytes(path))
        if not self.handle:
            raise RunError(f"{path} cannot be read", "it is no recording of this version")

    def close(self) -> None:
        """Let go of the file."""
        self._native.hs_process_close(self.handle)
        self.handle = None

    def header(self) -> np.void:
        """A copy of the header, dtype `RECORDING_HEADER`."""
        address = self._native.hs_process_header(self.handle)
        return np.frombuffer(
            ctypes.string_at(address, RECORDING_HEADER.size_bytes), RECORDING_HEADER.dtype()
        )[0]

    def read(self, offset_bytes: int, count_bytes: int) -> bytes:
        """A copy of what lies in the file at an offset."""
        return ctypes.string_at(self._native.hs_process_at(self.handle, offset_bytes), count_bytes)

    def number_stacks(self, first: int, numbers: NDArray[np.uint32]) -> None:
        """Say what numbers stacks have in the trace file.

        Args:
            first: Node of the first of them.
            numbers: Shape (n,), by node.
        """
        numbers = np.ascontiguousarray(numbers, np.uint32)
        pointer = numbers.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
        if not self._native.hs_process_number_stacks(self.handle, first, pointer, len(numbers)):
            raise RunError("the recorder has no memory left")

    def totals(self) -> Totals:
        """What is known so far."""
        totals = Totals()
        self._native.hs_process_tell(self.handle, ctypes.byref(totals))
        return totals

    def take_threads(self) -> list[ThreadLife]:
        """Answer the threads that are news since the last call."""
        found = list[ThreadLife]()
        while True:
            lives = (ThreadLife * _THREADS_AT_ONCE)()
            count = self._native.hs_process_threads(self.handle, lives, _THREADS_AT_ONCE)
            found += lives[:count]
            if count < _THREADS_AT_ONCE:
                return found

    def take_marks(self) -> list[tuple[int, str]]:
        """Answer the moments named since the last call: nanoseconds since the start of the trace, and the name."""
        moments = (NamedMoment * _THREADS_AT_ONCE)()
        count = self._native.hs_process_marks(self.handle, moments, _THREADS_AT_ONCE)
        return [
            (
                moment.tick * TICK_NS,
                self.read(TEXTS_OFFSET_BYTES + moment.text_at, moment.text_bytes).decode(errors="replace"),
            )
            for moment in moments[:count]
        ]

    def batch_events(self) -> int:
        """Events that wait to be taken."""
        return int(self._native.hs_process_batch_events(self.handle))

    def take_batch(self) -> tuple[bytes, int, int] | None:
        """Answer the payload of the waiting events, how many they are, and how many objects are born in them."""
        size, events, born = ctypes.c_uint64(), ctypes.c_uint32(), ctypes.c_uint32()
        payload = self._native.hs_process_take_batch(
            self.handle, ctypes.byref(size), ctypes.byref(events), ctypes.byref(born)
        )
        if not payload:
            return None
        return ctypes.string_at(payload, size.value), events.value, born.value


class Drain:
    """The recorder: its page in the run directory, and the passes over its processes.

    The thread that makes it must be the one that lives as long as the recording: its end, however it comes, tells every
    process that nobody reads any more.

    Args:
        directory: The run directory.
        stacks: Which allocations have a stack.
        sample_every_bytes: Mean bytes between two sampled stacks.
        on_full: What a thread does whose ring is full.
        python_objects: Whether CPython's own objects are recorded.

    Raises:
        RunError: The page cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        *,
        stacks: StackMode = StackMode.NONE,
        sample_every_bytes: int = 0,
        on_full: OnFull = OnFull.WAIT,
        python_objects: bool = True,
    ) -> None:
        self._native = _native()
        path = directory / RECORDER_FILE
        self._handle: int | None = self._native.hs_recorder_open(
            bytes(path), TICK_NS, int(stacks), sample_every_bytes, int(on_full), int(python_objects)
        )
        if not self._handle:
            raise RunError(f"{path} cannot be made", "no room in memory", "free some room in /dev/shm")
        self.start_ns = int(self._native.hs_recorder_start_ns(self._handle))

    def open(self, path: Path) -> DrainedProcess:
        """Begin to read a process image.

        Raises:
            RunError: The file is not a recording, or not yet.
        """
        return DrainedProcess(self._handle or 0, path)

    def run(self, processes: Sequence[DrainedProcess], longest_ns: int) -> None:
        """Read until the time is over, a batch is full, or a process image has appeared."""
        handles = (ctypes.c_void_p * len(processes))(*(process.handle for process in processes))
        self._native.hs_recorder_run(self._handle, handles, len(processes), longest_ns)

    def finish(self, process: DrainedProcess) -> int:
        """Read what a process left that has ended; answers how many records that was, 0 when there is no more."""
        return int(self._native.hs_process_finish(process.handle, self._handle))

    def stop(self) -> None:
        """Nothing more is recorded, in any process."""
        self._native.hs_recorder_stop(self._handle)

    def close(self) -> None:
        """Stop, and let go of the page."""
        if self._handle:
            self._native.hs_recorder_close(self._handle)
            self._handle = None

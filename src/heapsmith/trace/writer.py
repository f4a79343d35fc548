"""Writing a trace file, chunk by chunk: what has been written stays readable whatever happens next."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from heapsmith.trace.batch import decode_batch, encode_batch
from heapsmith.trace.columns import encode_column
from heapsmith.trace.layout import (
    CHUNK_HEADER,
    CHUNK_MAGIC,
    FILE_HEADER,
    FRAME,
    MAGIC,
    NO_PROCESS,
    STACK,
    VERSION,
    Codec,
    Kind,
)
from heapsmith.trace.records import (
    Drops,
    End,
    FrameSymbols,
    Manifest,
    Mark,
    ModuleRecord,
    ProcessEnd,
    ProcessStart,
    ThreadRecord,
)

_FEWEST_EVENTS: Final = 256
"""A smaller part of a batch is not tried where there is no room for the whole."""


class TraceWriter:
    """Writes one trace file. Not for several threads at once.

    Args:
        path: The file; made anew, or replaced.
        manifest: How the trace is made.
        level: Of zstd.

    Raises:
        OSError: The file cannot be written; what was written before stays readable.

    Example:
        >>> import tempfile
        >>> from heapsmith.trace import Operation, open_trace
        >>> path = Path(tempfile.mkdtemp()) / "two.heap"
        >>> manifest = Manifest(command=["true"], started_unix_ns=0, heapsmith="0")
        >>> with TraceWriter(path, manifest) as writer:
        ...     process = writer.add_process(ProcessStart(pid=7, ppid=1, name="true", command=["true"], started_ns=0))
        ...     writer.write_events(
        ...         process,
        ...         operation=np.array([Operation.ALLOCATE, Operation.FREE], np.uint8),
        ...         thread=np.zeros(2, np.uint32),
        ...         time_ns=np.array([1000, 5000]),
        ...         size_bytes=np.array([100, 0], np.uint64),
        ...         usable_bytes=np.array([104, 0], np.uint64),
        ...         died=np.array([-1, 0]),
        ...     )
        >>> [batch.died.tolist() for batch in open_trace(path).batches()]
        [[-1, 0]]
    """

    def __init__(self, path: Path, manifest: Manifest, *, level: int = 1) -> None:
        self.path = path
        self.bytes_written = 0
        self.events = 0
        self._manifest = manifest
        self.tick_ns = manifest.tick_ns
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._file = path.open("wb", buffering=0)
        self._events: list[int] = []
        self._objects: list[int] = []
        self._strings = self._frames = self._stacks = 0
        header = np.zeros(1, FILE_HEADER)
        header[0] = MAGIC, VERSION, 0
        self._write(header.tobytes())
        self._write_json(Kind.MANIFEST, NO_PROCESS, manifest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; `write_end` says that the recording was complete."""
        self._file.close()

    def add_process(self, start: ProcessStart) -> int:
        """Announce a process image, and answer its index in the file."""
        index = len(self._events)
        self._events.append(0)
        self._objects.append(0)
        self._write_json(Kind.PROCESS, index, start)
        return index

    def end_process(self, process: int, end: ProcessEnd) -> None:
        """Say how a process image ended."""
        self._write_json(Kind.PROCESS_END, process, end)

    def write_threads(self, process: int, threads: Sequence[ThreadRecord]) -> None:
        """Announce threads, or tell more of them."""
        self._write_json(Kind.THREADS, process, threads, len(threads))

    def write_modules(self, modules: Sequence[ModuleRecord]) -> None:
        """Add modules: their numbers go on from those before."""
        self._write_json(Kind.MODULES, NO_PROCESS, modules, len(modules))

    def write_strings(self, strings: Sequence[str]) -> int:
        """Add strings, and answer the number of the first of them (counted from 0)."""
        first = self._strings
        self._strings += len(strings)
        self._write_chunk(Kind.STRINGS, NO_PROCESS, msgspec.json.encode(list(strings)), len(strings), first)
        return first

    def write_frames(self, frames: NDArray[np.void]) -> int:
        """Add frames, dtype `FRAME`, and answer the number of the first of them (counted from 1)."""
        return self._write_table(Kind.FRAMES, frames, FRAME)

    def write_stacks(self, stacks: NDArray[np.void]) -> int:
        """Add nodes of the tree of stacks, dtype `STACK`, and answer the number of the first (counted from 1)."""
        return self._write_table(Kind.STACKS, stacks, STACK)

    def write_events(
        self,
        process: int,
        *,
        operation: NDArray[np.uint8],
        thread: NDArray[np.uint32],
        time_ns: NDArray[np.int64],
        size_bytes: NDArray[np.uint64],
        usable_bytes: NDArray[np.uint64],
        died: NDArray[np.int64],
        alignment: NDArray[np.uint8] | None = None,
        stack: NDArray[np.uint32] | None = None,
    ) -> None:
        """Write a batch of events, columns as in `EventBatch`; objects are numbered in their order.

        A batch is the unit of reading: a quarter of a million to a million events suit both compression and memory.
        """
        count = len(operation)
        payload, born = encode_batch(
            first_object=self._objects[process],
            tick_ns=self._manifest.tick_ns,
            operation=operation,
            thread=thread,
            time_ns=time_ns,
            size_bytes=size_bytes,
            usable_bytes=usable_bytes,
            alignment=np.zeros(count, np.uint8) if alignment is None else alignment,
            died=died,
            stack=np.zeros(count, np.uint32) if stack is None else stack,
        )
        self.write_encoded_events(process, payload, count, born)

    def write_encoded_events(self, process: int, payload: bytes | memoryview, events: int, born: int) -> None:
        """Write a batch that was encoded elsewhere, with the numbers of its events and of its new objects.

        Where there is no room for the whole of it, as much of its begin as finds room is written before the error.
        """
        try:
            self._write_chunk(Kind.EVENTS, process, payload, events, self._events[process])
        except OSError:
            if events >= 2 * _FEWEST_EVENTS:
                self._write_halves(process, payload)
            raise
        self._events[process] += events
        self._objects[process] += born
        self.events += events

    def _write_halves(self, process: int, payload: bytes | memoryview) -> None:
        first, tick_ns = self._events[process], self._manifest.tick_ns
        batch = decode_batch(memoryview(payload), process=process, first_event=first, tick_ns=tick_ns)
        middle = len(batch) // 2
        for half in (slice(middle), slice(middle, None)):
            self.write_events(
                process,
                operation=batch.operation[half],
                thread=batch.thread[half],
                time_ns=batch.time_ns[half],
                size_bytes=batch.size_bytes[half],
                usable_bytes=batch.usable_bytes[half],
                alignment=batch.alignment[half],
                died=batch.died[half],
                stack=batch.stack[half],
            )

    def write_memory(self, process: int, samples: NDArray[np.void]) -> None:
        """Write looks at the process's memory, dtype `MEMORY_SAMPLE`."""
        self._write_chunk(Kind.MEMORY, process, samples.tobytes(), len(samples))

    def write_drops(self, process: int, drops: Drops) -> None:
        """Say that events were lost."""
        self._write_json(Kind.DROPS, process, drops)

    def write_marks(self, process: int, marks: Sequence[Mark]) -> None:
        """Name moments."""
        self._write_json(Kind.MARKS, process, marks, len(marks))

    def write_notes(self, process: int, notes: Sequence[str]) -> None:
        """Say what of a process could not be recorded."""
        self._write_json(Kind.NOTES, process, notes, len(notes))

    def write_symbols(self, symbols: Iterable[FrameSymbols]) -> None:
        """Say what native frames are, so that the trace can be read on another machine."""
        rows = list(symbols)
        self._write_json(Kind.SYMBOLS, NO_PROCESS, rows, len(rows))

    def write_end(self, end: End) -> None:
        """Say that nothing is missing behind this point."""
        self._write_json(Kind.END, NO_PROCESS, end)

    def _write_table(self, kind: Kind, rows: NDArray[np.void], dtype: np.dtype[np.void]) -> int:
        first = 1 + (self._frames if kind is Kind.FRAMES else self._stacks)
        if kind is Kind.FRAMES:
            self._frames += len(rows)
        else:
            self._stacks += len(rows)
        names = dtype.names or ()
        payload = b"".join(encode_column(rows[name].astype(np.uint64)) for name in names)
        self._write_chunk(kind, NO_PROCESS, payload, len(rows), first)
        return first

    def _write_json(self, kind: Kind, process: int, value: Any, items: int = 1) -> None:
        self._write_chunk(kind, process, msgspec.json.encode(value), items)

    def _write_chunk(
        self, kind: Kind, process: int, payload: bytes | memoryview, items: int, first: int = 0
    ) -> None:
        plain_bytes = len(payload)
        stored = self._compressor.compress(payload) if plain_bytes > 64 else bytes(payload)
        codec = Codec.ZSTD if plain_bytes > 64 else Codec.PLAIN
        header = np.zeros(1, CHUNK_HEADER)
        header[0] = (
            CHUNK_MAGIC,
            kind,
            codec,
            process,
            items,
            len(stored),
            plain_bytes,
            first,
            zlib.crc32(stored),
            0,
        )
        header["header_crc"] = zlib.crc32(header.tobytes()[:-4])
        self._write(header.tobytes() + stored)

    def _write(self, data: bytes) -> None:
        """Write the whole of a chunk or, where the file system has no room, leave the file as it was."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.truncate(self.bytes_written)
            self._file.seek(self.bytes_written)
            raise
        self.bytes_written += len(data)

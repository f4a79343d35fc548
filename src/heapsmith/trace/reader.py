"""Reading a trace file: everything before the first damage, and what is lost behind it."""

from __future__ import annotations

import mmap
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from heapsmith.errors import TraceError
from heapsmith.trace.batch import EventBatch, decode_batch
from heapsmith.trace.columns import decode_column
from heapsmith.trace.layout import (
    CHUNK_HEADER,
    CHUNK_MAGIC,
    FILE_HEADER,
    FRAME,
    LARGEST_PLAIN_BYTES,
    MAGIC,
    MEMORY_SAMPLE,
    READABLE_VERSIONS,
    STACK,
    Codec,
    Kind,
)
from heapsmith.trace.objects import ObjectBatch, read_objects
from heapsmith.trace.records import (
    Drops,
    End,
    FrameSymbols,
    Manifest,
    Mark,
    ModuleRecord,
    ProcessEnd,
    ProcessStart,
    Symbol,
    ThreadRecord,
)

_DAMAGE: Final = (ValueError, KeyError, IndexError, OverflowError, msgspec.MsgspecError, zstandard.ZstdError)


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a file stops being readable, and what lies behind that point."""

    offset_bytes: int
    reason: str
    lost_bytes: int
    lost_events: int | None
    """Events of batches whose headers can still be read; None if none can."""


@dataclass(slots=True)
class TraceProcess:
    """One process image of a trace."""

    index: int
    start: ProcessStart
    end: ProcessEnd | None = None
    """None: it did not end before the recording did, or the file does not say."""
    threads: dict[int, ThreadRecord] = field(default_factory=dict[int, ThreadRecord])
    marks: list[Mark] = field(default_factory=list[Mark])
    drops: list[Drops] = field(default_factory=list[Drops])
    notes: list[str] = field(default_factory=list[str])
    """What of it could not be recorded, for people."""
    events: int = 0
    memory: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, MEMORY_SAMPLE))
    """dtype `MEMORY_SAMPLE`."""

    @property
    def dropped_events(self) -> int:
        """Events that the recording lost."""
        return sum(drop.events for drop in self.drops)


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: int
    codec: int
    process: int
    items: int
    offset: int
    stored_bytes: int
    plain_bytes: int
    first: int


class Trace:
    """An open trace file; made by `open_trace`.

    Attributes:
        manifest: How it was made.
        processes: By index.
        modules: By number.
        strings: By number.
        frames: dtype `FRAME`, shape (n + 1,); row 0 is no frame.
        stacks: dtype `STACK`, shape (m + 1,); row 0 is the empty stack.
        symbols: Of native frames, as far as the file tells: inlined functions first.
        end: None where the recording did not end well, or the end is lost.
        damage: None where the whole file is readable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: list[TraceProcess] = []
        self.modules: list[ModuleRecord] = []
        self.strings: list[str] = []
        self.symbols: dict[int, list[Symbol]] = {}
        self.end: End | None = None
        self.damage: Damage | None = None
        self._chunks: list[_Chunk] = []
        self._frames = [np.zeros(1, FRAME)]
        self._stacks = [np.zeros(1, STACK)]
        self._memory: dict[int, list[NDArray[np.void]]] = {}
        manifest: list[Manifest] = []
        self._data = _map(path)
        self._read(manifest)
        if not manifest:
            reason = self.damage.reason if self.damage else "it holds no manifest"
            raise TraceError(f"cannot read {path}", reason, "nothing of this file can be saved: record again")
        self.manifest = manifest[0]
        self.frames: NDArray[np.void] = np.concatenate(self._frames)
        self.stacks: NDArray[np.void] = np.concatenate(self._stacks)
        for index, samples in self._memory.items():
            self.processes[index].memory = np.concatenate(samples)

    @property
    def events(self) -> int:
        """Readable events of all processes."""
        return sum(process.events for process in self.processes)

    @property
    def dropped_events(self) -> int:
        """Events that the recording lost, of all processes."""
        return sum(process.dropped_events for process in self.processes)

    def batches(self, process: int | None = None, first_event: int = 0) -> Iterator[EventBatch]:
        """Yield the events, a batch at a time, in the order of the file.

        Args:
            process: Index of the process; all of them when left out. Batches of one process are in order; those of
                several overlap in time.
            first_event: Batches that begin before this event of their process are left out.

        Raises:
            TraceError: A batch has the right checksum and makes no sense.
        """
        for chunk in self._chunks:
            if process in (None, chunk.process) and chunk.first >= first_event:
                try:
                    batch = decode_batch(
                        self._payload(chunk),
                        process=chunk.process,
                        first_event=chunk.first,
                        tick_ns=self.manifest.tick_ns,
                    )
                except _DAMAGE as error:
                    raise TraceError(
                        f"cannot read the events of {self.path}", f"a batch is damaged: {error}"
                    ) from error
                yield batch

    def payloads(self, process: int) -> Iterator[memoryview]:
        """Yield the decompressed batches of one process as bytes, in order: what `decode_batch` takes."""
        return (self._payload(chunk) for chunk in self._chunks if chunk.process == process)

    def first_payload(self, process: int, *, last: bool = False) -> memoryview | None:
        """Answer the first batch of one process as bytes, or the last one; None where it has none."""
        chunks = reversed(self._chunks) if last else self._chunks
        return next((self._payload(chunk) for chunk in chunks if chunk.process == process), None)

    def objects(self, process: int | None = None) -> Iterator[ObjectBatch]:
        """Yield the objects, each with its birth and death, in the order in which they died.

        Args:
            process: Index of the process; all of them, one after another, when left out.
        """
        return read_objects(self, process)

    def frames_of(self, stack: int) -> list[int]:
        """Answer the numbers of a stack's frames, innermost first."""
        numbers: list[int] = []
        while stack:
            parent, frame = self.stacks[stack]
            numbers.append(int(frame))
            stack = int(parent)
        return numbers

    def _read(self, manifest: list[Manifest]) -> None:
        data, offset, whole = self._data, FILE_HEADER.itemsize, len(self._data)
        while offset < whole:
            chunk = self._chunk_at(offset)
            if isinstance(chunk, str):
                self.damage = Damage(offset, chunk, whole - offset, None)
                return
            behind = chunk.offset + chunk.stored_bytes
            stored = memoryview(data)[chunk.offset : behind]
            crc = int(np.frombuffer(data, CHUNK_HEADER, 1, offset)[0]["payload_crc"])
            reason = ""
            if zlib.crc32(stored) != crc:
                reason = "a chunk does not match its checksum"
            else:
                try:
                    self._take(chunk, manifest)
                except _DAMAGE as error:
                    reason = f"a chunk cannot be decoded ({error})"
            if reason:
                self.damage = Damage(offset, reason, whole - offset, self._count_events(offset))
                return
            offset = behind

    def _chunk_at(self, offset: int) -> _Chunk | str:
        """Answer the chunk at `offset`, or why there is none."""
        if offset + CHUNK_HEADER.itemsize > len(self._data):
            return "the file ends within a chunk"
        header = np.frombuffer(self._data, CHUNK_HEADER, 1, offset)
        row = header[0]
        if row["magic"] != CHUNK_MAGIC or zlib.crc32(header.tobytes()[:-4]) != row["header_crc"]:
            return "a chunk's header is damaged"
        start = offset + CHUNK_HEADER.itemsize
        if start + int(row["stored_bytes"]) > len(self._data):
            return "the file ends within a chunk"
        return _Chunk(
            kind=int(row["kind"]),
            codec=int(row["codec"]),
            process=int(row["process"]),
            items=int(row["items"]),
            offset=start,
            stored_bytes=int(row["stored_bytes"]),
            plain_bytes=int(row["plain_bytes"]),
            first=int(row["first"]),
        )

    def _count_events(self, offset: int) -> int | None:
        events = None
        while not isinstance(chunk := self._chunk_at(offset), str):
            if chunk.kind == Kind.EVENTS:
                events = (events or 0) + chunk.items
            offset = chunk.offset + chunk.stored_bytes
        return events

    def _payload(self, chunk: _Chunk) -> memoryview:
        stored = memoryview(self._data)[chunk.offset : chunk.offset + chunk.stored_bytes]
        if chunk.codec == Codec.PLAIN:
            return stored
        if chunk.codec != Codec.ZSTD or chunk.plain_bytes > LARGEST_PLAIN_BYTES:
            raise ValueError("its compression is unknown")
        try:
            plain = zstandard.ZstdDecompressor().decompress(stored, max_output_size=chunk.plain_bytes)
        except zstandard.ZstdError as error:
            raise ValueError(f"it cannot be decompressed: {error}") from error
        if len(plain) != chunk.plain_bytes:
            raise ValueError("it is not as long as it says")
        return memoryview(plain)

    def _take(self, chunk: _Chunk, manifest: list[Manifest]) -> None:
        if not manifest and chunk.kind != Kind.MANIFEST:
            raise ValueError("the manifest does not come first")
        if chunk.kind == Kind.EVENTS:
            process = self.processes[chunk.process]
            if chunk.first != process.events:
                raise ValueError("events are missing before it")
            process.events += chunk.items
            self._chunks.append(chunk)
            return
        payload = self._payload(chunk)
        match chunk.kind:
            case Kind.MANIFEST:
                manifest.append(msgspec.json.decode(payload, type=Manifest))
            case Kind.PROCESS:
                if chunk.process != len(self.processes):
                    raise ValueError("a process is missing before it")
                start = msgspec.json.decode(payload, type=ProcessStart)
                self.processes.append(TraceProcess(chunk.process, start))
            case Kind.PROCESS_END:
                self.processes[chunk.process].end = msgspec.json.decode(payload, type=ProcessEnd)
            case Kind.THREADS:
                threads = msgspec.json.decode(payload, type=list[ThreadRecord])
                self.processes[chunk.process].threads.update({thread.index: thread for thread in threads})
            case Kind.MODULES:
                self.modules.extend(msgspec.json.decode(payload, type=list[ModuleRecord]))
            case Kind.STRINGS:
                self.strings.extend(msgspec.json.decode(payload, type=list[str]))
            case Kind.FRAMES:
                self._frames.append(_decode_table(payload, FRAME))
            case Kind.STACKS:
                self._stacks.append(_decode_table(payload, STACK))
            case Kind.MEMORY:
                samples = self._memory.setdefault(self.processes[chunk.process].index, [])
                samples.append(np.frombuffer(payload, MEMORY_SAMPLE))
            case Kind.DROPS:
                self.processes[chunk.process].drops.append(msgspec.json.decode(payload, type=Drops))
            case Kind.MARKS:
                self.processes[chunk.process].marks.extend(msgspec.json.decode(payload, type=list[Mark]))
            case Kind.NOTES:
                self.processes[chunk.process].notes.extend(msgspec.json.decode(payload, type=list[str]))
            case Kind.SYMBOLS:
                rows = msgspec.json.decode(payload, type=list[FrameSymbols])
                self.symbols.update({row.frame: row.symbols for row in rows})
            case Kind.END:
                self.end = msgspec.json.decode(payload, type=End)
            case _:
                pass  # a later version may add kinds that this one can do without


def open_trace(path: Path | str) -> Trace:
    """Open a trace file, and read all of it but the events.

    Args:
        path: A file that `heapsmith record` wrote, whole, truncated or damaged.

    Raises:
        TraceError: It is not a trace, or of a version that cannot be read, or cannot be opened.
    """
    return Trace(Path(path))


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # opening one waits until somebody writes
            raise TraceError(f"cannot open {path}", "it is a pipe, which cannot be read twice", "give a file")
        with path.open("rb") as file:
            head = file.read(FILE_HEADER.itemsize)
            if len(head) == FILE_HEADER.itemsize and head[:8] == MAGIC:
                version = int(np.frombuffer(head, FILE_HEADER)[0]["version"])
                if version not in READABLE_VERSIONS:
                    readable = ", ".join(map(str, sorted(READABLE_VERSIONS)))
                    raise TraceError(
                        f"cannot read {path}",
                        f"it is a trace of version {version}, and this heapsmith reads version {readable}",
                        "use the heapsmith that recorded it, or a newer one",
                    )
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise TraceError(f"cannot open {path}", error.strerror or str(error), "check the path") from error
    raise TraceError(f"{path} is not a trace", hint="`heapsmith record -o FILE.heap -- COMMAND` makes one")


def _decode_table(payload: memoryview, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    offset = 0
    columns: list[NDArray[np.uint64]] = []
    for _ in dtype.names or ():
        values, offset = decode_column(payload, offset)
        columns.append(values)
    rows = np.zeros(len(columns[0]), dtype)
    for name, values in zip(dtype.names or (), columns, strict=True):
        rows[name] = values
    return rows

"""The tables of `report --format parquet` read back, from any place that Polars reads: local files, object storage."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from heapsmith.errors import TraceError
from heapsmith.trace.batch import NO_OBJECT, UNKNOWN_OBJECT, encode_batch
from heapsmith.trace.inputs import SUFFIX
from heapsmith.trace.layout import (
    FRAME,
    IS_BORN,
    MEMORY_SAMPLE,
    STACK,
    UNKNOWN_MODULE,
    FrameKind,
    OperationFlag,
)
from heapsmith.trace.parquet import OPERATIONS, ProcessFacts
from heapsmith.trace.records import End, FrameSymbols, ModuleRecord, Symbol
from heapsmith.trace.writer import TraceWriter

_ROWS: Final = 1 << 20
_OFFSET: Final = re.compile(r"(?:^|\+)0x([0-9a-f]+)")


def find_tables(name: str) -> list[str]:
    """Find the tables that a name stands for.

    Args:
        name: ``x.parquet`` as given to ``report -o``, one of its tables, a folder (ending in ``/``), or a
            pattern of any of these: ``s3://bucket/fleet/*.parquet``. A URL that does not end in ``.parquet`` is a folder.

    Returns:
        What is before ``.events.parquet`` and so on, each once.

    Raises:
        TraceError: It cannot be read, or there is nothing.
    """
    if name.endswith(SUFFIX):
        raise TraceError(
            f"cannot read {name}",
            "a trace is read from a file of this machine",
            "copy it here, or put its tables there: `heapsmith report FILE.heap --format parquet`",
        )
    if "://" in name and not name.endswith((".parquet", "/")):
        name += "/"
    if name.endswith("/"):
        name += "*.parquet"
    base = re.sub(r"(\.(events|objects|stacks|frames|processes))?\.parquet$", "", name)
    ending = ".processes.parquet"
    if not any(sign in base for sign in "*?["):
        return [base]
    try:
        found = (
            pl.scan_parquet(base + ending, include_file_paths="found_at")
            .select("found_at")
            .unique()
            .collect()
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(base + ending, error) from None
    return sorted(path.removesuffix(ending) for path in found["found_at"].to_list())


def convert_tables(
    base: str, folder: Path, on_events: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write the trace files that tables were made from; a million events at a time, whatever their number.

    Args:
        base: As `find_tables` answers.
        folder: Where the trace files go.
        on_events: Called with the number of events that are written, and of all there are.

    Raises:
        TraceError: The tables cannot be read, or are not ours.
    """
    try:
        return _Conversion(base, folder).run(on_events)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(f"{base}.*.parquet", error) from None
    except (msgspec.MsgspecError, ValueError, KeyError, IndexError) as error:
        raise TraceError(
            f"{base}.*.parquet do not fit each other",
            str(error),
            "write them again: heapsmith report FILE.heap --format parquet",
        ) from None


def _unreadable(name: str, error: Exception) -> TraceError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    reason = reason.partition(": <?xml")[0]  # what an object storage says beside its code
    return TraceError(
        f"cannot read {name}",
        reason,
        "`heapsmith report FILE.heap --format parquet -o x.parquet` writes x.events.parquet and the tables beside it",
    )


class _Conversion:
    def __init__(self, base: str, folder: Path) -> None:
        self._base, self._folder = base, folder
        self._writers: list[TraceWriter] = []
        self._numbers: list[NDArray[np.uint32]] = []
        self._objects: dict[tuple[int, int], int] = {}

    def run(self, on_events: Callable[[int, int], None] | None) -> list[Path]:
        processes = self._read("processes").sort("file", "process")
        frames = self._read("frames").sort("frame")
        stacks = self._read("stacks").sort("file", "stack")
        stem = self._base.rpartition("/")[2]
        files: list[int] = processes["file"].to_list()
        facts = [msgspec.json.decode(text, type=ProcessFacts) for text in processes["facts"].to_list()]
        try:
            for file, found in zip(files, facts, strict=True):
                if file == len(self._writers):
                    path = self._folder / f"{len(list(self._folder.iterdir()))}-{stem}.heap"
                    writer = TraceWriter(path, found.manifest)
                    self._writers.append(writer)
                    self._begin(writer, frames, stacks.filter(pl.col("file") == file))
                self._add_process(self._writers[file], found)
            self._write_events(on_events)
            for file, writer in enumerate(self._writers):
                of_file = [found for of, found in zip(files, facts, strict=True) if of == file]
                for process, found in enumerate(of_file):
                    if found.end is not None:
                        writer.end_process(process, found.end)
                if of_file[0].complete:
                    ended_ns = max(found.end.ended_ns if found.end else 0 for found in of_file)
                    writer.write_end(End(ended_ns=ended_ns, events=writer.events))
        finally:
            for writer in self._writers:
                writer.close()
        return [writer.path for writer in self._writers]

    def _read(self, table: str) -> pl.DataFrame:
        return pl.read_parquet(f"{self._base}.{table}.parquet", glob=False)

    def _add_process(self, writer: TraceWriter, facts: ProcessFacts) -> None:
        process = writer.add_process(facts.start)
        writer.write_threads(process, facts.threads)
        if facts.marks:
            writer.write_marks(process, facts.marks)
        for drops in facts.drops:
            writer.write_drops(process, drops)
        if facts.notes:
            writer.write_notes(process, facts.notes)
        if facts.memory:
            writer.write_memory(process, np.array([tuple(row) for row in facts.memory], MEMORY_SAMPLE))

    def _begin(self, writer: TraceWriter, frames: pl.DataFrame, stacks: pl.DataFrame) -> None:
        """Write frames and stacks, and note what numbers the stacks have in the new file."""
        strings: dict[str, int] = {}
        modules: dict[ModuleRecord, int] = {}
        rows: list[tuple[int, int, int, int]] = []
        symbols: list[FrameSymbols] = []
        for row in frames.iter_rows(named=True):
            if row["python"]:
                name, file = (
                    strings.setdefault(row[key] or "", len(strings)) for key in ("function", "file")
                )
                rows.append((FrameKind.PYTHON, name, file, row["line"] or 0))
                continue
            offset = None if row["named"] else _OFFSET.search(row["function"])
            if row["module"] is None and offset is None:
                rows.append((0, 0, 0, 0))
                continue
            module = UNKNOWN_MODULE
            if row["module"] is not None:
                record = ModuleRecord(path=row["module"], build_id=row["build_id"])
                module = modules.setdefault(record, len(modules))
            if row["named"]:
                symbols.append(
                    FrameSymbols(len(rows) + 1, [Symbol(row["function"], row["file"], row["line"])])
                )
            rows.append((FrameKind.NATIVE, module, int(offset[1], 16) if offset else 0, 0))
        writer.write_strings(list(strings))
        writer.write_modules(list(modules))
        writer.write_frames(np.array(rows, FRAME))
        writer.write_symbols(symbols)
        nodes: dict[int, int] = {}
        tree: list[tuple[int, int]] = []
        numbers = np.zeros(1 + int(stacks["stack"].max() or 0) if len(stacks) else 1, np.uint32)  # type: ignore[arg-type]
        for stack, path in zip(stacks["stack"].to_list(), stacks["frame"].to_list(), strict=True):
            node = 0
            for frame in reversed(path) if stack else ():
                key = node << 32 | frame
                child = nodes.get(key)
                if child is None:
                    tree.append((node, frame + 1))
                    child = nodes[key] = len(tree)
                node = child
            numbers[stack] = node
        if tree:
            writer.write_stacks(np.array(tree, STACK))
        self._numbers.append(numbers)

    def _write_events(self, on_events: Callable[[int, int], None] | None) -> None:
        table = pl.scan_parquet(f"{self._base}.events.parquet", glob=False).with_columns(
            pl.col("operation").cast(pl.String).cast(pl.Enum(OPERATIONS)).to_physical()
        )
        total = int(table.select(pl.len()).collect().item())
        for first in range(0, total, _ROWS):
            rows = table.slice(first, _ROWS).collect()
            owner = np.stack([rows["file"].to_numpy(), rows["process"].to_numpy()])
            changes = np.flatnonzero(np.any(np.diff(owner, axis=1) != 0, axis=0)) + 1
            bounds = [0, *changes.tolist(), len(rows)]
            for begin, end in itertools.pairwise(bounds):
                self._write_batch(int(owner[0, begin]), int(owner[1, begin]), rows[begin:end])
            if on_events is not None:
                on_events(first + len(rows), total)

    def _write_batch(self, file: int, process: int, rows: pl.DataFrame) -> None:
        def column(name: str, dtype: Any) -> NDArray[Any]:
            return rows[name].to_numpy().astype(dtype)

        operation = column("operation", np.uint8)
        operation[column("python", np.bool_)] |= np.uint8(OperationFlag.PYTHON)
        is_born = IS_BORN[operation]
        born = rows["born"].fill_null(NO_OBJECT).to_numpy()[is_born]
        gaps = np.flatnonzero(np.diff(born) != 1)
        if len(gaps):  # objects of a batch are numbered without a gap, so behind one begins another
            end = int(np.flatnonzero(is_born)[gaps[0] + 1])
            self._write_batch(file, process, rows[:end])
            self._write_batch(file, process, rows[end:])
            return
        key = file, process
        first_object = int(born[0]) if len(born) else self._objects.get(key, 0)
        died = rows["died"].fill_null(NO_OBJECT).to_numpy().copy()
        died[rows["died_unknown"].to_numpy()] = UNKNOWN_OBJECT
        stack = column("stack", np.int64)
        numbers = self._numbers[file]
        writer = self._writers[file]
        payload, births = encode_batch(
            first_object=first_object,
            tick_ns=writer.tick_ns,
            operation=operation,
            thread=column("thread", np.uint32),
            time_ns=column("time_ns", np.int64),
            size_bytes=column("size_bytes", np.uint64),
            usable_bytes=column("usable_bytes", np.uint64),
            alignment=column("alignment_log2", np.uint8),
            died=died,
            stack=numbers[np.where(stack < len(numbers), stack, 0)],
        )
        self._objects[key] = first_object + births
        writer.write_encoded_events(process, payload, len(rows), births)

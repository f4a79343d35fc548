"""A trace as open columns: Parquet files of its events, objects, stacks, frames and processes, for anybody's tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from heapsmith.errors import TraceError
from heapsmith.trace.layout import OPERATION_MASK, Operation, OperationFlag
from heapsmith.trace.objects import read_objects
from heapsmith.trace.reader import Trace
from heapsmith.trace.records import Drops, Manifest, Mark, ProcessEnd, ProcessStart, ThreadRecord
from heapsmith.trace.report import Report

OPERATIONS: Final = [operation.name.lower() for operation in Operation]
_ROW_GROUP: Final = 1 << 20
TABLES: Final = ("events", "objects", "stacks", "frames", "processes")


class ProcessFacts(msgspec.Struct, frozen=True):
    """What a trace says of a process beside its events: JSON in the table of processes, so that it can be read back."""

    manifest: Manifest
    complete: bool
    start: ProcessStart
    end: ProcessEnd | None
    threads: list[ThreadRecord]
    marks: list[Mark]
    drops: list[Drops]
    memory: list[tuple[int, int, int, int]]
    notes: list[str] = []


def table_paths(output: Path) -> dict[str, Path]:
    """Answer where the tables go: beside each other, named after the output.

    Example:
        >>> [path.name for path in table_paths(Path("x.parquet")).values()]
        ['x.events.parquet', 'x.objects.parquet', 'x.stacks.parquet', 'x.frames.parquet', 'x.processes.parquet']
    """
    stem = output.name.removesuffix(".parquet")
    return {name: output.with_name(f"{stem}.{name}.parquet") for name in TABLES}


def write_tables(traces: Sequence[Trace], report: Report, output: Path, *, force: bool = False) -> list[Path]:
    """Write the tables, a batch at a time.

    Args:
        traces: Open traces.
        report: Of these traces: its tree gives stacks their names.
        output: `table_paths` tells what becomes of it.
        force: Replace files that exist.

    Returns:
        The files.

    Raises:
        TraceError: A file exists or cannot be written.
    """
    paths = table_paths(output)
    for path in paths.values():
        if path.exists() and not force:
            raise TraceError(f"{path} exists", "nothing is replaced unasked", "--force replaces it")
    try:
        _write(paths["events"], _events(traces))
        _write(paths["objects"], _objects(traces))
        _write(paths["stacks"], _stacks(traces, report))
        _write(paths["frames"], _frames(traces, report))
        _write(paths["processes"], _processes(traces))
    except OSError as error:
        raise TraceError(f"cannot write {output}", error.strerror or str(error)) from error
    except pl.exceptions.PolarsError as error:  # how Polars wraps a full disk
        raise TraceError(f"cannot write {output}", str(error)) from error
    return list(paths.values())


def _write(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Stream frames into one file, through Polars' lazy sink so that no table has to fit into memory."""
    part = path.with_name(path.name + ".part")

    first = next(frames)
    from polars.io.plugins import register_io_source

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del predicate, n_rows, batch_size
        yield first if with_columns is None else first.select(with_columns)
        for frame in frames:
            yield frame if with_columns is None else frame.select(with_columns)

    lazy = register_io_source(source, schema=first.schema)
    try:
        lazy.sink_parquet(
            part, compression="zstd", compression_level=3, row_group_size=_ROW_GROUP, maintain_order=True
        )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _events(traces: Sequence[Trace]) -> Iterator[pl.DataFrame]:
    names = pl.Series(OPERATIONS, dtype=pl.String)
    yielded = False
    for file, trace in enumerate(traces):
        pids = np.array([process.start.pid for process in trace.processes], np.int64)
        for batch in trace.batches():
            count = len(batch)
            yielded = True
            operation = (batch.operation & OPERATION_MASK).astype(np.uint32)
            yield _event_frame(
                file, batch.process, int(pids[batch.process]), count, names, np.minimum(operation, len(OPERATIONS) - 1),
                (batch.operation & OperationFlag.PYTHON) != 0, batch,
            )  # fmt: skip
    if not yielded:
        yield _event_frame(0, 0, 0, 0, names, np.zeros(0, np.uint32), np.zeros(0, np.bool_), None)


def _event_frame(
    file: int,
    process: int,
    pid: int,
    count: int,
    names: pl.Series,
    operation: Any,
    is_python: Any,
    batch: Any,
) -> pl.DataFrame:
    empty = np.zeros(0, np.int64)

    def column(name: str) -> Any:
        return empty if batch is None else getattr(batch, name)

    return pl.DataFrame(
        {
            "file": np.full(count, file, np.uint32),
            "process": np.full(count, process, np.uint32),
            "pid": np.full(count, pid, np.int64),
            "time_ns": column("time_ns"),
            "operation": names.gather(pl.Series(operation, dtype=pl.UInt32)).cast(pl.Categorical),
            "python": is_python,
            "thread": column("thread").astype(np.uint32),
            "size_bytes": column("size_bytes").astype(np.uint64),
            "usable_bytes": column("usable_bytes").astype(np.uint64),
            "alignment_log2": column("alignment").astype(np.uint8),
            "born": pl.Series(column("born")).replace(-1, None),
            "died": pl.Series(column("died")).replace([-1, -2], [None, None]),
            "died_unknown": column("died") == -2,
            "stack": column("stack").astype(np.uint32),
        }
    )


def _objects(traces: Sequence[Trace]) -> Iterator[pl.DataFrame]:
    names = pl.Series(OPERATIONS, dtype=pl.String)
    yielded = False
    for file, trace in enumerate(traces):
        for batch in read_objects(trace):
            yielded = True
            count = len(batch)
            process = trace.processes[batch.process]
            yield pl.DataFrame(
                {
                    "file": np.full(count, file, np.uint32),
                    "process": np.full(count, batch.process, np.uint32),
                    "pid": np.full(count, process.start.pid, np.int64),
                    "object": batch.number,
                    "born_ns": batch.born_ns,
                    "died_ns": pl.Series(batch.died_ns).replace(-1, None),
                    "lifetime_ns": pl.Series(
                        np.where(batch.died_ns < 0, -1, batch.died_ns - batch.born_ns)
                    ).replace(-1, None),
                    "size_bytes": batch.size_bytes,
                    "usable_bytes": batch.usable_bytes,
                    "alignment_log2": batch.alignment,
                    "operation": names.gather(pl.Series(batch.operation.astype(np.uint32))).cast(
                        pl.Categorical
                    ),
                    "python": batch.is_python,
                    "born_thread": batch.born_thread,
                    "died_thread": pl.Series(batch.died_thread).replace(-1, None),
                    "stack": batch.stack,
                }
            )
    if not yielded:
        yield pl.DataFrame(
            schema={"file": pl.UInt32, "process": pl.UInt32, "pid": pl.Int64, "object": pl.Int64}
        )


def _stacks(traces: Sequence[Trace], report: Report) -> Iterator[pl.DataFrame]:
    forest = report.forest
    for file in range(len(traces)):
        rows: dict[int, int] = {}
        for process in report.processes:
            if process.trace == file:
                rows.update(zip(process.places.stack.tolist(), process.node.tolist(), strict=True))
        numbers = sorted(rows)
        yield pl.DataFrame(
            {
                "file": np.full(len(numbers), file, np.uint32),
                "stack": np.array(numbers, np.uint32),
                "frames": [[label.text for label in forest.path(rows[number])] for number in numbers],
                "frame": [forest.path_numbers(rows[number]) for number in numbers],
            },
            schema={
                "file": pl.UInt32,
                "stack": pl.UInt32,
                "frames": pl.List(pl.String),
                "frame": pl.List(pl.UInt32),
            },
        )


def _frames(traces: Sequence[Trace], report: Report) -> Iterator[pl.DataFrame]:
    labels = report.forest.labels
    build_ids = {module.path: module.build_id for trace in traces for module in trace.modules}
    yield pl.DataFrame(
        {
            "frame": range(len(labels)),
            "function": [label.function for label in labels],
            "file": [label.file for label in labels],
            "line": [label.line for label in labels],
            "module": [label.module for label in labels],
            "build_id": [build_ids.get(label.module or "") for label in labels],
            "python": [label.is_python for label in labels],
            "named": [label.is_named for label in labels],
        },
        schema={
            "frame": pl.UInt32,
            "function": pl.String,
            "file": pl.String,
            "line": pl.UInt32,
            "module": pl.String,
            "build_id": pl.String,
            "python": pl.Boolean,
            "named": pl.Boolean,
        },
    )


def _processes(traces: Sequence[Trace]) -> Iterator[pl.DataFrame]:
    rows: list[tuple[Any, ...]] = []
    for file, trace in enumerate(traces):
        for process in trace.processes:
            start, end = process.start, process.end
            facts = ProcessFacts(
                manifest=trace.manifest,
                complete=trace.end is not None,
                start=start,
                end=end,
                threads=list(process.threads.values()),
                marks=process.marks,
                drops=process.drops,
                memory=process.memory.tolist(),
                notes=process.notes,
            )
            rows.append(
                (
                    file,
                    process.index,
                    start.pid,
                    start.ppid,
                    start.name,
                    start.command,
                    start.started_ns,
                    end.ended_ns if end else None,
                    end.exit_code if end else None,
                    end.signal if end else None,
                    process.events,
                    process.dropped_events,
                    msgspec.json.encode(facts).decode(),
                )
            )
    yield pl.DataFrame(
        rows,
        schema={
            "file": pl.UInt32,
            "process": pl.UInt32,
            "pid": pl.Int64,
            "ppid": pl.Int64,
            "name": pl.String,
            "command": pl.List(pl.String),
            "started_ns": pl.Int64,
            "ended_ns": pl.Int64,
            "exit_code": pl.Int64,
            "signal": pl.Int64,
            "events": pl.Int64,
            "dropped_events": pl.Int64,
            "facts": pl.String,
        },
        orient="row",
    )

"""The objects of a trace: each block with its birth and death in one row, so that lifetimes need no join."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heapsmith.trace.layout import OPERATION_MASK, Operation, OperationFlag

if TYPE_CHECKING:
    from heapsmith.trace.reader import Trace

STILL_LIVE = -1
"""In `ObjectBatch.died_ns` and `died_thread`: the object outlived the recording."""


@dataclass(frozen=True, slots=True)
class ObjectBatch:
    """Objects of one process, in the order in which they died; those still live at the end come last.

    Every column has shape (n,). A reallocation ends one object and makes another.
    """

    process: int
    number: NDArray[np.int64]
    """In the order of allocation in the process."""
    born_ns: NDArray[np.int64]
    """Since the start of the trace."""
    died_ns: NDArray[np.int64]
    size_bytes: NDArray[np.uint64]
    """Requested."""
    usable_bytes: NDArray[np.uint64]
    alignment: NDArray[np.uint8]
    born_thread: NDArray[np.uint32]
    died_thread: NDArray[np.int64]
    stack: NDArray[np.uint32]
    operation: NDArray[np.uint8]
    """That made it, without flags."""
    is_python: NDArray[np.bool_]
    died_by: NDArray[np.uint8]
    """The operation that ended it; 255 where it still lived."""

    def __len__(self) -> int:
        return len(self.number)


_COLUMNS = (
    "number",
    "born_ns",
    "size_bytes",
    "usable_bytes",
    "alignment",
    "born_thread",
    "stack",
    "operation",
    "is_python",
)
_DTYPES = (np.int64, np.int64, np.uint64, np.uint64, np.uint8, np.uint32, np.uint32, np.uint8, np.bool_)


def read_objects(trace: Trace, process: int | None = None) -> Iterator[ObjectBatch]:
    """Yield the objects of a trace; memory is needed for those that live, not for those that have died.

    Args:
        trace: The open trace.
        process: Index of the process; all of them, one after another, when left out.
    """
    for each in trace.processes if process is None else [trace.processes[process]]:
        yield from _read_process(trace, each.index)


def _read_process(trace: Trace, process: int) -> Iterator[ObjectBatch]:
    live: list[NDArray[Any]] = [np.zeros(0, dtype) for dtype in _DTYPES]  # sorted by number
    for batch in trace.batches(process):
        born = batch.born >= 0
        operation = batch.operation[born]
        fresh = (
            batch.born[born], batch.time_ns[born], batch.size_bytes[born], batch.usable_bytes[born],
            batch.alignment[born], batch.thread[born], batch.stack[born], operation & OPERATION_MASK,
            (operation & OperationFlag.PYTHON) != 0,
        )  # fmt: skip
        live = [np.concatenate([old, new]) for old, new in zip(live, fresh, strict=True)]
        dying = np.flatnonzero(batch.died >= 0)
        numbers = live[0]
        places = np.searchsorted(numbers, batch.died[dying])
        known = places < len(numbers)
        known[known] = numbers[places[known]] == batch.died[dying][known]
        # Of a number that dies twice (never in an undamaged trace) the first death counts.
        _, first = np.unique(places[known], return_index=True)
        chosen = np.sort(np.flatnonzero(known)[first])
        dead, events = places[chosen], dying[chosen]
        if len(dead):
            yield _batch(
                process, [column[dead] for column in live], batch.time_ns[events], batch.thread[events].astype(np.int64),
                batch.operation[events] & np.uint8(OPERATION_MASK),
            )  # fmt: skip
            kept = np.ones(len(numbers), np.bool_)
            kept[dead] = False
            live = [column[kept] for column in live]
    if len(live[0]):
        count = len(live[0])
        yield _batch(
            process, live, np.full(count, STILL_LIVE, np.int64), np.full(count, STILL_LIVE, np.int64),
            np.full(count, 255, np.uint8),
        )  # fmt: skip


def _batch(
    process: int,
    columns: list[NDArray[Any]],
    died_ns: NDArray[np.int64],
    died_thread: NDArray[np.int64],
    died_by: NDArray[np.uint8],
) -> ObjectBatch:
    named = dict(zip(_COLUMNS, columns, strict=True))
    return ObjectBatch(process=process, died_ns=died_ns, died_thread=died_thread, died_by=died_by, **named)  # type: ignore[arg-type]


def is_mapping(batch: ObjectBatch) -> NDArray[np.bool_]:
    """Whether each object is a mapping that the program made itself."""
    return batch.operation == Operation.MAP

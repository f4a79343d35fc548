"""A batch of events as columns, and its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.trace.columns import decode_column, encode_column
from heapsmith.trace.layout import IS_BORN, IS_DIED

NO_OBJECT: Final = -1
"""In `EventBatch.born` and `died`: the event makes, or ends, no object."""

UNKNOWN_OBJECT: Final = -2
"""In `EventBatch.died`: the block was allocated before the recording began, or its allocation was dropped."""

BATCH_HEADER: Final = np.dtype(
    [
        ("base_tick", "<u8"),
        ("first_object", "<u8"),
        ("events", "<u4"),
        ("shapes", "<u4"),
        ("stacks", "<u4"),
        ("flags", "<u4"),
    ]
)
"""Before the columns of a batch; `stacks` is 0 where none of its events has a stack."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events of one process in the order in which they happened; every column has shape (n,).

    Objects are numbered from 0 in the order of their allocation in their process. `born` is the number of the object that
    the event made, `died` of the one that it ended; a reallocation does both.
    """

    process: int
    first_event: int
    """Number of the first event, counted from 0 in this process."""
    operation: NDArray[np.uint8]
    """`Operation`, with `OperationFlag` added."""
    thread: NDArray[np.uint32]
    """`ThreadRecord.index` of the thread that did it."""
    time_ns: NDArray[np.int64]
    """Since the start of the trace, not falling."""
    size_bytes: NDArray[np.uint64]
    """Requested; 0 where no object is born."""
    usable_bytes: NDArray[np.uint64]
    """What the allocator gave; 0 where no object is born."""
    alignment: NDArray[np.uint8]
    """Base-2 logarithm of the alignment asked for; 0: none was."""
    born: NDArray[np.int64]
    died: NDArray[np.int64]
    stack: NDArray[np.uint32]
    """Of the allocation; 0: none was recorded."""

    def __len__(self) -> int:
        return len(self.operation)


def encode_batch(
    *,
    first_object: int,
    tick_ns: int,
    operation: NDArray[np.uint8],
    thread: NDArray[np.uint32],
    time_ns: NDArray[np.int64],
    size_bytes: NDArray[np.uint64],
    usable_bytes: NDArray[np.uint64],
    alignment: NDArray[np.uint8],
    died: NDArray[np.int64],
    stack: NDArray[np.uint32],
) -> tuple[bytes, int]:
    """Encode a batch; the columns are those of `EventBatch`.

    Returns:
        The payload, and how many objects were born in it.
    """
    is_born = IS_BORN[operation]
    is_died = IS_DIED[operation]
    ticks = (time_ns // tick_ns).astype(np.uint64)
    base_tick = int(ticks[0]) if len(ticks) else 0
    objects_before = first_object + np.cumsum(is_born) - is_born
    dying = died[is_died]
    age = np.where(dying >= 0, objects_before[is_died] - dying, 0).astype(np.uint64)

    shape_index, shapes = _rank(
        size_bytes[is_born], usable_bytes[is_born] - size_bytes[is_born], alignment[is_born].astype(np.uint64)
    )
    stacks_of_born = stack[is_born].astype(np.uint64)
    if stacks_of_born.any():
        stack_index, (stack_table,) = _rank(stacks_of_born)
    else:
        stack_index = stack_table = np.zeros(0, np.uint64)
    header = np.zeros(1, BATCH_HEADER)
    header[0] = base_tick, first_object, len(operation), len(shapes[0]), len(stack_table), 0
    payload = b"".join(
        [
            header.tobytes(),
            encode_column(operation),
            encode_column(thread),
            encode_column(np.diff(ticks, prepend=np.uint64(base_tick))),
            encode_column(age),
            encode_column(shape_index),
            *(encode_column(column) for column in shapes),
            encode_column(stack_index),
            encode_column(stack_table),
        ]
    )
    return payload, int(np.count_nonzero(is_born))


def decode_batch(payload: memoryview, *, process: int, first_event: int, tick_ns: int) -> EventBatch:
    """Decode the payload of an events chunk.

    Raises:
        ValueError: The payload is not a batch of events.
    """
    header = np.frombuffer(payload, BATCH_HEADER, 1)[0]
    count = int(header["events"])
    columns: list[NDArray[np.uint64]] = []
    offset = BATCH_HEADER.itemsize
    for _ in range(10):
        values, offset = decode_column(payload, offset)
        columns.append(values)
    operation_u64, thread, ticks, age, shape_index, sizes, slacks, alignments, stack_index, stack_table = (
        columns
    )
    operation = operation_u64.astype(np.uint8)
    is_born = IS_BORN[operation]
    is_died = IS_DIED[operation]
    births = int(np.count_nonzero(is_born))
    if not (len(operation) == len(thread) == len(ticks) == count and len(shape_index) == births):
        raise ValueError("the columns of a batch do not fit each other")
    if len(age) != np.count_nonzero(is_died) or (len(stack_table) and len(stack_index) != births):
        raise ValueError("the columns of a batch do not fit each other")

    if births and not (
        len(sizes) == len(slacks) == len(alignments) > int(shape_index.max())
        and (not len(stack_table) or int(stack_index.max()) < len(stack_table))
    ):
        raise ValueError("the columns of a batch do not fit each other")

    first_object = int(header["first_object"])
    born = np.full(count, NO_OBJECT, np.int64)
    born[is_born] = np.arange(first_object, first_object + births)
    died = np.full(count, NO_OBJECT, np.int64)
    objects_before = (first_object + np.cumsum(is_born) - is_born)[is_died]
    died[is_died] = np.where(age > 0, objects_before - age.astype(np.int64), UNKNOWN_OBJECT)

    def spread(values: NDArray[np.uint64], dtype: type[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        column = np.zeros(count, dtype)
        if births:
            column[is_born] = values
        return column

    return EventBatch(
        process=process,
        first_event=first_event,
        operation=operation,
        thread=thread.astype(np.uint32),
        time_ns=((int(header["base_tick"]) + np.cumsum(ticks, dtype=np.uint64)) * np.uint64(tick_ns)).astype(
            np.int64
        ),
        size_bytes=spread(sizes[shape_index], np.uint64),  # type: ignore[arg-type]
        usable_bytes=spread((sizes + slacks)[shape_index], np.uint64),  # type: ignore[arg-type]
        alignment=spread(alignments[shape_index], np.uint8),  # type: ignore[arg-type]
        born=born,
        died=died,
        stack=spread(
            stack_table[stack_index] if len(stack_table) else np.zeros(births, np.uint64), np.uint32
        ),  # type: ignore[arg-type]
    )


def _rank(*columns: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], list[NDArray[np.uint64]]]:
    """Number distinct rows by falling frequency, so that the usual ones have small numbers.

    Returns:
        For each row its number, shape (n,), and the distinct rows as columns, shape (m,) each.
    """
    key = columns[0]
    for column in columns[1:]:
        key = key * np.uint64(0x9E3779B97F4A7C15) + column
    _, first, inverse, counts = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    table = [column[first] for column in columns]
    if any(np.any(values[inverse] != column) for values, column in zip(table, columns, strict=True)):
        rows, inverse, counts = np.unique(
            np.stack(columns, axis=1), axis=0, return_inverse=True, return_counts=True
        )
        table = [rows[:, place] for place in range(len(columns))]
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.uint64)
    rank[order] = np.arange(len(order), dtype=np.uint64)
    return rank[inverse.ravel()], [values[order] for values in table]

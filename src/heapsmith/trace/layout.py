"""The bytes of a trace file: its header, its chunks, its operations. `docs/trace-format.md` says the same in words."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

import numpy as np

MAGIC: Final = b"\x93HEAP\r\n\x1a"
"""First eight bytes of every trace: not text, and damaged by whatever translates line ends."""

VERSION: Final = 1
"""Version of the format that this package writes; `READABLE_VERSIONS` are those it reads."""

READABLE_VERSIONS: Final = frozenset({1})

FILE_HEADER: Final = np.dtype([("magic", "S8"), ("version", "<u4"), ("flags", "<u4")])
"""16 bytes at the start of the file."""

CHUNK_MAGIC: Final = 0x4B4E4843
"""The four letters CHNK."""

CHUNK_HEADER: Final = np.dtype(
    [
        ("magic", "<u4"),
        ("kind", "<u2"),
        ("codec", "<u2"),
        ("process", "<u4"),
        ("items", "<u4"),
        ("stored_bytes", "<u4"),
        ("plain_bytes", "<u4"),
        ("first", "<u8"),
        ("payload_crc", "<u4"),
        ("header_crc", "<u4"),
    ]
)
"""40 bytes before every payload. ``header_crc`` is the CRC-32 of the 36 bytes before it."""

NO_PROCESS: Final = 0xFFFFFFFF
"""In a chunk's ``process``: the chunk concerns the whole file."""

LARGEST_PLAIN_BYTES: Final = 256 * 1024 * 1024
"""A payload that claims more is damage: no writer makes one."""


class Codec(IntEnum):
    """How a payload is stored."""

    PLAIN = 0
    ZSTD = 1


class Kind(IntEnum):
    """What a chunk holds."""

    MANIFEST = 1
    PROCESS = 2
    PROCESS_END = 3
    THREADS = 4
    MODULES = 5
    STRINGS = 6
    FRAMES = 7
    STACKS = 8
    EVENTS = 9
    MEMORY = 10
    DROPS = 11
    MARKS = 12
    SYMBOLS = 13
    END = 14
    NOTES = 15


class Operation(IntEnum):
    """What happened to the heap. A `born` operation makes an object, a `died` one ends an object; some do both."""

    ALLOCATE = 0
    ALLOCATE_ZEROED = 1
    ALLOCATE_ALIGNED = 2
    FREE = 3
    REALLOCATE_MOVED = 4
    REALLOCATE_IN_PLACE = 5
    MAP = 6
    UNMAP = 7
    THREAD_START = 8
    THREAD_END = 9


class OperationFlag(IntFlag):
    """What is added to an operation."""

    PYTHON = 0x40
    """The block is one of CPython's object or memory domain, out of its own arenas: malloc never saw it."""


OPERATION_MASK: Final = 0x3F

BORN: Final = frozenset(
    {
        Operation.ALLOCATE,
        Operation.ALLOCATE_ZEROED,
        Operation.ALLOCATE_ALIGNED,
        Operation.REALLOCATE_MOVED,
        Operation.REALLOCATE_IN_PLACE,
        Operation.MAP,
    }
)
"""Operations that give an object its number."""

DIED: Final = frozenset(
    {Operation.FREE, Operation.REALLOCATE_MOVED, Operation.REALLOCATE_IN_PLACE, Operation.UNMAP}
)
"""Operations that end an object."""


def _by_operation(operations: frozenset[Operation]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    table = np.zeros(256, np.bool_)
    for operation in operations:
        table[operation] = table[operation | OperationFlag.PYTHON] = True
    return table


IS_BORN: Final = _by_operation(BORN)
"""Shape (256,): whether the operation byte makes an object."""

IS_DIED: Final = _by_operation(DIED)
"""Shape (256,): whether the operation byte ends an object."""

MEMORY_SAMPLE: Final = np.dtype(
    [("time_ns", "<u8"), ("resident_bytes", "<u8"), ("anonymous_bytes", "<u8"), ("page_faults", "<u8")]
)
"""One look of the recorder at the process in ``/proc``."""


class FrameKind(IntEnum):
    """What a frame's three numbers mean."""

    NATIVE = 1
    """``a`` = module (`UNKNOWN_MODULE`: ``b`` is an address), ``b`` = address in the module as linked, ``c`` = 0."""
    PYTHON = 2
    """``a`` = string of the qualified name, ``b`` = string of the file, ``c`` = line (0: unknown)."""


UNKNOWN_MODULE: Final = 0xFFFFFFFF

FRAME: Final = np.dtype([("kind", "<u4"), ("a", "<u4"), ("b", "<u8"), ("c", "<u4")])
"""A frame as the reader gives it; frame 0 is no frame."""

STACK: Final = np.dtype([("parent", "<u4"), ("frame", "<u4")])
"""A stack is a node of a tree: its innermost frame, and the stack of its caller (0: none). Stack 0 is empty."""

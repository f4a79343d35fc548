"""The bytes shared while recording: one file for each process image, and one page for the recorder of them all.

A process image writes words into rings, one ring for each of its threads; the recorder reads them. A record is two words
or more: the first holds the stamp and the operation (`WORD_*`), the second an address, the third of a birth its requested
bytes and its stack. Each ring has one writer and one reader, who never wait for each other but at its two ends.
"""

from __future__ import annotations

import enum
from typing import Final

from heapsmith.wire.layout import Field, Struct
from heapsmith.wire.region import PAGE_BYTES

RECORDING_VERSION: Final = 3
RECORDING_MAGIC: Final = int.from_bytes(b"HSRECORD", "little")
RECORDER_MAGIC: Final = int.from_bytes(b"HSRECRDR", "little")

RECORD_VARIABLE: Final = "HEAPSMITH_RECORD"
"""The environment variable with the path of the recorder's run directory."""
RECORDER_FILE: Final = "recorder"
RECORDING_SUFFIX: Final = ".recording"

STAMP_SHIFT: Final = 12
"""A record's first word: stamp (of the processor's counter, the rest of the bits), logarithm of
the alignment (6 bits), Python's (1 bit), operation (5 bits)."""
ALIGNMENT_SHIFT: Final = 6
PYTHON_BIT: Final = 0x20
OPERATION_BITS: Final = 0x1F
ADDRESS_BITS: Final = 48
"""A birth's second word: address, and above it usable bytes beyond the requested ones."""
REQUESTED_BITS: Final = 40
"""A birth's third word: requested bytes, and above them the number of the stack."""

FRAME_MODULE_SHIFT: Final = 48
"""A native frame: its return address, and above that the number of its module, from 1 (0: none is known)."""
FRAME_PYTHON_BIT: Final = 1 << 63
"""A frame of Python: the number of its code object above 32 bits, below them the offset of the instruction in bytes."""
MODULE_CAPACITY: Final = 2048
CODE_CAPACITY: Final = 1 << 16
NODE_CAPACITY: Final = 1 << 21
TEXT_CAPACITY_BYTES: Final = 32 << 20

RING_CAPACITY: Final = 4096
RING_BYTES_LARGEST: Final = 1 << 20
RING_BYTES_FIRST: Final = 16 << 10


class RecordOperation(enum.IntEnum):
    """What a record in a ring says; how many words it has."""

    NONE = 0
    ALLOCATE = 1  # 3: address, requested
    ALLOCATE_ZEROED = 2  # 3
    ALLOCATE_ALIGNED = 3  # 3
    FREE = 4  # 2: address
    MOVE_BEGINS = 5  # 2: the block's address, before it may be anybody's
    MOVED = 6  # 3: where it is now
    MOVE_FAILED = 7  # 2: the block is where it was
    MOVED_AWAY = 8  # 2: what it became was recorded apart
    MAP = 9  # 3: address, bytes
    UNMAP = 10  # 3: address, bytes
    THREAD_START = 11  # 2: the kernel's thread id
    THREAD_END = 12  # 2
    WIDE = 13  # 3: usable and requested bytes of the next record, which has no room for them
    MARK = 14  # 2: place of a name among the texts


class RingState(enum.IntEnum):
    """Who has a ring."""

    FREE = 0
    ALIVE = 1
    ENDED = 2  # until the recorder has read the rest


class OnFull(enum.IntEnum):
    """What a thread does whose ring is full."""

    WAIT = 0
    DROP = 1


class StackMode(enum.IntEnum):
    """Which births have a stack."""

    NONE = 0
    SAMPLED = 1
    ALL = 2


RING: Final = Struct(
    "Ring",
    "One thread's records: what it has written, and what the recorder has read.",
    (
        Field("begun_words", "u64", "beyond written_words while a record is being written"),
        Field("written_words", "u64", "words in all that can be read"),
        Field("lost_events", "u64", "that found no room"),
        Field("waited_ns", "u64", "for room"),
        Field("state", "u32", "RingState"),
        Field("tid", "u32", "the kernel's thread id"),
        Field("capacity_words", "u64", "a power of two; changes only while nothing is unread"),
        Field("name", "text", "of the thread, when last looked at", 16),
        Field("read_words", "u64", "by the recorder"),
        Field("room_sequence", "u32", "raised by the recorder when it has read; a futex"),
        Field("is_waiting", "u32", "the thread waits for room"),
        Field("reader_padding", "u64", "a line of its own", 6),
    ),
    128,
)

MODULE: Final = Struct(
    "Module",
    "A shared object or program that frames lie in.",
    (
        Field("begin", "u64", "first address"),
        Field("end", "u64", "address behind the last"),
        Field("bias", "u64", "what to take from an address to have it as linked"),
        Field("build_id", "u8", "as the linker noted it", 32),
        Field("build_id_bytes", "u32", "0: it has none"),
        Field("padding", "u32", ""),
        Field("path", "text", "of the file", 448),
    ),
    512,
)

NODE: Final = Struct(
    "Node",
    "A stack: its innermost frame, and the stack of the caller.",
    (
        Field("frame", "u64", "FRAME_MODULE_SHIFT, FRAME_PYTHON_BIT"),
        Field("parent", "u32", "a lower number; 0 is the empty stack"),
        Field("padding", "u32", ""),
    ),
    16,
)

CODE: Final = Struct(
    "Code",
    "A code object of Python, copied when it was first seen; places are in the texts.",
    (
        Field("name_at", "u32", "qualified name, UTF-8"),
        Field("name_bytes", "u32", ""),
        Field("file_at", "u32", "file name, UTF-8"),
        Field("file_bytes", "u32", ""),
        Field("lines_at", "u32", "co_linetable"),
        Field("lines_bytes", "u32", ""),
        Field("first_line", "u32", "co_firstlineno"),
        Field("padding", "u32", ""),
    ),
    32,
)

RECORDING_HEADER: Final = Struct(
    "RecordingHeader",
    "A process image that is being recorded.",
    (
        Field("magic", "u64", "RECORDING_MAGIC, written last"),
        Field("version", "u32", "of this layout"),
        Field("pid", "u32", "of the process"),
        Field("parent_pid", "u32", "of its parent"),
        Field("forked", "u32", "1: it came from a fork and has executed nothing"),
        Field("image_mark", "u64", "another value after each exec"),
        Field("start_realtime_ns", "u64", "wall clock"),
        Field("start_ns", "u64", "monotonic clock"),
        Field("start_stamp", "u64", "the processor's counter"),
        Field("ring_capacity", "u32", "rings that the file has room for"),
        Field("rings_used", "u32", "rings that were ever in use"),
        Field("lost_events", "u64", "of threads that have no ring"),
        Field("exit_known", "u32", "1: the fields of the exit hold"),
        Field("exit_code", "i32", "as the parent gets it"),
        Field("exit_ns", "u64", "monotonic clock"),
        Field("is_blind", "u32", "1: the program has a malloc of its own"),
        Field("has_python", "u32", "1: CPython's objects are recorded"),
        Field("python_version", "u32", "as Py_Version has it, 0: none"),
        Field("stacks_lost", "u32", "stacks that found no room in the table"),
        Field("nodes_used", "u32", "of the tree of stacks; node 0 is the empty stack"),
        Field("codes_used", "u32", "Python's code objects"),
        Field("texts_used_bytes", "u32", "of the texts"),
        Field("modules_used", "u32", "modules that frames lie in"),
        Field("allocator_path", "text", "the object that answers malloc", 256),
        Field("python_note", "text", "why CPython's objects are not recorded, for people", 96),
        Field("frames_note", "text", "why its frames are in no stack, for people", 96),
        Field("command_bytes", "u32", "of the command"),
        Field("own_pages", "u32", "of the program's private memory that only the recording maps"),
        Field("command", "text", "arguments, each ended by zero", 2048),
        Field(
            "current_stamp", "u64", "of what happens now, as in a record; below it, a count of its changes"
        ),
    ),
    PAGE_BYTES,
)

RECORDER: Final = Struct(
    "RecorderPage",
    "What the recorder wants of every process, and whether it is alive.",
    (
        Field("magic", "u64", "RECORDER_MAGIC, written last"),
        Field("version", "u32", "of this layout"),
        Field("pid", "u32", "of the recorder"),
        Field(
            "owner_lock",
            "u32",
            "a robust mutex held by the recorder: the kernel marks its first word when that dies",
            16,
        ),
        Field("heartbeat_ns", "u64", "monotonic clock, when the recorder last looked"),
        Field("wake_sequence", "u32", "raised to wake the recorder; a futex"),
        Field("is_sleeping", "u32", "the recorder waits for that"),
        Field("images", "u32", "raised for each process image that appears"),
        Field("is_over", "u32", "1: nothing more is recorded"),
        Field("stack_mode", "u32", "StackMode"),
        Field("on_full", "u32", "OnFull"),
        Field("sample_every_bytes", "u64", "mean bytes between two sampled stacks"),
        Field("python_objects", "u32", "1: record CPython's own objects"),
    ),
    PAGE_BYTES,
)

STRUCTS: Final = (RING, MODULE, NODE, CODE, RECORDING_HEADER, RECORDER)
ENUMS: Final = (RecordOperation, RingState, OnFull, StackMode)
RINGS_OFFSET_BYTES: Final = PAGE_BYTES
MODULES_OFFSET_BYTES: Final = RINGS_OFFSET_BYTES + RING_CAPACITY * RING.size_bytes
CODES_OFFSET_BYTES: Final = MODULES_OFFSET_BYTES + MODULE_CAPACITY * MODULE.size_bytes
NODES_OFFSET_BYTES: Final = CODES_OFFSET_BYTES + CODE_CAPACITY * CODE.size_bytes
TEXTS_OFFSET_BYTES: Final = NODES_OFFSET_BYTES + NODE_CAPACITY * NODE.size_bytes
DATA_OFFSET_BYTES: Final = TEXTS_OFFSET_BYTES + TEXT_CAPACITY_BYTES
RECORDING_BYTES: Final = DATA_OFFSET_BYTES + RING_CAPACITY * RING_BYTES_LARGEST

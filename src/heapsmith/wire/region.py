"""The bytes shared with the program under study: the region, its slots and cells, the control block, the launch block.

A region belongs to one process image and is written by it alone. It is a header page, a page of events, and one slot of
4 KiB for each thread (and one more for a thread's Python objects), each with a single writer. The control block is
written from outside and only read by the program. The launch block says at start what the launcher wants.
"""

from __future__ import annotations

import enum
from typing import Final

from heapsmith.wire.classes import CLASS_COUNT, LARGE_CLASSES
from heapsmith.wire.layout import Field, Struct

VERSION: Final = 1
REGION_MAGIC: Final = int.from_bytes(b"HSREGION", "little")
CONTROL_MAGIC: Final = int.from_bytes(b"HSCONTRL", "little")
LAUNCH_MAGIC: Final = int.from_bytes(b"HSLAUNCH", "little")

PAGE_BYTES: Final = 4096
EVENT_CAPACITY: Final = 64
POOL_CAPACITY: Final = 16
SLOT_CAPACITY: Final = 16384 - 2
"""Slots of a region: address space only, a page is backed when its thread first allocates."""

RUN_VARIABLE: Final = "HEAPSMITH_RUN"
"""The environment variable with the path of the launcher's run directory."""
LAUNCH_FILE: Final = "launch"
REGION_SUFFIX: Final = ".region"
CONTROL_SUFFIX: Final = ".control"
REGION_MEMFD: Final = "heapsmith-region"
CONTROL_MEMFD: Final = "heapsmith-control"

FOLLOW_MASK: Final = 0x7F0
"""A block whose address has none of these bits is followed from its allocation to its free: what was asked for, who
frees it."""


class SlotState(enum.IntEnum):
    """Whether a slot is in use."""

    FREE = 0
    ALIVE = 1
    SPANS = 2


class SlotKind(enum.IntEnum):
    """What a slot counts; the shared kinds are one slot each and are written with atomic additions."""

    NATIVE = 0
    PYTHON = 1
    ENDED_NATIVE = 2
    ENDED_PYTHON = 3
    INHERITED_NATIVE = 4
    INHERITED_PYTHON = 5
    SPANS = 6


class SpanKind(enum.IntEnum):
    """What the spans of a row are."""

    BLOCKS = 0
    LARGE = 1
    DIRTY = 2
    PURGED = 3


OCCUPANCY_BANDS: Final = 10
SPAN_ROWS: Final = 72
SHARED_SLOTS: Final = 4
"""The first slots: ended native, ended Python, inherited native, inherited Python."""


class Counting(enum.IntEnum):
    """How blocks come to be counted: each call, or by what moves between a heap and its threads' caches."""

    CALLS = 0
    BATCHES = 1


class EventKind(enum.IntEnum):
    """What happened."""

    NONE = 0
    WARNING = 1
    REFUSED = 2
    OUT_OF_MEMORY = 3
    LIMIT_CHANGED = 4


class PythonState(enum.IntEnum):
    """What became of the wish to count CPython's own objects."""

    NO_PYTHON = 0
    COUNTED = 1
    NOT_WANTED = 2
    NOT_POSSIBLE = 3


class Allocator(enum.IntEnum):
    """How the sizes of blocks are known."""

    UNKNOWN = 0
    GLIBC = 1
    OTHER = 2
    FORGED = 3


CELL: Final = Struct(
    "Cell",
    "What one thread did with one size class.",
    (
        Field("allocations", "u64", "blocks handed out, reallocations included"),
        Field(
            "below_peak_blocks",
            "i64",
            "how many fewer blocks are live than at the peak: frees follow from it",
        ),
        Field("live_blocks_peak", "u32", "most blocks live so far: allocations - frees"),
        Field(
            "followed_allocations",
            "u32",
            "followed blocks handed out (halved together with the next when full)",
        ),
        Field("followed_slack_bytes", "u32", "of those, usable bytes beyond what was asked for, in sum"),
        Field(
            "followed_frees", "u16", "followed blocks taken back (halved together with the next when full)"
        ),
        Field("followed_remote_frees", "u16", "of those, blocks that another thread had allocated"),
    ),
    32,
)

LARGE_CELL: Final = Struct(
    "LargeCell",
    "Usable bytes of a coarse class, whose blocks differ in size.",
    (
        Field("live_bytes", "i64", "usable bytes allocated - freed"),
        Field("live_bytes_peak", "i64", "largest value of it so far"),
    ),
    16,
)

SLOT: Final = Struct(
    "Slot",
    "The counters of one thread; one writer.",
    (
        Field("state", "u32", "SlotState"),
        Field("kind", "u32", "SlotKind"),
        Field("tid", "u32", "the kernel's thread id"),
        Field("generation", "u32", "how many threads had this slot before"),
        Field("name", "text", "as the kernel has it, when last looked at", 16),
        Field("live_bytes", "i64", "usable bytes allocated - freed by this thread"),
        Field("mark_high_bytes", "i64", "live_bytes above which the writer looks up from its work"),
        Field("mark_low_bytes", "i64", "live_bytes below which it does"),
        Field("published_bytes", "i64", "what of live_bytes is in the header's published sum"),
        Field("cells", CELL, "by class index", CLASS_COUNT),
        Field("large", LARGE_CELL, "by class index above the fine ones", LARGE_CLASSES),
        Field("reallocations", "u64", "calls of realloc that were counted as a free and an allocation"),
    ),
    PAGE_BYTES,
)

EVENT: Final = Struct(
    "Event",
    "Something a person wants to hear of.",
    (
        Field("sequence", "u64", "its number from 1, written last; 0 is an empty place"),
        Field("time_ns", "u64", "CLOCK_MONOTONIC"),
        Field("kind", "u32", "EventKind"),
        Field("tid", "u32", "the thread it happened in"),
        Field("live_bytes", "i64", "of the process, at that moment"),
        Field("threshold_bytes", "i64", "the limit or threshold that was met"),
        Field("requested_bytes", "u64", "of the allocation that met it"),
    ),
    64,
)

POOL: Final = Struct(
    "Pool",
    "A private pool of the program that joined the report.",
    (
        Field("name", "text", "what the program calls it", 24),
        Field("live_bytes", "i64", "as the program last said"),
        Field("live_bytes_peak", "i64", "high-water mark of it"),
        Field("state", "u32", "SlotState"),
        Field("in_heap", "u32", "1: its memory comes from malloc and is counted there"),
    ),
    48,
)

REGION_HEADER: Final = Struct(
    "RegionHeader",
    "The first page of a region: what holds for the whole process.",
    (
        Field("magic", "u64", "REGION_MAGIC, written last"),
        Field("version", "u32", "of this layout"),
        Field("slot_bytes", "u32", "sizeof(Slot)"),
        Field("slot_capacity", "u32", "places for slots"),
        Field("slots_used", "u32", "slots ever used, from the first"),
        Field("pid", "u32", "of the process"),
        Field("parent_pid", "u32", "of its parent, at start"),
        Field("start_realtime_ns", "u64", "CLOCK_REALTIME at start"),
        Field("start_ns", "u64", "CLOCK_MONOTONIC at start"),
        Field("allocator", "u32", "Allocator"),
        Field("malloc_is_ours", "u32", "0: the program defines malloc itself, nothing native is seen"),
        Field("forked", "u32", "1: began as a copy of its parent, not by exec"),
        Field("fold_sequence", "u32", "odd while a thread's counters move into the ended ones"),
        Field("python_state", "u32", "PythonState"),
        Field("python_version", "u32", "PY_VERSION_HEX, 0 where there is no CPython"),
        Field("threads_started", "u64", "threads that ever allocated"),
        Field("threads_ended", "u64", "of those, gone"),
        Field("published_live_bytes", "i64", "sum of what threads have published"),
        Field("live_bytes_peak", "i64", "high-water mark of live bytes"),
        Field(
            "live_bytes_peak_at_most", "i64", "the true peak is not above this, or not above live_bytes_peak"
        ),
        Field("live_bytes_peak_ns", "u64", "CLOCK_MONOTONIC of it"),
        Field("mapped_bytes", "i64", "anonymous memory that the program mapped itself"),
        Field("mapped_bytes_peak", "i64", "high-water mark of it"),
        Field("maps", "u64", "anonymous mappings made"),
        Field("unmaps", "u64", "anonymous mappings removed"),
        Field("python_arena_bytes", "i64", "mapped for CPython's small objects"),
        Field("python_arena_bytes_peak", "i64", "high-water mark of it"),
        Field("limit_bytes", "u64", "in force, 0 is none"),
        Field("warn_at_bytes", "u64", "in force, 0 is none"),
        Field("refused", "u64", "allocations refused for the limit"),
        Field("out_of_memory", "u64", "allocations that the allocator itself refused"),
        Field("last_failed_bytes", "u64", "requested size of the last of either"),
        Field("warnings", "u64", "upward crossings of the warning threshold"),
        Field("events", "u64", "events ever written"),
        Field("lost", "u64", "events of the heap that could not be counted"),
        Field("lost_mappings", "u64", "mappings that could not be followed"),
        Field("exit_known", "u32", "1: the process left by exit or _exit"),
        Field("exit_code", "i32", "with what"),
        Field("exit_ns", "u64", "CLOCK_MONOTONIC of it"),
        Field("exit_resident_bytes_peak", "u64", "the kernel's high-water mark then"),
        Field("exit_minor_faults", "u64", "page faults without input/output then"),
        Field("exit_major_faults", "u64", "page faults with input/output then"),
        Field("image_mark", "u64", "AT_RANDOM of the auxiliary vector: another one after each exec"),
        Field("command_bytes", "u32", "bytes of `command`"),
        Field("python_note", "text", "why Python's objects are not counted", 96),
        Field("allocator_path", "text", "the file that answers malloc", 256),
        Field("command", "text", "the arguments, each ended by a zero", 2048),
        Field("told_version", "u32", "HS_STATS_VERSION of the writer"),
        Field("told_ns", "u64", "CLOCK_MONOTONIC of what the allocator last told of itself, 0 is never"),
        Field("told_fields", "u64", "HS_F_ bits of the next four that it told"),
        Field("told_committed_bytes", "u64", "taken by the allocator from the system"),
        Field("told_reserved_bytes", "u64", "address space of the allocator"),
        Field("told_metadata_bytes", "u64", "for the allocator itself"),
        Field("told_free_cached_bytes", "u64", "committed and free"),
        Field("pools", POOL, "private pools of the program", POOL_CAPACITY),
        Field("overflowed", "u64", "allocations of more than PTRDIFF_MAX bytes, which nobody could meet"),
        Field("counting", "u32", "Counting"),
        Field("spans_slot", "u32", "the slot that is a SpanTable, 0 is none"),
        Field("live_bytes_error_bound", "u64", "live bytes are off by at most this"),
        Field(
            "pid_namespace",
            "u64",
            "inode of the namespace that `pid` and the threads' ids hold in, 0 is unknown",
        ),
    ),
    PAGE_BYTES,
)

SPAN_ROW: Final = Struct(
    "SpanRow",
    "The spans of one size class of a forged heap, or all runs of pages in one state.",
    (
        Field("class_bytes", "u32", "block size; 0 for runs of pages"),
        Field("kind", "u32", "SpanKind"),
        Field("span_kib", "u32", "all the spans together, in KiB"),
        Field("used_blocks", "u32", "blocks that are out of the central heap"),
        Field("spans_by_occupancy", "u32", "spans by tenths of their blocks that are out", OCCUPANCY_BANDS),
    ),
    56,
)

SPAN_TABLE: Final = Struct(
    "SpanTable",
    "What a forged heap's spans hold, in the place of a slot; odd sequence while it is being written.",
    (
        Field("state", "u32", "SlotState"),
        Field("kind", "u32", "SlotKind"),
        Field("sequence", "u32", "odd while the rows are being written"),
        Field("generation", "u32", "of the slot"),
        Field("time_ns", "u64", "CLOCK_MONOTONIC when it was written, 0 is never"),
        Field("rows_used", "u32", "of the next"),
        Field("zero", "u32", "keeps the rows aligned"),
        Field("rows", SPAN_ROW, "classes by rising size, then runs of pages", SPAN_ROWS),
    ),
    PAGE_BYTES,
)

CONTROL: Final = Struct(
    "ControlBlock",
    "What the outside wants of a running program; the program only reads it.",
    (
        Field("magic", "u64", "CONTROL_MAGIC"),
        Field("version", "u32", "of this layout"),
        Field("sequence", "u32", "raised after each change"),
        Field("limit_bytes", "u64", "hard limit on live bytes, 0 is none"),
        Field("warn_at_bytes", "u64", "warning threshold, 0 is none"),
    ),
    PAGE_BYTES,
)

LAUNCH: Final = Struct(
    "LaunchBlock",
    "What the launcher wants from the first moment.",
    (
        Field("magic", "u64", "LAUNCH_MAGIC"),
        Field("version", "u32", "of this layout"),
        Field("python_objects", "u32", "1: count CPython's own objects"),
        Field("limit_bytes", "u64", "hard limit on live bytes, 0 is none"),
        Field("warn_at_bytes", "u64", "warning threshold, 0 is none"),
        Field("memory_files", "u32", "1: the directory cannot hold regions, use descriptors"),
    ),
    64,
)

STRUCTS: Final = (CELL, LARGE_CELL, SLOT, EVENT, POOL, REGION_HEADER, SPAN_ROW, SPAN_TABLE, CONTROL, LAUNCH)
ENUMS: Final = (SlotState, SlotKind, Counting, EventKind, SpanKind, PythonState, Allocator)
SLOTS_OFFSET_BYTES: Final = 2 * PAGE_BYTES
REGION_BYTES: Final = SLOTS_OFFSET_BYTES + SLOT_CAPACITY * SLOT.size_bytes


def format_python_version(number: int) -> str:
    """Write ``PY_VERSION_HEX`` as people do.

    Example:
        >>> format_python_version(0x030E0AF0)
        '3.14.10'
    """
    return f"{number >> 24 & 255}.{number >> 16 & 255}.{number >> 8 & 255}"

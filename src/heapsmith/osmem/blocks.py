"""What the teaching allocator deals in: layouts, blocks, system calls, events and steps. All are values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from heapsmith.units import GiB, KiB

ALIGNMENT_BYTES: Final = 8
PAGE_BYTES: Final = 4096
MMAP_THRESHOLD_BYTES: Final = 128 * KiB
"""malloc and realloc map a block whose header and payload together reach this."""
PREALLOCATION_BYTES: Final = 128 * KiB
"""The first growth of the heap, header included."""
ADDRESS_SPACE_BYTES: Final = 1 * GiB
"""Heap and mappings together: beyond it the model's system calls fail, as the driver's do."""
LARGEST_REQUEST_BYTES: Final = (1 << 63) - 1
HEAP_START: Final = 0x5555_0000_0000
"""Where the model's heap begins; traces show addresses relative to it."""
MAPPINGS_START: Final = 0x7F00_0000_0000

Status = Literal["free", "allocated", "mapped"]
Layout = Literal["v1", "v2"]
HEADER_BYTES: Final[dict[Layout, int]] = {"v1": 24, "v2": 32}
"""v1 is ``{size, status, next}``, v2 ``{size, status, prev, next}``."""


def align(size_bytes: int) -> int:
    """Round up to the next multiple of 8.

    Example:
        >>> align(1), align(8), align(1001)
        (8, 8, 1008)
    """
    return (size_bytes + ALIGNMENT_BYTES - 1) // ALIGNMENT_BYTES * ALIGNMENT_BYTES


@dataclass(frozen=True, slots=True)
class Block:
    """A header and the payload behind it.

    Attributes:
        address: Of the header.
        header_bytes: 24 or 32.
        size_bytes: Of the payload, a multiple of 8.
        status: ``free``, ``allocated`` (both on the heap) or ``mapped``.
        requested_bytes: What the program asked for; 0 while free.
        owner: The call that made it live, counted from 0; None while free.

    Example:
        >>> block = Block(HEAP_START, 24, 1000, "allocated", requested_bytes=997, owner=0)
        >>> block.payload - HEAP_START, block.end - HEAP_START, block.slack_bytes
        (24, 1024, 3)
    """

    address: int
    header_bytes: int
    size_bytes: int
    status: Status
    requested_bytes: int = 0
    owner: int | None = None

    @property
    def payload(self) -> int:
        """The address that the program is given."""
        return self.address + self.header_bytes

    @property
    def end(self) -> int:
        """The address behind the block."""
        return self.payload + self.size_bytes

    @property
    def total_bytes(self) -> int:
        """Header and payload."""
        return self.header_bytes + self.size_bytes

    @property
    def slack_bytes(self) -> int:
        """Payload that nobody asked for: alignment, and rests too small to split off."""
        return 0 if self.status == "free" else self.size_bytes - self.requested_bytes


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One system call: name, arguments as the kernel gets them, result (negative: the error number)."""

    name: str
    arguments: tuple[int, ...]
    result: int


EventKind = Literal[
    "preallocated",  # the first growth of the heap: one free block
    "merged",  # `address` swallowed the free block behind it, at `other`
    "searched",  # `bytes` wanted; `address` is the block found or None; `steps` blocks were looked at
    "taken",  # the free block at `address`, of `bytes`, becomes the program's
    "split",  # `address` keeps `bytes`; the rest begins at `other`
    "unsplit",  # `bytes` are left over in `address`: too few for a block of their own
    "grown",  # brk moved: the last block, at `address`, got `bytes` more
    "appended",  # brk moved: a new block at `address`
    "mapped",  # a mapping of `bytes` at `address`
    "unmapped",
    "freed",
    "copied",  # `bytes` of content from the block at `address` to the block at `other`
    "blocked",  # `address` cannot grow to `bytes` where it is; `other` is behind it; `reason` says why
    "refused",  # the system has no more memory, or the request is larger than any
    "kept",  # realloc needs no more than `address` has already
]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened inside a call; what the fields mean depends on the kind (see ``EventKind``)."""

    kind: EventKind
    address: int | None = None
    bytes: int = 0
    other: int | None = None
    steps: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the program: what it asked, what happened, and the heap after it.

    Attributes:
        function: ``os_malloc``, ``os_calloc``, ``os_realloc`` or ``os_free``.
        arguments: As the program gave them; pointers are payload addresses, 0 is NULL.
        result: The payload address, 0 for NULL, None for ``os_free``.
        system_calls: In order.
        events: In order.
        heap: The blocks on the heap by address; they lie back to back.
        mappings: The mapped blocks, oldest first.
    """

    function: str
    arguments: tuple[int, ...]
    result: int | None
    system_calls: tuple[SystemCall, ...]
    events: tuple[Event, ...] = ()
    heap: tuple[Block, ...] = ()
    mappings: tuple[Block, ...] = ()

    @property
    def pointer(self) -> int:
        """The result as a pointer: 0 where the call answers NULL or nothing."""
        return self.result or 0

    def happened(self, kind: EventKind) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.kind == kind]


@dataclass(slots=True)
class Tally:
    """What the calls of a model cost so far.

    Attributes:
        system_calls: brk, mmap and munmap, the first brk(0) included.
        search_steps: Blocks looked at to find a fit.
        coalesce_steps: Blocks looked at to find free neighbours.
        splits: Blocks cut in two.
        merges: Blocks swallowed by their left neighbour.
        copied_bytes: Content moved by realloc.
    """

    system_calls: int = 0
    search_steps: int = 0
    coalesce_steps: int = 0
    splits: int = 0
    merges: int = 0
    copied_bytes: int = 0

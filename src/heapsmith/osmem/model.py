"""The teaching allocator in plain Python: the rules of libosmem.so, one short method each.

Read it from the bottom: ``malloc``, ``calloc``, ``realloc`` and ``free`` are what a program calls; above
them stand the steps that they are made of (find, split, merge, grow). Nothing here touches real memory: a
heap is a list of ``Block`` values in order of address, and moving the break is adding to a number.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from heapsmith.errors import HeapsmithError
from heapsmith.osmem.blocks import (
    ADDRESS_SPACE_BYTES,
    ALIGNMENT_BYTES,
    HEADER_BYTES,
    HEAP_START,
    LARGEST_REQUEST_BYTES,
    MAPPINGS_START,
    MMAP_THRESHOLD_BYTES,
    PAGE_BYTES,
    PREALLOCATION_BYTES,
    Block,
    Event,
    EventKind,
    Layout,
    Step,
    SystemCall,
    Tally,
    align,
)
from heapsmith.units import format_count

Fit = Literal["best", "first", "next", "worst"]
Coalesce = Literal["before-search", "on-free", "never"]
FITS: Final[tuple[Fit, ...]] = get_args(Fit)
COALESCES: Final[tuple[Coalesce, ...]] = get_args(Coalesce)

ENOMEM: Final = 12
PROT_READ_WRITE: Final = 0x1 | 0x2
MAP_PRIVATE_ANON: Final = 0x02 | 0x20


class BadPointerError(HeapsmithError):
    """A pointer was given back that no live block has. In C this is undefined; here it is said."""


class Model:
    """A heap that follows the rules of libosmem.so, or, with other policies, that shows what they would cost.

    Args:
        layout: The header: ``v1`` (24 bytes) or ``v2`` (32 bytes).
        fit: Which free block to take: the smallest that fits (``best``), the lowest (``first``), the next
            one after the last taken (``next``) or the largest (``worst``).
        coalesce: When free neighbours become one block: all of them ``before-search``, only the freed one's
            neighbours ``on-free``, or ``never`` (then realloc swallows no neighbour either).
        split: Whether what a block has too much becomes a block of its own.
        preallocation_bytes: How much heap the first request gets at once, header included; 0: only what it
            needs.

    Raises:
        HeapsmithError: A policy is unknown, or the preallocation is negative, unaligned, or smaller than a
            block.

    Example:
        >>> heap = Model()
        >>> step = heap.malloc(1000)
        >>> hex(step.pointer - HEAP_START), [call.name for call in step.system_calls]
        ('0x18', ['brk', 'brk'])
        >>> [(block.status, block.size_bytes) for block in step.heap]
        [('allocated', 1000), ('free', 130024)]
    """

    def __init__(
        self,
        layout: Layout = "v1",
        *,
        fit: Fit = "best",
        coalesce: Coalesce = "before-search",
        split: bool = True,
        preallocation_bytes: int = PREALLOCATION_BYTES,
    ) -> None:
        for what, value, known in (
            ("layout", layout, tuple(HEADER_BYTES)),
            ("fit", fit, FITS),
            ("coalesce", coalesce, COALESCES),
        ):
            if value not in known:
                raise HeapsmithError(f"there is no {what} {value!r}", hint=f"one of: {', '.join(known)}")
        self.header_bytes = HEADER_BYTES[layout]
        smallest = self.header_bytes + ALIGNMENT_BYTES
        if preallocation_bytes and (preallocation_bytes < smallest or preallocation_bytes % ALIGNMENT_BYTES):
            raise HeapsmithError(
                f"a preallocation of {preallocation_bytes} bytes cannot hold a block",
                hint=f"0, or a multiple of 8 from {smallest} up",
            )
        self.layout: Layout = layout
        self.fit: Fit = fit
        self.coalesce: Coalesce = coalesce
        self.splits = split
        self.preallocation_bytes = preallocation_bytes
        self.tally = Tally()
        self._blocks: list[Block] = []
        self._mappings: dict[int, Block] = {}  # by payload
        self._break = HEAP_START
        self._next_mapping = MAPPINGS_START
        self._break_is_known = False
        self._rover = HEAP_START  # where the next fit begins to look
        self._calls_made = 0
        self._system_calls: list[SystemCall] = []
        self._events: list[Event] = []

    @property
    def heap(self) -> tuple[Block, ...]:
        """The blocks on the heap, by address."""
        return tuple(self._blocks)

    @property
    def mappings(self) -> tuple[Block, ...]:
        """The mapped blocks, oldest first."""
        return tuple(self._mappings.values())

    @property
    def heap_bytes(self) -> int:
        """How far the break has moved."""
        return self._break - HEAP_START

    # ---- The system
    # ---------------------------------------------------------------------------------------------

    def _system(self, name: str, arguments: tuple[int, ...], result: int) -> None:
        self._system_calls.append(SystemCall(name, arguments, result))
        self.tally.system_calls += 1

    def _say(
        self,
        kind: EventKind,
        address: int | None = None,
        bytes: int = 0,
        other: int | None = None,
        steps: int = 0,
        reason: str = "",
    ) -> None:
        self._events.append(Event(kind, address, bytes, other, steps, reason))

    def _has_room(self, more_bytes: int) -> bool:
        mapped_bytes = sum(block.total_bytes for block in self._mappings.values())
        return self.heap_bytes + mapped_bytes + more_bytes <= ADDRESS_SPACE_BYTES

    def _move_break(self, more_bytes: int) -> bool:
        if not self._break_is_known:  # the C library has to ask once where the heap begins
            self._system("brk", (0,), self._break)
            self._break_is_known = True
        if not self._has_room(more_bytes):
            self._system("brk", (self._break + more_bytes,), self._break)
            self._say("refused", bytes=more_bytes)
            return False
        self._break += more_bytes
        self._system("brk", (self._break,), self._break)
        return True

    # ---- The parts of every call
    # --------------------------------------------------------------------------------

    def _replace(self, index: int, size_bytes: int) -> Block:
        old = self._blocks[index]
        new = Block(old.address, old.header_bytes, size_bytes, old.status, old.requested_bytes, old.owner)
        self._blocks[index] = new
        return new

    def _preallocate(self) -> bool:
        start = self._break
        if not self._move_break(self.preallocation_bytes):
            return False
        self._blocks.append(
            Block(start, self.header_bytes, self.preallocation_bytes - self.header_bytes, "free")
        )
        self._say("preallocated", start, self.preallocation_bytes)
        return True

    def _merge_with_next(self, index: int) -> None:
        """Let a block swallow the one behind it, header and all."""
        left, right = self._blocks[index], self._blocks[index + 1]
        del self._blocks[index + 1]
        self._replace(index, left.size_bytes + right.total_bytes)
        self.tally.merges += 1
        if self._rover == right.address:
            self._rover = left.address
        self._say("merged", left.address, right.total_bytes, right.address)

    def _next_is_free(self, index: int) -> bool:
        return index + 1 < len(self._blocks) and self._blocks[index + 1].status == "free"

    def _coalesce_all(self) -> None:
        """Join every run of free neighbours."""
        self.tally.coalesce_steps += len(self._blocks)
        index = 0
        while index < len(self._blocks):
            while self._blocks[index].status == "free" and self._next_is_free(index):
                self._merge_with_next(index)
            index += 1

    def _coalesce_around(self, index: int) -> None:
        """Join a block that has just become free with its two neighbours."""
        self.tally.coalesce_steps += 2
        if self._next_is_free(index):
            self._merge_with_next(index)
        if index > 0 and self._blocks[index - 1].status == "free":
            self._merge_with_next(index - 1)

    def _find(self, size_bytes: int) -> int | None:
        """Choose a free block of at least ``size_bytes``: its index, or None."""
        fits = [i for i, b in enumerate(self._blocks) if b.status == "free" and b.size_bytes >= size_bytes]
        looked_at = len(self._blocks)
        chosen = None
        if fits:
            match self.fit:
                case "best":  # of equal ones the lowest
                    chosen = min(fits, key=lambda i: self._blocks[i].size_bytes)
                case "worst":
                    chosen = max(fits, key=lambda i: self._blocks[i].size_bytes)
                case "first":
                    chosen = fits[0]
                    looked_at = chosen + 1
                case "next":
                    start = next((i for i, b in enumerate(self._blocks) if b.address >= self._rover), 0)
                    chosen = next((i for i in fits if i >= start), fits[0])
                    looked_at = (chosen - start) % len(self._blocks) + 1
                    self._rover = self._blocks[chosen].address
        self.tally.search_steps += looked_at
        address = None if chosen is None else self._blocks[chosen].address
        self._say("searched", address, size_bytes, steps=looked_at)
        return chosen

    def _split(self, index: int, size_bytes: int) -> None:
        """Cut a block down to ``size_bytes`` if the rest holds a header and at least one (aligned) byte."""
        block = self._blocks[index]
        rest_bytes = block.size_bytes - size_bytes - self.header_bytes
        if rest_bytes >= ALIGNMENT_BYTES and self.splits:
            kept = self._replace(index, size_bytes)
            self._blocks.insert(index + 1, Block(kept.end, self.header_bytes, rest_bytes, "free"))
            self.tally.splits += 1
            self._say("split", kept.address, size_bytes, kept.end)
        elif block.size_bytes > size_bytes:
            self._say("unsplit", block.address, block.size_bytes - size_bytes)

    def _grow_last(self, size_bytes: int) -> bool:
        """Move the break so that the last block has ``size_bytes``."""
        last = self._blocks[-1]
        more_bytes = size_bytes - last.size_bytes
        if not self._move_break(more_bytes):
            return False
        self._replace(-1, size_bytes)
        self._say("grown", last.address, more_bytes)
        return True

    def _append(self, size_bytes: int) -> bool:
        """Move the break for a new block at the end."""
        start = self._break
        if not self._move_break(self.header_bytes + size_bytes):
            return False
        self._blocks.append(Block(start, self.header_bytes, size_bytes, "free"))
        self._say("appended", start, self.header_bytes + size_bytes)
        return True

    # ---- Allocate and release
    # -----------------------------------------------------------------------------------

    def _allocate(self, requested_bytes: int, threshold_bytes: int) -> int:
        """Find memory for a request: the payload's address, 0 for NULL."""
        if requested_bytes == 0:
            return 0
        if requested_bytes > LARGEST_REQUEST_BYTES - self.header_bytes - ALIGNMENT_BYTES:
            self._say("refused", bytes=requested_bytes)
            return 0
        size_bytes = align(requested_bytes)
        if size_bytes + self.header_bytes >= threshold_bytes:
            return self._map(requested_bytes)

        if not self._blocks and self.preallocation_bytes and not self._preallocate():
            return 0
        if self.coalesce == "before-search":
            self._coalesce_all()
        index = self._find(size_bytes)
        if index is None:
            last_is_free = bool(self._blocks) and self._blocks[-1].status == "free"
            if not (last_is_free and self._grow_last(size_bytes)) and not self._append(size_bytes):
                return 0
            index = len(self._blocks) - 1
        block = self._blocks[index]
        self._say("taken", block.address, block.size_bytes)
        self._blocks[index] = Block(
            block.address,
            block.header_bytes,
            block.size_bytes,
            "allocated",
            requested_bytes,
            self._calls_made,
        )
        self._split(index, size_bytes)
        return block.payload

    def _map(self, requested_bytes: int) -> int:
        length_bytes = self.header_bytes + align(requested_bytes)
        arguments = (0, length_bytes, PROT_READ_WRITE, MAP_PRIVATE_ANON, -1, 0)
        if not self._has_room(length_bytes):
            self._system("mmap", arguments, -ENOMEM)
            self._say("refused", bytes=length_bytes)
            return 0
        start = self._next_mapping
        self._next_mapping += (length_bytes // PAGE_BYTES + 2) * PAGE_BYTES
        self._system("mmap", arguments, start)
        block = Block(
            start, self.header_bytes, align(requested_bytes), "mapped", requested_bytes, self._calls_made
        )
        self._mappings[block.payload] = block
        self._say("mapped", start, length_bytes)
        return block.payload

    def _locate(self, payload: int, *, freed_is_fine: bool = False) -> int | None:
        """Find a pointer's block: its index on the heap, or None if it is mapped."""
        if payload in self._mappings:
            return None
        for index, block in enumerate(self._blocks):
            if block.payload == payload:
                if block.status == "free" and not freed_is_fine:
                    raise BadPointerError(f"{self.name_of(payload)} is free already", "this is a double free")
                return index
            if block.address <= payload < block.end:
                if block.status == "free":
                    why = "it was given back, and has become part of a larger free block"
                else:
                    inside_bytes = payload - block.payload
                    why = f"it points {inside_bytes:+} bytes into the block at {self.name_of(block.payload)}"
                raise BadPointerError(f"{self.name_of(payload)} is not the start of a live block", why)
        raise BadPointerError(
            f"{self.name_of(payload)} is not a block of this heap", "nothing was ever allocated there"
        )

    def _release(self, payload: int) -> None:
        index = self._locate(payload)
        if index is None:
            block = self._mappings.pop(payload)
            self._system("munmap", (block.address, block.total_bytes), 0)
            self._say("unmapped", block.address, block.total_bytes)
            return
        block = self._blocks[index]
        self._blocks[index] = Block(block.address, block.header_bytes, block.size_bytes, "free")
        self._say("freed", block.address, block.size_bytes)
        if self.coalesce == "on-free":
            self._coalesce_around(index)

    def _move(self, old: Block, requested_bytes: int) -> int:
        """New memory first, then the content, then the old memory back."""
        payload = self._allocate(requested_bytes, MMAP_THRESHOLD_BYTES)
        if payload:
            copied_bytes = min(old.requested_bytes, requested_bytes)
            self.tally.copied_bytes += copied_bytes
            self._say("copied", old.address, copied_bytes, payload - self.header_bytes)
            self._release(old.payload)
        return payload

    def _request(self, index: int, requested_bytes: int) -> int:
        block = self._blocks[index]
        self._blocks[index] = Block(
            block.address,
            block.header_bytes,
            block.size_bytes,
            "allocated",
            requested_bytes,
            self._calls_made,
        )
        return block.payload

    def _reallocate(self, payload: int, requested_bytes: int) -> int:
        index = self._locate(payload, freed_is_fine=True)
        if index is None:
            self._say(
                "blocked", self._mappings[payload].address, reason="a mapping of its own is never resized"
            )
            return self._move(self._mappings[payload], requested_bytes)
        block = self._blocks[index]
        if block.status == "free":
            return 0
        size_bytes = align(requested_bytes)
        if size_bytes <= block.size_bytes:
            self._say("kept", block.address, block.size_bytes - size_bytes)
            self._split(index, size_bytes)
            return self._request(index, requested_bytes)
        if size_bytes + self.header_bytes >= MMAP_THRESHOLD_BYTES:
            self._say("blocked", block.address, reason="a block this large gets a mapping of its own")
            return self._move(block, requested_bytes)
        # Asked before merging: a block that merging makes the last one moves rather than grow the heap.
        if index == len(self._blocks) - 1 and self._grow_last(size_bytes):
            return self._request(index, requested_bytes)
        if self.coalesce != "never":
            while self._blocks[index].size_bytes < size_bytes and self._next_is_free(index):
                self._merge_with_next(index)
        merged_bytes = self._blocks[index].size_bytes
        if merged_bytes >= size_bytes:
            self._split(index, size_bytes)
            return self._request(index, requested_bytes)
        behind = self._blocks[index + 1].address if index + 1 < len(self._blocks) else None
        self._say("blocked", block.address, size_bytes, behind, reason=self._what_stops(index, size_bytes))
        return self._move(self._blocks[index], requested_bytes)

    def _what_stops(self, index: int, size_bytes: int) -> str:
        block = self._blocks[index]
        has = f"it has room for {format_count(block.size_bytes)} bytes, needs {format_count(size_bytes)}"
        if index + 1 == len(self._blocks):
            return f"{has}, and the heap ends behind it"
        if self._blocks[index + 1].status == "free":
            return f"{has}, and free neighbours are never joined under this policy"
        return f"{has}, and the block right behind it is in use"

    # ---- The four functions
    # -------------------------------------------------------------------------------------

    def malloc(self, size_bytes: int) -> Step:
        """Carry out ``os_malloc(size_bytes)``.

        Example:
            >>> Model().malloc(0).pointer
            0
            >>> [call.name for call in Model().malloc(131072).system_calls]
            ['mmap']
        """
        payload = self._allocate(size_bytes, MMAP_THRESHOLD_BYTES)
        return self._finish("os_malloc", (size_bytes,), payload)

    def calloc(self, count: int, size_bytes: int) -> Step:
        """Carry out ``os_calloc(count, size_bytes)``: mapped from one page up; NULL where it overflows.

        Example:
            >>> [call.name for call in Model().calloc(4080, 1).system_calls]
            ['mmap']
            >>> Model().calloc(2**32, 2**32).pointer
            0
        """
        return self._finish("os_calloc", (count, size_bytes), self._allocate(count * size_bytes, PAGE_BYTES))

    def realloc(self, pointer: int, size_bytes: int) -> Step:
        """Carry out ``os_realloc(pointer, size_bytes)``.

        Raises:
            BadPointerError: No block has this payload. (A block that is free answers NULL, as in C.)

        Example:
            >>> heap = Model()
            >>> p = heap.malloc(1000).pointer
            >>> heap.realloc(p, 2000).pointer == p  # the free block behind it was enough
            True
        """
        if not pointer:
            payload = self._allocate(size_bytes, MMAP_THRESHOLD_BYTES)
        elif not size_bytes:
            self._release(pointer)
            payload = 0
        else:
            payload = self._reallocate(pointer, size_bytes)
        return self._finish("os_realloc", (pointer, size_bytes), payload)

    def free(self, pointer: int) -> Step:
        """Carry out ``os_free(pointer)``.

        Raises:
            BadPointerError: No live block has this payload, or it is free already.

        Example:
            >>> heap = Model()
            >>> p = heap.malloc(1000).pointer
            >>> [event.kind for event in heap.free(p).events]
            ['freed']
        """
        if pointer:
            self._release(pointer)
        return self._finish("os_free", (pointer,), None)

    def _finish(self, function: str, arguments: tuple[int, ...], result: int | None) -> Step:
        step = Step(
            function,
            arguments,
            result,
            tuple(self._system_calls),
            tuple(self._events),
            tuple(self._blocks),
            tuple(self._mappings.values()),
        )
        self._system_calls.clear()
        self._events.clear()
        self._calls_made += 1
        return step

    def name_of(self, address: int) -> str:
        """Write an address as a person can compare it: relative to the heap, or to its mapping.

        Example:
            >>> Model().name_of(HEAP_START + 24)
            'HeapStart + 0x18'
        """
        if HEAP_START <= address < MAPPINGS_START:
            return f"HeapStart + {address - HEAP_START:#x}"
        return f"{address:#x}"

    def check(self) -> None:
        """Hold the heap against its invariants: aligned blocks, back to back, from its start to the break.

        Raises:
            AssertionError: One does not hold.
        """
        expected = HEAP_START
        for block in self._blocks:
            assert block.address == expected, "blocks lie back to back"
            assert block.size_bytes >= ALIGNMENT_BYTES, "a payload has room"
            assert block.size_bytes % ALIGNMENT_BYTES == 0, "a payload is aligned"
            assert (block.status == "free") == (block.requested_bytes == 0), "a live block was asked for"
            assert block.requested_bytes <= block.size_bytes, "a request fits its block"
            expected = block.end
        assert expected == self._break, "the last block ends at the break"

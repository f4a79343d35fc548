"""Memory for things that end together, handed out by moving an offset."""

from __future__ import annotations

import ctypes
import threading
import weakref
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec
from numpy.typing import DTypeLike, NDArray

from heapsmith.here.blocks import Layout, Shape, export, own, view_of
from heapsmith.here.local_calls import (
    HUGE_ALWAYS,
    HUGE_NEVER,
    NO_LIMIT,
    ClosedError,
    HeapOptions,
    local_library,
    read_alignment,
    read_bytes,
    read_statistics,
)
from heapsmith.here.local_heap import no_memory, take_back
from heapsmith.units import KiB, MiB, format_bytes

_ROOM_ALIGNMENT: Final = 4 * KiB
_MOST_SPARE: Final = 8
_LARGEST_ROOM_BYTES: Final = MiB


class ArenaStatistics(msgspec.Struct, frozen=True):
    """What an arena holds.

    Args:
        live_bytes: Bytes handed out and not released, with what alignment cost.
        live_bytes_peak: The highest that has been.
        live_blocks: Blocks handed out and not released.
        allocations: How many there have been.
        limit_bytes: What live bytes may not exceed; None without a limit.
        committed_bytes: What the arena has taken from the system.
        pinned_bytes: Of these, released ones that something still refers to.
    """

    live_bytes: int
    live_bytes_peak: int
    live_blocks: int
    allocations: int
    limit_bytes: int | None
    committed_bytes: int
    pinned_bytes: int


class _Room:
    """A run of native memory that blocks are cut from."""

    __slots__ = ("address", "length_bytes", "owner", "survivors")

    def __init__(self, address: int, length_bytes: int) -> None:
        self.address = address
        self.length_bytes = length_bytes
        self.owner = own(address)
        # Exporters of released sections that were still referred to.
        self.survivors = list[weakref.ref[Any]]()

    def is_pinned(self) -> bool:
        self.survivors = [reference for reference in self.survivors if reference() is not None]
        return bool(self.survivors)


class _Section:
    """What was allocated in one room between two marks; views and arrays of it hold its exporter."""

    __slots__ = ("exporter", "room", "root", "views")

    def __init__(self, room: _Room) -> None:
        exporter = export(room.address, room.length_bytes, room.owner)
        self.room = room
        self.exporter = weakref.ref(exporter)
        self.root = view_of(exporter)
        self.views = list[memoryview]()

    def end(self) -> None:
        for view in self.views:
            take_back(view)
        self.views.clear()
        self.root.release()
        if self.exporter() is not None:
            self.room.survivors.append(self.exporter)


class _Place(NamedTuple):
    sections: int
    within: _Section | None
    rooms: int
    at: int
    live_bytes: int
    live_blocks: int


_START: Final = _Place(0, None, 0, 0, 0, 0)


class Mark:
    """A place in an arena to go back to; as a context manager, it goes back at the end of the block.

    Example:
        >>> with Arena() as arena:
        ...     with arena.mark():
        ...         brief = arena.allocate(100)
        ...     arena.statistics().live_bytes
        0
    """

    __slots__ = ("_arena", "_place")

    def __init__(self, arena: Arena, place: _Place) -> None:
        self._arena = arena
        self._place = place

    def place_in(self, arena: Arena) -> _Place | None:
        """Return where the mark is; None in another arena."""
        return self._place if arena is self._arena else None

    def release(self) -> None:
        """Release everything allocated since this mark."""
        self._arena.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._arena.closed:
            self._arena.release(self)


class Arena:
    """Blocks that are handed out by moving an offset, and released together: all, or all since a mark.

    Released memoryviews raise ValueError. NumPy arrays, and views made of views, stay valid as long as they live: their
    memory is not used again before (``pinned_bytes`` of the statistics).

    Args:
        grow_by: Bytes taken from the system at a time; larger blocks are taken by themselves.
        limit: Live bytes beyond which allocations raise MemoryError, a number or a text such as ``"512MiB"``.
        huge_pages: Ask for transparent huge pages; the arena then takes 2 MiB at least.

    Example:
        >>> with Arena(limit="1MiB") as arena:
        ...     kept = arena.array(10)
        ...     mark = arena.mark()
        ...     view = arena.allocate(1000)
        ...     arena.release(mark)
        ...     arena.statistics().live_blocks
        1
        >>> view[0]
        Traceback (most recent call last):
        ValueError: operation forbidden on released memoryview object
    """

    def __init__(
        self, *, grow_by: int | str = 64 * KiB, limit: int | str | None = None, huge_pages: bool = False
    ) -> None:
        grow_bytes = read_bytes(grow_by, "to grow by a piece", least=1)
        self._room_bytes = -(-grow_bytes // _ROOM_ALIGNMENT) * _ROOM_ALIGNMENT
        self._limit_bytes = NO_LIMIT if limit is None else read_bytes(limit, "a limit", least=1)
        options = HeapOptions(
            class_bytes=(16,),
            # Rooms are larger than what is cut from them; released ones may be pinned.
            limit_bytes=min(NO_LIMIT, self._limit_bytes * 2 + 2 * self._room_bytes),
            huge_pages=HUGE_ALWAYS if huge_pages else HUGE_NEVER,
        )
        self._library = local_library()
        self._heap: int | None = options.create()
        self._end = weakref.finalize(self, self._library.hs_local_retire, self._heap)
        self._end.atexit = False
        self._lock = threading.RLock()
        self._rooms = list[_Room]()
        self._spare = list[_Room]()
        self._sections = list[_Section]()
        self._section: _Section | None = None
        self._at = 0
        self._live_bytes = self._live_bytes_peak = self._live_blocks = self._allocations = 0
        self._last: ArenaStatistics | None = None

    def allocate(self, length: int | str, *, alignment: int = 16, zeroed: bool = False) -> memoryview:
        """Allocate a block.

        Args:
            length: Bytes, a number or a text such as ``"64KiB"``.
            alignment: Of its address in bytes, a power of two.
            zeroed: Whether it reads as zero; else what it holds is undefined.

        Raises:
            MemoryError: It would exceed the limit, or there is no memory.
            ClosedError: The arena is closed.
            HeapsmithError: There can be no such block.

        Example:
            >>> with Arena() as arena:
            ...     sum(arena.allocate("4KiB", zeroed=True))
            0
        """
        length_bytes = read_bytes(length, "a block")
        with self._lock:
            section, start = self._take(length_bytes, read_alignment(alignment))
            view = section.root[start : start + length_bytes]
            section.views.append(view)
        if zeroed:
            ctypes.memset(section.room.address + start, 0, length_bytes)
        return view

    def array(
        self, shape: Shape, dtype: DTypeLike = float, *, alignment: int = 64, zeroed: bool = False
    ) -> NDArray[Any]:
        """Allocate a NumPy array; it stays valid when it is released.

        Args:
            shape: A length, or lengths by dimension.
            dtype: Of the elements; no Python objects.
            alignment: Of its first element in bytes, a power of two.
            zeroed: Whether it is filled with zeros; else what it holds is undefined.

        Raises:
            MemoryError: It would exceed the limit, or there is no memory.
            ClosedError: The arena is closed.
            HeapsmithError: There can be no such array.

        Example:
            >>> with Arena() as arena:
            ...     arena.array((2, 2), "int32", zeroed=True).tolist()
            [[0, 0], [0, 0]]
        """
        layout = Layout(shape, dtype)
        with self._lock:
            section, start = self._take(layout.length_bytes, read_alignment(alignment))
            array = layout.over(section.root.obj, start)
        if zeroed:
            array.fill(0)
        return array

    def mark(self) -> Mark:
        """Remember this place; `release` goes back to it."""
        with self._lock:
            self._open()
            self._section = None
            within = self._sections[-1] if self._sections else None
            place = _Place(
                len(self._sections), within, len(self._rooms), self._at, self._live_bytes, self._live_blocks
            )
            return Mark(self, place)

    def release(self, mark: Mark | None = None) -> None:
        """Release everything allocated since a mark, or everything.

        Marks made since then are gone with it; the mark itself can be used again.

        Raises:
            ClosedError: The arena is closed, or the mark is gone.

        Example:
            >>> with Arena() as arena:
            ...     for number in range(1000):
            ...         block = arena.allocate(1000)
            ...         arena.release()
            ...     arena.statistics().committed_bytes < 100_000
            True
        """
        with self._lock:
            self._open()
            if mark is None:
                self._go_back(_START)
                return
            place = mark.place_in(self)
            # Sections are never made twice: where the mark's last one is gone, so is the mark.
            if place is None or self._section_before(place.sections) is not place.within:
                raise ClosedError(
                    "this mark is gone",
                    "it belongs to another arena, or what was before it has been released",
                    "release marks from the last to the first",
                )
            self._go_back(place)

    def statistics(self) -> ArenaStatistics:
        """Return what the arena holds; after its end, what it held last.

        Example:
            >>> with Arena() as arena:
            ...     block = arena.allocate(1000)
            ...     arena.statistics().live_bytes
            1000
        """
        with self._lock:
            if self._heap is None:
                assert self._last is not None
                return self._last
            native = read_statistics(self._heap)
            reachable_bytes = sum(room.length_bytes for room in (*self._rooms, *self._spare))
            pinned_bytes = native.live_bytes - reachable_bytes
            pinned_bytes += sum(room.length_bytes for room in self._rooms[-1:] if room.is_pinned())
            return ArenaStatistics(
                live_bytes=self._live_bytes,
                live_bytes_peak=self._live_bytes_peak,
                live_blocks=self._live_blocks,
                allocations=self._allocations,
                limit_bytes=None if self._limit_bytes == NO_LIMIT else self._limit_bytes,
                committed_bytes=native.committed_bytes,
                pinned_bytes=pinned_bytes,
            )

    @property
    def closed(self) -> bool:
        """Whether the arena has ended."""
        return self._heap is None

    def close(self) -> None:
        """End the arena: its memoryviews raise from now on, and all memory that nothing refers to goes back."""
        with self._lock:
            if self._heap is None:
                return
            self._last = self.statistics()
            self._go_back(_START)
            self._spare.clear()
            self._heap = None
            self._end()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._heap is None else f"{format_bytes(self._live_bytes)} live"
        return f"<Arena, {state}>"

    def _open(self) -> int:
        if self._heap is None:
            raise ClosedError("this arena is closed", hint="make another one")
        return self._heap

    def _take(self, length_bytes: int, alignment: int) -> tuple[_Section, int]:
        """Find the next place, and move on behind it; the caller holds the lock."""
        section, before = self._section, self._at
        start = (before + alignment - 1) & -alignment
        end = start + length_bytes
        if section is None or end > section.room.length_bytes or alignment > _ROOM_ALIGNMENT:
            section, before, start = self._begin_section(length_bytes, alignment)
            end = start + length_bytes
        live_bytes = self._live_bytes + end - before
        if live_bytes > self._limit_bytes:
            raise no_memory(end - before, self._limit_bytes, self._live_bytes)
        self._live_bytes = live_bytes
        if live_bytes > self._live_bytes_peak:
            self._live_bytes_peak = live_bytes
        self._live_blocks += 1
        self._allocations += 1
        self._at = end
        return section, start

    def _begin_section(self, length_bytes: int, alignment: int) -> tuple[_Section, int, int]:
        heap = self._open()
        before = self._at
        start = -(-before // alignment) * alignment
        room = self._rooms[-1] if self._rooms else None
        if room is None or alignment > _ROOM_ALIGNMENT or start + length_bytes > room.length_bytes:
            if self._live_bytes + length_bytes > self._limit_bytes:
                raise no_memory(length_bytes, self._limit_bytes, self._live_bytes)
            room = self._next_room(heap, length_bytes, alignment)
            before = start = self._at = 0
        self._section = _Section(room)
        self._sections.append(self._section)
        return self._section, before, start

    def _next_room(self, heap: int, least_bytes: int, alignment: int) -> _Room:
        if self._spare and least_bytes <= self._room_bytes and alignment <= _ROOM_ALIGNMENT:
            room = self._spare.pop()
        else:
            length_bytes = max(least_bytes, self._room_bytes)
            address = 0
            if length_bytes < NO_LIMIT:
                aligned = max(alignment, _ROOM_ALIGNMENT)
                address = self._library.hs_local_allocate(heap, length_bytes, aligned)
            if not address:
                raise no_memory(least_bytes, self._limit_bytes, self._live_bytes)
            room = _Room(address, length_bytes)
        self._rooms.append(room)
        return room

    def _section_before(self, depth: int) -> _Section | None:
        return self._sections[depth - 1] if 0 < depth <= len(self._sections) else None

    def _go_back(self, place: _Place) -> None:
        for section in reversed(self._sections[place.sections :]):
            section.end()
        del self._sections[place.sections :]
        self._section = None
        for room in self._rooms[place.rooms :]:
            fits = room.length_bytes == self._room_bytes and len(self._spare) < _MOST_SPARE
            if fits and not room.is_pinned():
                self._spare.append(room)
        del self._rooms[place.rooms :]
        self._live_bytes, self._live_blocks = place.live_bytes, place.live_blocks
        # What is still referred to in this room stays as it is: the rest of the room is not used before it is gone.
        self._at = self._rooms[-1].length_bytes if self._rooms and self._rooms[-1].is_pinned() else place.at

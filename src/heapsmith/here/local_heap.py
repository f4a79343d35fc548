"""A heap of its own for one thread, one request or one data structure."""

from __future__ import annotations

import ctypes
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import DTypeLike, NDArray

from heapsmith.errors import HeapsmithError
from heapsmith.here.blocks import Layout, Shape, export, exporter_of, own, view_of
from heapsmith.here.local_calls import (
    NO_LIMIT,
    ClosedError,
    LocalStatistics,
    local_library,
    read_alignment,
    read_bytes,
    read_spec,
    read_statistics,
)
from heapsmith.spec import HeapSpec
from heapsmith.units import format_bytes


class _View(weakref.ref[memoryview]):
    """Remembers a memoryview that was handed out, so that it can be taken back."""

    __slots__ = ("key",)

    key: int


class LocalHeap:
    """Blocks that end together: buffers and NumPy arrays from a heap with a limit and figures of its own.

    A block lives until it is freed, the heap is closed, or nothing refers to it any more. When the heap is closed, the
    memoryviews that it gave raise ValueError; NumPy arrays, and views made of views, stay valid as long as they live.
    No block is used again while anything can still see it. Several threads may use one heap.

    Args:
        spec: Size classes and pages: a `HeapSpec`, a preset's name, or a TOML file. `default` if left out.
        limit: Live bytes beyond which allocations raise MemoryError, a number or a text such as ``"512MiB"``.

    Raises:
        SpecError: There is no such spec, or it asks for hardening.

    Example:
        >>> with LocalHeap(limit="1MiB") as heap:
        ...     numbers = heap.array((100, 10), "float32")
        ...     view = heap.allocate(1000)
        ...     view[:5] = b"hello"
        ...     heap.statistics().live_blocks
        2
        >>> view[0]
        Traceback (most recent call last):
        ValueError: operation forbidden on released memoryview object
    """

    def __init__(self, spec: HeapSpec | str | Path | None = None, *, limit: int | str | None = None) -> None:
        options = read_spec(spec, limit)
        self._library = local_library()
        self._heap: int | None = options.create()
        self._limit_bytes = options.limit_bytes
        self._views = dict[int, _View]()
        self._last: LocalStatistics | None = None
        self._end = weakref.finalize(self, self._library.hs_local_retire, self._heap)
        self._end.atexit = False

    def allocate(self, length: int | str, *, alignment: int = 16, zeroed: bool = False) -> memoryview:
        """Allocate a block.

        Args:
            length: Bytes, a number or a text such as ``"64KiB"``.
            alignment: Of its address in bytes, a power of two.
            zeroed: Whether it reads as zero; else what it holds is undefined.

        Raises:
            MemoryError: It would exceed the limit, or there is no memory.
            ClosedError: The heap is closed.
            HeapsmithError: There can be no such block.

        Example:
            >>> with LocalHeap() as heap:
            ...     len(heap.allocate("4KiB"))
            4096
        """
        length_bytes = read_bytes(length, "a block")
        exporter = self._allocate(length_bytes, read_alignment(alignment))
        if zeroed:
            ctypes.memset(exporter, 0, length_bytes)
        view = view_of(exporter)[:length_bytes]
        reference = _View(view, self._forget)
        reference.key = id(view)
        self._views[id(view)] = reference
        return view

    def array(
        self, shape: Shape, dtype: DTypeLike = float, *, alignment: int = 64, zeroed: bool = False
    ) -> NDArray[Any]:
        """Allocate a NumPy array; it stays valid when the heap is closed.

        Args:
            shape: A length, or lengths by dimension.
            dtype: Of the elements; no Python objects.
            alignment: Of its first element in bytes, a power of two.
            zeroed: Whether it is filled with zeros; else what it holds is undefined.

        Raises:
            MemoryError: It would exceed the limit, or there is no memory.
            ClosedError: The heap is closed.
            HeapsmithError: There can be no such array.

        Example:
            >>> with LocalHeap() as heap:
            ...     ones = heap.array((2, 3))
            ...     ones[:] = 1
            >>> float(ones.sum())
            6.0
        """
        layout = Layout(shape, dtype)
        array = layout.over(self._allocate(layout.length_bytes, read_alignment(alignment)))
        if zeroed:
            array.fill(0)
        return array

    def free(self, block: memoryview | NDArray[Any]) -> None:
        """Free a block; a memoryview raises ValueError from then on.

        Its memory is used again as soon as nothing refers to it any more: an array that is freed stays valid.

        Raises:
            HeapsmithError: It is no block of this heap, or was freed before.

        Example:
            >>> with LocalHeap() as heap:
            ...     heap.free(heap.allocate(100))
            ...     heap.statistics().live_blocks
            0
        """
        exporter = exporter_of(block)
        if exporter is None or getattr(exporter, "heap", None) != id(self):
            raise HeapsmithError(
                f"this {type(block).__name__} cannot be freed",
                "it is no block of this heap, or was freed before",
                "free each block once, where it came from",
            )
        exporter.heap = None
        del exporter
        if isinstance(block, memoryview):
            take_back(block)

    def statistics(self) -> LocalStatistics:
        """Return what the heap holds; after its end, what it held last.

        Example:
            >>> with LocalHeap(limit=65536) as heap:
            ...     block = heap.allocate(1000)
            ...     heap.statistics().live_bytes, heap.statistics().limit_bytes
            (1024, 65536)
        """
        if self._heap is None:
            assert self._last is not None
            return self._last
        return read_statistics(self._heap)

    def trim(self) -> int:
        """Give all pages that hold no live block back to the system, and return how many bytes.

        Example:
            >>> with LocalHeap() as heap:
            ...     heap.free(heap.allocate("1MiB"))
            ...     heap.trim() >= 1048576
            True
        """
        return self._library.hs_local_trim(self._open())

    @property
    def closed(self) -> bool:
        """Whether the heap has ended."""
        return self._heap is None

    def close(self) -> None:
        """End the heap: its memoryviews raise from now on, and all memory that nothing refers to goes back."""
        if self._heap is None:
            return
        self._last = read_statistics(self._heap)
        self._heap = None
        for reference in list(self._views.values()):
            view = reference()
            if view is not None:
                take_back(view)
        self._end()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._heap is None else f"{format_bytes(self.statistics().live_bytes)} live"
        return f"<LocalHeap, {state}>"

    def _open(self) -> int:
        if self._heap is None:
            raise ClosedError("this local heap is closed", hint="make another one")
        return self._heap

    def _allocate(self, length_bytes: int, alignment: int) -> Any:
        heap = self._open()
        address = (
            self._library.hs_local_allocate(heap, length_bytes, alignment) if length_bytes < NO_LIMIT else 0
        )
        if not address:
            raise no_memory(length_bytes, self._limit_bytes, read_statistics(heap).live_bytes)
        exporter = export(address, self._library.hs_local_usable_bytes(address), own(address))
        exporter.heap = id(self)
        return exporter

    def _forget(self, reference: weakref.ref[memoryview]) -> None:
        assert isinstance(reference, _View)
        self._views.pop(reference.key, None)


def take_back(view: memoryview) -> None:
    """Make a memoryview raise from now on.

    Example:
        >>> view = memoryview(b"brief")
        >>> take_back(view)
        >>> view[0]
        Traceback (most recent call last):
        ValueError: operation forbidden on released memoryview object
    """
    try:
        view.release()
    except BufferError:
        # Something reads or writes it at this moment; it goes with its last user.
        return


def no_memory(length_bytes: int, limit_bytes: int, live_bytes: int) -> MemoryError:
    """Say why a block cannot be had.

    Example:
        >>> no_memory(2048, 1024, 0)
        MemoryError('2.00 KiB do not fit: 0 B of the limit of 1.00 KiB are live')
    """
    if limit_bytes == NO_LIMIT:
        return MemoryError(f"there is no memory for {format_bytes(length_bytes)}")
    return MemoryError(
        f"{format_bytes(length_bytes)} do not fit: {format_bytes(live_bytes)} of the limit of "
        f"{format_bytes(limit_bytes)} are live"
    )

"""NumPy's data allocations from a heap of their own (NEP 49): aligned, warm, limited."""

from __future__ import annotations

import ctypes
import functools
import sys
from contextvars import ContextVar
from importlib import import_module
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from heapsmith.errors import HeapsmithError
from heapsmith.here.blocks import make_capsule
from heapsmith.here.local_calls import (
    HUGE_ALWAYS,
    HUGE_LARGE,
    HUGE_NEVER,
    NO_LIMIT,
    HeapOptions,
    LocalStatistics,
    local_library,
    read_bytes,
    read_statistics,
)
from heapsmith.spec.size_classes import geometric_classes
from heapsmith.units import KiB, format_bytes, parse_seconds

ALIGNMENT: Final = 64
"""Of the first element of every array, in bytes: a cache line, and the widest vector."""
_CLASSES: Final = tuple(
    sorted({-(-length // ALIGNMENT) * ALIGNMENT for length in geometric_classes(ALIGNMENT, 32 * KiB, 4)})
)
_CAPSULE_NAME: Final = b"mem_handler"
_SET_HANDLER: Final = 304
"""Place of ``PyDataMem_SetHandler`` in NumPy's table of functions, fixed by its binary interface since 1.22."""


_BEFORE: Final[ContextVar[tuple[object, ...]]] = ContextVar("heapsmith.numpy_heap", default=())
"""What was in force before each heap that this context has entered, the innermost last."""


class NumpyHeap:
    """A heap for the data of NumPy's arrays; `numpy_heap` makes one.

    In force between entering and leaving it, in the thread (or task) that entered it: NumPy keeps the choice in the
    context. Other threads enter the same heap with ``with heap:``, or call `install` once, for instance as initializer
    of a pool. Arrays remember their heap: it lives until the last of them is gone.
    """

    def __init__(self, options: HeapOptions) -> None:
        self._library = local_library()
        self._heap = options.create()
        # From here on the capsule owns the heap, and NumPy keeps the capsule for every array.
        self._handler = make_capsule(
            self._library.hs_local_numpy_handler(self._heap), _CAPSULE_NAME, "hs_local_numpy_ended"
        )

    def install(self) -> None:
        """Let arrays of this thread (or task) come from this heap from now on.

        Example:
            >>> from concurrent.futures import ThreadPoolExecutor
            >>> heap = numpy_heap()
            >>> with ThreadPoolExecutor(1, initializer=heap.install) as pool:
            ...     length = pool.submit(lambda: len(np.ones(1000))).result()
            >>> heap.statistics().allocations > 0
            True
        """
        _set_handler(self._handler)

    def statistics(self) -> LocalStatistics:
        """Return what the arrays of this heap hold, also after it was left.

        Example:
            >>> with numpy_heap() as heap:
            ...     numbers = np.zeros(1000)
            >>> heap.statistics().live_bytes >= numbers.nbytes
            True
        """
        return read_statistics(self._heap)

    def trim(self) -> int:
        """Give all pages that hold no array back to the system, and return how many bytes."""
        return self._library.hs_local_trim(self._heap)

    def __enter__(self) -> Self:
        _BEFORE.set((*_BEFORE.get(), _set_handler(self._handler)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered = _BEFORE.get()
        if not entered:
            raise HeapsmithError(
                "this NumPy heap cannot be left here",
                "it was entered in another thread or context",
                "leave it where it was entered",
            )
        _set_handler(entered[-1])
        _BEFORE.set(entered[:-1])
        self.trim()

    def __repr__(self) -> str:
        return f"<NumpyHeap, {format_bytes(self.statistics().live_bytes)} live>"


def numpy_heap(
    *,
    limit: int | str | None = None,
    huge_pages: bool | None = None,
    retain: int | str | None = None,
    retain_for: float | str = 1.0,
) -> NumpyHeap:
    """Let NumPy's arrays live in a heap of their own, for the length of a ``with`` block.

    Memory of arrays that are gone is used again while it is warm, instead of being given to the system and taken back,
    page fault by page fault: what the temporaries of an expression cost. What is kept is bounded, and goes back when
    the heap is left.

    Args:
        limit: Live bytes beyond which NumPy raises MemoryError, a number or a text such as ``"2GiB"``.
        huge_pages: True asks for transparent huge pages everywhere, None for arrays of 4 MiB and more (as NumPy does),
            False for none.
        retain: Bytes of arrays that are gone, kept to be used again. If left out, as much as was live at once: kept
            and live ones together never exceed the peak of the live ones.
        retain_for: Seconds after which what nobody wanted goes back, while arrays are still made: a number, or a text
            such as ``"500ms"``.

    Returns:
        The heap, to be entered.

    Raises:
        HeapsmithError: A value cannot be, or this NumPy has no data handlers.

    Example:
        >>> import numpy as np
        >>> with numpy_heap(limit="64MiB") as heap:
        ...     a = np.ones((1000, 1000))
        ...     b = a * 2 + a
        >>> float(b.sum()), a.ctypes.data % 64
        (3000000.0, 0)
    """
    options = HeapOptions(
        class_bytes=_CLASSES,
        limit_bytes=NO_LIMIT if limit is None else read_bytes(limit, "a limit", least=1),
        retain_bytes=NO_LIMIT if retain is None else read_bytes(retain, "to retain a piece"),
        retain_ms=_read_milliseconds(retain_for),
        huge_pages=_read_huge_pages(huge_pages),
    )
    return NumpyHeap(options)


def _read_huge_pages(wanted: object) -> int:
    if wanted is None:
        return HUGE_LARGE
    if not isinstance(wanted, bool):
        raise HeapsmithError(
            f"huge pages cannot be {wanted!r}", hint="give True, False, or None for large arrays only"
        )
    return HUGE_ALWAYS if wanted else HUGE_NEVER


def _read_milliseconds(duration: float | str) -> int:
    try:
        seconds = parse_seconds(duration) if isinstance(duration, str) else float(duration)
        return min(NO_LIMIT, round(seconds * 1000)) if seconds >= 0 else _refuse(duration)
    except (TypeError, ValueError, OverflowError):
        return _refuse(duration)


def _refuse(duration: object) -> int:
    raise HeapsmithError(
        f"memory cannot be retained for {duration!r}", hint="give seconds, or a text such as '2s'"
    )


def _set_handler(handler: object) -> object:
    """Put a handler in force in this context, and return the one that was."""
    return _numpy_function()(handler)


@functools.cache
def _numpy_function() -> Any:
    module: Any = None
    for name in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        if name in sys.modules:
            module = import_module(name)
            break
    if module is None or np.lib.NumpyVersion(np.__version__) < "1.22.0":
        raise HeapsmithError(
            "NumPy's data cannot be given a heap",
            f"NumPy {np.__version__} has no data handlers",
            "use 1.26 or later",
        )
    get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    table = ctypes.cast(get_pointer(module._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])

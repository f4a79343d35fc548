"""Native blocks as objects of Python: whoever can still reach the memory keeps it.

A block is owned by a capsule, whose destructor (native, run when the last reference goes) frees it. The capsule hangs
on an *exporter*, a ctypes array over the block; memoryviews and NumPy arrays hold the exporter as long as they live, in
C, where no collection of cycles can part them. So memory that anything refers to is never used again, whatever happens
to the heap it came from.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from heapsmith.errors import HeapsmithError
from heapsmith.here.local_calls import address_of

Shape = int | Sequence[int]
_CAPSULE_NAME: Final = b"heapsmith.block"
_CACHED_UP_TO_BYTES: Final = 1 << 20
"""Blocks beyond have lengths of their own, each with a type that is not worth keeping."""


def own(address: int) -> object:
    """Return a capsule that frees a block of a local heap when the last reference to it goes.

    Args:
        address: What ``hs_local_allocate`` answered.
    """
    return make_capsule(address, _CAPSULE_NAME, "hs_local_block_ended")


def make_capsule(address: int, name: bytes, destructor: str) -> object:
    """Return a capsule around an address, which a function of the library is called with at its end.

    Args:
        address: What it holds.
        name: What the destructor knows it by; it has to outlive the capsule.
        destructor: The function's name.
    """
    return _new_capsule()(address, name, address_of(destructor))


@functools.cache
def _new_capsule() -> Any:
    # A function of our own: `ctypes.pythonapi.PyCapsule_New` is shared, and others may declare it otherwise.
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
        ("PyCapsule_New", ctypes.pythonapi)
    )


def export(address: int, length_bytes: int, owner: object) -> Any:
    """Return an object whose buffer is memory at an address; it keeps ``owner`` alive.

    Args:
        address: Of the first byte.
        length_bytes: How many.
        owner: What the memory belongs to.
    """
    make = _exporter_type if length_bytes <= _CACHED_UP_TO_BYTES else _exporter_type.__wrapped__
    exporter = make(length_bytes).from_address(address)
    exporter.owner = owner
    return exporter


@functools.lru_cache(512)
def _exporter_type(length_bytes: int) -> Any:
    return type("Block", (ctypes.Array,), {"_type_": ctypes.c_char, "_length_": length_bytes})


def view_of(exporter: Any) -> memoryview:
    """Return all bytes of an exporter as numbers from 0 to 255, writable."""
    return memoryview(exporter).cast("B")


class Layout:
    """An array that is to be made: checked, and measured.

    Args:
        shape: A length, or lengths by dimension.
        dtype: Of the elements; no Python objects.

    Raises:
        HeapsmithError: There can be no such array.

    Example:
        >>> Layout((2, 3), "float32").length_bytes
        24
    """

    def __init__(self, shape: Shape, dtype: DTypeLike) -> None:
        try:
            self.dtype = np.dtype(dtype)
            lengths = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
            self.shape = tuple(int(length.__index__()) for length in lengths)
        except (TypeError, ValueError, AttributeError) as error:
            raise HeapsmithError(f"there is no array of {shape!r} elements {dtype!r}", str(error)) from error
        if any(length < 0 for length in self.shape):
            raise HeapsmithError(f"an array cannot have the shape {self.shape}", "a length is negative")
        if self.dtype.hasobject:
            raise HeapsmithError(
                "an array of Python objects cannot live in a heap of its own",
                "its references would be gone without being given up",
                "use a dtype of plain data, or numpy.empty",
            )
        self.length_bytes = math.prod(self.shape) * self.dtype.itemsize

    def over(self, exporter: Any, offset_bytes: int = 0) -> NDArray[Any]:
        """Make the array on an exporter's memory."""
        return np.ndarray(self.shape, self.dtype, buffer=exporter, offset=offset_bytes)


def exporter_of(block: object) -> Any:
    """Find the exporter behind a memoryview or an array; None where there is none.

    Example:
        >>> exporter_of(memoryview(b"somebody else's")) is None
        True
    """
    found: Any = block
    while isinstance(found, np.ndarray):
        found = found.base
    if isinstance(found, memoryview):
        try:
            found = found.obj
        except ValueError:  # it was released
            return None
    return found if type(found).__base__ is ctypes.Array and hasattr(found, "owner") else None

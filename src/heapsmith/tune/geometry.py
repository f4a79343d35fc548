"""The numbers of a forged heap, as its own headers say them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapsmith.native import library
from heapsmith.spec import Explicit
from heapsmith.spec.policies import SizesPolicy

_LIBRARY: Final = "libheapsmith_geometry.so"


class Constants(NamedTuple):
    """What does not depend on the spec; bytes and milliseconds as named."""

    first_segment_bytes: int
    largest_segment_bytes: int
    maintenance_ms: int
    span_metadata_bytes: int
    page_metadata_bytes: int


@cache
def _told() -> ctypes.CDLL:
    return ctypes.CDLL(str(library(_LIBRARY)))


@cache
def constants() -> Constants:
    """Return the numbers of every forged heap.

    Example:
        >>> constants().span_metadata_bytes
        64
    """
    values: list[int] = []
    for name in Constants._fields:
        call = getattr(_told(), f"heapsmith_{name}")
        call.restype = ctypes.c_uint64
        values.append(int(call()))
    return Constants(*values)


@cache
def _shape(class_bytes: int) -> tuple[int, int]:
    told = _told()
    return int(told.heapsmith_span_pages(class_bytes)), int(told.heapsmith_span_blocks(class_bytes))


def compute_shapes(
    class_bytes: Sequence[int], span_pages: Sequence[int] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Compute the spans of size classes.

    Args:
        class_bytes: The classes, smallest first.
        span_pages: Chosen pages of each class's spans; 0, or none at all: those that the heap chooses.

    Returns:
        Pages of a span and blocks of a span, ``(n,)`` each.

    Example:
        >>> pages, blocks = compute_shapes([16, 4368, 65536], [0, 16, 0])
        >>> pages[1:].tolist(), blocks.tolist()
        ([16, 16], [1024, 15, 1])
    """
    shapes = np.array([_shape(size) for size in class_bytes], np.int64).reshape(-1, 2)
    for number, pages in enumerate(span_pages):
        if pages and shapes[number, 1] > 1:
            shapes[number] = pages, pages * 4096 // class_bytes[number]
    return shapes[:, 0], shapes[:, 1]


def shapes_of(sizes: SizesPolicy) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Compute the spans of a policy's classes; see `compute_shapes`."""
    return compute_shapes(sizes.class_bytes(), sizes.span_pages_list if isinstance(sizes, Explicit) else ())

"""Size classes as plain numbers: what the native core computes again and compares with."""

from __future__ import annotations

import itertools
from typing import Final

MALLOC_ALIGNMENT: Final = 16
"""What C requires of malloc on 64-bit machines, for blocks that can hold such an object."""
PAGE_BYTES: Final = 4096


def geometric_classes(smallest_bytes: int, largest_bytes: int, steps_per_doubling: int) -> list[int]:
    """Compute classes with the same number of steps in each doubling, none closer than 16 bytes.

    Example:
        >>> geometric_classes(16, 256, 4)[-5:]
        [128, 160, 192, 224, 256]
    """
    classes = list[int]()
    size = smallest_bytes
    while size < largest_bytes:
        classes.append(size)
        size += max((1 << (size.bit_length() - 1)) // steps_per_doubling, MALLOC_ALIGNMENT)
    return [*classes, largest_bytes]


def power_of_two_classes(smallest_bytes: int, largest_bytes: int) -> list[int]:
    """Compute one class per power of two.

    Example:
        >>> power_of_two_classes(16, 128)
        [16, 32, 64, 128]
    """
    return [1 << bit for bit in range(smallest_bytes.bit_length() - 1, largest_bytes.bit_length())]


def worst_unused_ratio(classes: list[int]) -> float:
    """Compute the largest share of a block that a request can leave unused, for requests of 64 bytes and more.

    Example:
        >>> worst_unused_ratio([64, 128])
        0.4921875
    """
    pairs = [(low, high) for low, high in itertools.pairwise(classes) if high > 64]
    return max(((high - low - 1) / high for low, high in pairs), default=0.0)

"""The size classes of the counters: by usable bytes, fine where programs allocate, coarse above.

Up to 1032 bytes a class is 16 bytes wide and ends 8 above a multiple of 16, because that is what glibc hands out (24, 40,
56, ...); allocators that hand out multiples of 16 fall one into each class as well. Above, two classes a doubling to
1 MiB, one a doubling to 512 GiB, and an open one.
"""

from __future__ import annotations

from typing import Final

FINE_CLASSES: Final = 65
FINE_LIMIT_BYTES: Final = 16 * (FINE_CLASSES - 1) + 8
PYTHON_POOLS_END_BYTES: Final = 16 * 32 + 8
"""Where the class of the largest blocks in CPython's pools (512 bytes) ends."""
HALVED_DOUBLINGS: Final = (10, 20)
"""From 2**10 to 2**20 a doubling has two classes."""
WHOLE_DOUBLINGS: Final = (20, 39)
"""From 2**20 to 2**39 a doubling has one class."""

CLASS_BYTES: Final[tuple[int | None, ...]] = (
    *(16 * index + 8 for index in range(FINE_CLASSES)),
    *(half * (1 << (doubling - 1)) + 8 for doubling in range(*HALVED_DOUBLINGS) for half in (3, 4)),
    *((1 << (doubling + 1)) + 8 for doubling in range(*WHOLE_DOUBLINGS)),
    None,
)
"""The largest usable bytes of each class; None for the last, open one."""

CLASS_COUNT: Final = len(CLASS_BYTES)
LARGE_CLASSES: Final = CLASS_COUNT - FINE_CLASSES


def compute_class_index(usable_bytes: int) -> int:
    """Find the class of a block, as the probe does.

    Args:
        usable_bytes: What ``malloc_usable_size`` answers for it.

    Returns:
        An index into `CLASS_BYTES`.

    Example:
        >>> CLASS_BYTES[compute_class_index(24)], CLASS_BYTES[compute_class_index(100_000)]
        (24, 131080)
    """
    if usable_bytes <= FINE_LIMIT_BYTES:
        return (usable_bytes + 7) >> 4
    beyond = usable_bytes - 9
    doubling = beyond.bit_length() - 1
    if doubling < HALVED_DOUBLINGS[1]:
        return FINE_CLASSES + 2 * (doubling - HALVED_DOUBLINGS[0]) + ((beyond >> (doubling - 1)) & 1)
    halved = 2 * (HALVED_DOUBLINGS[1] - HALVED_DOUBLINGS[0])
    return min(FINE_CLASSES + halved + doubling - WHOLE_DOUBLINGS[0], CLASS_COUNT - 1)

"""Where an address stands in a picture: the same in all steps, so that a block that stays is seen to stay.

The heap is 128 KiB from the start and a header is 24 bytes: drawn to scale in one line, the header would be
a fifth of a pixel wide. So the axis is to scale with one exception: a stretch that no step of the run ever
divides may be *torn*, that is, drawn shorter, with a mark that says so. And a piece too small to be seen
gets a smallest width.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from heapsmith.osmem.blocks import Block

_SCALES: Final = (0.25, 0.18, 0.12)  # units per byte: a header of 24 bytes is 6, 4 or 3 units wide
_SMALLEST_PIECE: Final = 3.0
_SMALLEST_TEAR: Final = 90.0
_MOST_ROWS: Final = 4


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of an address range within one row; ``start`` and ``end`` in units from the row's left end.

    ``opens`` and ``closes`` tell whether the range begins and ends here, rather than in another row.
    """

    row: int
    start: float
    end: float
    opens: bool
    closes: bool


class Axis:
    """A map from addresses to places in rows.

    Args:
        boundaries: Every address that anything begins or ends at; at least two.
        row_units: How wide a row is.
        most_rows: More rows than this only where even the smallest scale needs them.

    Attributes:
        rows: How many rows there are.
        units_per_byte: The scale of all that is not torn.
        torn: The stretches drawn shorter than they are, as pairs of addresses.

    Example:
        >>> axis = Axis([0, 24, 1024, 1048, 131072], row_units=1000)
        >>> axis.rows, axis.torn
        (1, [(1048, 131072)])
        >>> [(round(span.start), round(span.end)) for span in axis.spans(24, 1024)]
        [(6, 256)]
    """

    def __init__(self, boundaries: Iterable[int], row_units: float, most_rows: int = _MOST_ROWS) -> None:
        self._addresses = sorted(set(boundaries))
        self._spans: dict[tuple[int, int], tuple[Span, ...]] = {}
        self.row_units = row_units
        lengths = [end - start for start, end in pairwise(self._addresses)]
        self.units_per_byte, longest = _choose_scale(lengths, row_units, most_rows)
        self._places = [0.0]
        self.torn: list[tuple[int, int]] = []
        for (start, end), length in zip(pairwise(self._addresses), lengths, strict=True):
            units = length * self.units_per_byte
            if units > longest:
                self.torn.append((start, end))
            self._places.append(self._places[-1] + max(_SMALLEST_PIECE, min(units, longest)))
        self.rows = max(1, -int(-(self._places[-1] - 1e-6) // row_units))

    def place(self, address: int) -> float:
        """Return how many units from the beginning an address stands; between boundaries, in proportion."""
        index = bisect.bisect_right(self._addresses, address) - 1
        if index < 0:
            return 0.0
        if index >= len(self._addresses) - 1:
            return self._places[-1]
        start, end = self._addresses[index], self._addresses[index + 1]
        share = (address - start) / (end - start)
        return self._places[index] + share * (self._places[index + 1] - self._places[index])

    def spans(self, start: int, end: int) -> tuple[Span, ...]:
        """Cut an address range into the pieces that lie in one row each."""
        # The same blocks are asked for in step after step, and several times in each.
        if (start, end) not in self._spans:
            self._spans[start, end] = tuple(self._cut(start, end))
        return self._spans[start, end]

    def _cut(self, start: int, end: int) -> Iterator[Span]:
        left, right = self.place(start), self.place(end)
        row = int((left + 1e-6) // self.row_units)
        opens = True
        while right - left > 1e-6:
            row_end = min(right, (row + 1) * self.row_units)
            closes = right - row_end < 1e-6
            yield Span(
                row, max(0.0, left - row * self.row_units), row_end - row * self.row_units, opens, closes
            )
            left, row, opens = row_end, row + 1, False

    def point(self, address: int) -> tuple[int, float]:
        """Return the row of an address and its place in it."""
        place = self.place(address)
        row = min(int((place + 1e-6) // self.row_units), self.rows - 1)
        return row, place - row * self.row_units


def _choose_scale(lengths: Sequence[int], row_units: float, most_rows: int) -> tuple[float, float]:
    """Find units per byte and the longest piece that is not torn, so that rows are few and well filled."""
    room = row_units
    for rows in range(1, most_rows + 1):
        room = rows * row_units
        if _total(lengths, _SCALES[-1], float("inf")) <= room:
            return _fill_up(lengths, _SCALES[-1], room), float("inf")
        choices = [(scale, _longest(lengths, scale, room)) for scale in _SCALES]
        scale, longest = min(choices, key=lambda one: sum(length * one[0] > one[1] for length in lengths))
        if longest >= _SMALLEST_TEAR:
            return scale, longest
    scale = _SCALES[-1]
    while _longest(lengths, scale, room) < _SMALLEST_TEAR and scale > 1e-3:
        scale /= 1.5
    return scale, max(_SMALLEST_TEAR, _longest(lengths, scale, room))


def _total(lengths: Sequence[int], scale: float, longest: float) -> float:
    return sum(max(_SMALLEST_PIECE, min(length * scale, longest)) for length in lengths)


def _fill_up(lengths: Sequence[int], scale: float, room: float) -> float:
    low, high = scale, scale * 64
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _total(lengths, middle, float("inf")) <= room else (low, middle)
    return low


def _longest(lengths: Sequence[int], scale: float, room: float) -> float:
    low, high = 0.0, room
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _total(lengths, scale, middle) <= room else (low, middle)
    return low


def boundaries_of(heaps: Iterable[Sequence[Block]]) -> set[int]:
    """Collect every address at which something begins or ends in any of these heaps.

    Example:
        >>> from heapsmith.osmem import HEAP_START, Model
        >>> sorted(address - HEAP_START for address in boundaries_of([Model().malloc(1001).heap]))
        [0, 24, 1025, 1032, 1056, 131072]
    """
    found: set[int] = set()
    for heap in heaps:
        for block in heap:
            found |= {block.address, block.payload, block.end}
            if block.requested_bytes:
                found.add(block.payload + block.requested_bytes)
    return found

"""The few numbers of a region that change by the second, read in some twenty microseconds and without copying it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from heapsmith.run.region import TOLD, Region, estimate_churn_bytes, read_pools
from heapsmith.run.values import Pool
from heapsmith.wire.classes import CLASS_COUNT
from heapsmith.wire.region import (
    CELL,
    PAGE_BYTES,
    POOL,
    POOL_CAPACITY,
    REGION_HEADER,
    SLOT,
    SLOTS_OFFSET_BYTES,
    Allocator,
    SlotKind,
    SlotState,
)

# Allocations and frees are far below 2**63: read as signed, they subtract without conversions.
_COLUMNS: Final = (
    (("state",), "<u4"),
    (("kind",), "<u4"),
    (("live_bytes",), "<i8"),
    (("published_bytes",), "<i8"),
    (("cells", "allocations"), "<i8"),
    (("cells", "live_blocks_peak"), "<u4"),
    (("cells", "below_peak_blocks"), "<i8"),
)
_SLOT_OFFSETS: Final = dict(zip((field.name for field in SLOT.fields), SLOT.offsets(), strict=True))
_CELL_OFFSETS: Final = dict(zip((field.name for field in CELL.fields), CELL.offsets(), strict=True))
_FORMATS: Final = {"u32": "<I", "i32": "<i", "u64": "<Q", "i64": "<q"}
_HEADER_OFFSETS: Final = dict(
    zip((field.name for field in REGION_HEADER.fields), REGION_HEADER.offsets(), strict=True)
)
_POOLS_OFFSET_BYTES: Final = _HEADER_OFFSETS["pools"]
_PLACES: Final = {
    field.name: (struct.Struct(_FORMATS[field.kind]).unpack_from, offset)
    for field, offset in zip(REGION_HEADER.fields, REGION_HEADER.offsets(), strict=True)
    if isinstance(field.kind, str) and field.kind in _FORMATS
}
_NATIVE_EXCESS_BYTES: Final = 8
"""Usable sizes are 8 above a multiple of 16 in glibc, where the class bounds come from; elsewhere the multiple."""


@dataclass(frozen=True)
class Totals:
    """Sums over all threads; bytes turned over are estimated in large classes, whose blocks differ in size."""

    live_blocks: int
    allocations: int
    frees: int
    allocated_bytes: int
    freed_bytes: int
    python_blocks: int


class GaugeReader:
    """Reads one region again and again.

    Args:
        region: An open region, which cannot be closed before this reader is (its bytes are looked at in place).
    """

    def __init__(self, region: Region) -> None:
        self._bytes: Any = region.buffer
        self._capacity = (len(region.buffer) - SLOTS_OFFSET_BYTES) // PAGE_BYTES
        self._used = -1
        self._is_glibc = self.number("allocator") == Allocator.GLIBC
        self._views: tuple[Any, ...] = ()

    def number(self, field: str) -> int:
        """A number of the header, now.

        Args:
            field: Its name in `heapsmith.wire.region.REGION_HEADER`.
        """
        unpack, offset = _PLACES[field]
        return unpack(self._bytes, offset)[0]

    def live_bytes(self) -> int:
        """Allocated and not yet freed: what threads have published, and what they have not."""
        published = self.number("published_live_bytes")
        state, kind, live, in_header, *_ = self._look()
        native = (kind == SlotKind.NATIVE) & (state == SlotState.ALIVE)
        return max(0, published + int((live - in_header)[native].sum()))

    def totals(self) -> Totals:
        """Sum the slots as they stand."""
        state, kind, _, _, all_allocations, peaks, below = self._look()
        alive = state == SlotState.ALIVE
        live = (peaks - below)[alive]
        kinds = kind[alive]
        own = kinds < SlotKind.INHERITED_NATIVE
        allocations = all_allocations[alive][own]
        frees = allocations - live[own]
        count, freed_count = int(allocations.sum()), int(frees.sum())
        excess_bytes = 0 if self._is_glibc else _NATIVE_EXCESS_BYTES
        return Totals(
            live_blocks=max(0, int(live.sum())),
            allocations=count,
            frees=freed_count,
            allocated_bytes=estimate_churn_bytes(allocations) - excess_bytes * count,
            freed_bytes=estimate_churn_bytes(frees) - excess_bytes * freed_count,
            python_blocks=max(0, int(live[kinds % 2 == SlotKind.PYTHON].sum())),
        )

    def told(self) -> dict[str, int]:
        """What the allocator told of itself when the program last asked, by field."""
        fields = self.number("told_fields")
        return {name: self.number(f"told_{name}") for bit, name in TOLD.items() if fields & bit}

    def pools(self) -> list[Pool]:
        """The private pools that the program has registered."""
        table = np.frombuffer(self._bytes, POOL.dtype(), POOL_CAPACITY, _POOLS_OFFSET_BYTES)
        return read_pools(table) if table["state"].any() else []

    def close(self) -> None:
        """Let go of the region's bytes."""
        self._views = ()
        self._bytes = b""

    def _look(self) -> tuple[Any, ...]:
        used = min(self.number("slots_used"), self._capacity)
        if used != self._used:
            self._used = used
            self._views = tuple(self._view(used, path, kind) for path, kind in _COLUMNS)
        return self._views

    def _view(self, used: int, path: tuple[str, ...], kind: str) -> Any:
        if used == 0:  # NumPy has no view of nothing at the end of a buffer
            return np.empty((0,) if len(path) == 1 else (0, CLASS_COUNT), kind)
        offset = SLOTS_OFFSET_BYTES + _SLOT_OFFSETS[path[0]]
        if len(path) == 1:
            return np.ndarray((used,), kind, self._bytes, offset, (PAGE_BYTES,))
        offset += _CELL_OFFSETS[path[1]]
        return np.ndarray((used, CLASS_COUNT), kind, self._bytes, offset, (PAGE_BYTES, CELL.size_bytes))

"""How structures are described once and become a NumPy dtype here and a C++ struct there.

Fields follow each other without hidden padding: every field must lie at a multiple of its own alignment, and a structure
that breaks this is refused when it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_SCALARS: Final = {
    "u8": ("uint8_t", "<u1"),
    "u16": ("uint16_t", "<u2"),
    "u32": ("uint32_t", "<u4"),
    "i32": ("int32_t", "<i4"),
    "u64": ("uint64_t", "<u8"),
    "i64": ("int64_t", "<i8"),
}


@dataclass(frozen=True)
class Field:
    """One field of a structure in shared memory.

    Args:
        name: With its unit (``live_bytes``, ``start_ns``), as in C++ and in the dtype.
        kind: A scalar (``u64``, ``i32``, ...), ``text`` (bytes, zero-terminated) or another `Struct`.
        meaning: One clause for readers of the header and of the docs.
        count: Length of an array; 1 is a plain field.
    """

    name: str
    kind: str | Struct
    meaning: str
    count: int = 1

    @property
    def item_bytes(self) -> int:
        """Bytes of one item."""
        if isinstance(self.kind, Struct):
            return self.kind.size_bytes
        return 1 if self.kind == "text" else np.dtype(_SCALARS[self.kind][1]).itemsize

    @property
    def alignment_bytes(self) -> int:
        """The alignment that C++ gives this field."""
        return self.kind.alignment_bytes if isinstance(self.kind, Struct) else self.item_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole field."""
        return self.item_bytes * self.count

    def dtype(self) -> npt.DTypeLike:
        """The NumPy type of the field."""
        if self.kind == "text":
            return np.dtype(f"S{self.count}")
        item = self.kind.dtype() if isinstance(self.kind, Struct) else np.dtype(_SCALARS[self.kind][1])
        return np.dtype((item, (self.count,))) if self.count > 1 else item

    def declaration(self) -> str:
        """The C++ declaration of the field."""
        if self.kind == "text":
            return f"char {self.name}[{self.count}];"
        kind = self.kind.name if isinstance(self.kind, Struct) else _SCALARS[self.kind][0]
        return f"{kind} {self.name}{f'[{self.count}]' if self.count > 1 else ''};"


@dataclass(frozen=True)
class Struct:
    """A structure in shared memory, the same bytes in Python and in C++.

    Args:
        name: Its C++ name.
        meaning: One sentence for readers of the header.
        fields: In order; offsets follow from it.
        size_bytes: The whole size, padded at the end.

    Raises:
        ValueError: A field is not aligned, or the fields need more than the size.
    """

    name: str
    meaning: str
    fields: Sequence[Field]
    size_bytes: int

    def __post_init__(self) -> None:
        used_bytes = 0
        for field in self.fields:
            if used_bytes % field.alignment_bytes:
                raise ValueError(
                    f"{self.name}.{field.name} lies at {used_bytes}, not at a multiple of {field.alignment_bytes}"
                )
            used_bytes += field.size_bytes
        if used_bytes > self.size_bytes or self.size_bytes % self.alignment_bytes:
            raise ValueError(f"{self.name} needs {used_bytes} bytes and has {self.size_bytes}")

    @property
    def alignment_bytes(self) -> int:
        """The alignment that C++ gives the structure."""
        return max(field.alignment_bytes for field in self.fields)

    def offsets(self) -> list[int]:
        """Bytes from the beginning of the structure to each field."""
        offsets, at = list[int](), 0
        for field in self.fields:
            offsets.append(at)
            at += field.size_bytes
        return offsets

    def dtype(self) -> np.dtype[np.void]:
        """The NumPy type of the structure."""
        return np.dtype(
            {
                "names": [field.name for field in self.fields],
                "formats": [field.dtype() for field in self.fields],
                "offsets": self.offsets(),
                "itemsize": self.size_bytes,
            }
        )

    def render(self) -> str:
        """Render the C++ definition, with assertions of every offset."""
        used_bytes = sum(field.size_bytes for field in self.fields)
        padding = self.size_bytes - used_bytes
        lines = [f"// {self.meaning}", f"struct {self.name} {{"]
        lines += [f"  {field.declaration()}  // {field.meaning}" for field in self.fields]
        if padding:
            lines.append(f"  uint8_t padding[{padding}];")
        lines += ["};", f"static_assert(sizeof({self.name}) == {self.size_bytes});"]
        lines += [
            f"static_assert(offsetof({self.name}, {field.name}) == {offset});"
            for field, offset in zip(self.fields, self.offsets(), strict=True)
        ]
        return "\n".join(lines)

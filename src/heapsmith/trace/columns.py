"""Columns of unsigned integers as bytes: small values take one byte, and every stream holds values of one width.

A column of n values is one stream of n bytes, then three streams of wider values. A byte below 253 is the value itself;
253, 254 and 255 say that the value is the next one of the 16-, 32- or 64-bit stream. Streams of one width and one
meaning compress well, and both directions are whole-array operations.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_WIDE_16: Final = 253
_WIDE_32: Final = 254
_WIDE_64: Final = 255
_COUNTS: Final = np.dtype("<u4")


def encode_column(values: NDArray[np.unsignedinteger]) -> bytes:
    """Encode unsigned integers, shape (n,).

    Example:
        >>> encode_column(np.array([7, 300], np.uint64)).hex()
        '0200000001000000000000000000000007fd2c01'
    """
    values = np.ascontiguousarray(values)
    codes = values.astype(np.uint8)
    if len(values) == 0 or int(values.max()) < _WIDE_16:
        return _header(len(values), 0, 0, 0) + codes.tobytes()
    wide = values >= _WIDE_16
    wide_64 = values > 0xFFFFFFFF
    wide_16 = wide & (values <= 0xFFFF)
    wide_32 = wide & ~wide_16 & ~wide_64
    codes[wide_16] = _WIDE_16
    codes[wide_32] = _WIDE_32
    codes[wide_64] = _WIDE_64
    streams = values[wide_16].astype("<u2"), values[wide_32].astype("<u4"), values[wide_64].astype("<u8")
    return b"".join(
        [
            _header(len(values), *(len(stream) for stream in streams)),
            codes.tobytes(),
            *(s.tobytes() for s in streams),
        ]
    )


def decode_column(data: memoryview, offset: int) -> tuple[NDArray[np.uint64], int]:
    """Decode the column at `offset`.

    Returns:
        The values, shape (n,), and the offset behind them.

    Raises:
        ValueError: The bytes are not a column.
    """
    counts = np.frombuffer(data, _COUNTS, 4, offset).astype(np.int64)
    offset += 16
    codes = np.frombuffer(data, np.uint8, int(counts[0]), offset)
    offset += len(codes)
    values = codes.astype(np.uint64)
    for code, dtype, count in zip(
        (_WIDE_16, _WIDE_32, _WIDE_64), ("<u2", "<u4", "<u8"), counts[1:], strict=True
    ):
        if not count:
            continue
        wide = np.frombuffer(data, np.dtype(dtype), int(count), offset)
        offset += wide.nbytes
        places = np.flatnonzero(codes == code)
        if len(places) != len(wide):
            raise ValueError("the streams of a column do not fit each other")
        values[places] = wide
    return values, offset


def split_column(
    data: memoryview, offset: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint32], NDArray[np.uint64], int]:
    """Find the streams of the column at `offset` without putting them together.

    Returns:
        The codes, shape (n,), the 16-, 32- and 64-bit values in the order of their codes, and the offset behind them.

    Raises:
        ValueError: The bytes are not a column.
    """
    counts = np.frombuffer(data, _COUNTS, 4, offset).astype(np.int64)
    offset += 16
    codes = np.frombuffer(data, np.uint8, int(counts[0]), offset)
    offset += len(codes)
    wide: list[NDArray[np.unsignedinteger]] = []
    for dtype, count in zip((np.uint16, np.uint32, np.uint64), counts[1:], strict=True):
        # A copy, because values of a stream may lie at odd addresses.
        values = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), int(count), offset).astype(dtype)
        wide.append(values)
        offset += values.nbytes
    return codes, wide[0], wide[1], wide[2], offset  # type: ignore[return-value]


def _header(*counts: int) -> bytes:
    return np.array(counts, _COUNTS).tobytes()

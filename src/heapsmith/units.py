"""The only parser and formatter of bytes, counts and durations.

Bytes are binary and written so: ``KiB``, ``MiB``, ``GiB``, ``TiB``. ``None`` is *unknown*, written ``?``.
"""

from __future__ import annotations

import re
from typing import Final

from heapsmith.errors import HeapsmithError

KiB: Final = 1 << 10
MiB: Final = 1 << 20
GiB: Final = 1 << 30
TiB: Final = 1 << 40

_BYTE_UNITS: Final = {"": 1, "B": 1, "KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": TiB}
_BYTE_ALIASES: Final = {unit.lower(): size for unit, size in _BYTE_UNITS.items()} | {
    "k": KiB,
    "m": MiB,
    "g": GiB,
    "t": TiB,
}
_SECOND_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)
UNKNOWN: Final = "?"


def parse_bytes(text: str) -> int:
    """Read a number of bytes as a person writes it.

    Args:
        text: A number with an optional binary unit (``512MiB``, ``64 KiB``, ``1.5GiB``, ``4096``).

    Returns:
        Bytes, rounded to a whole number.

    Raises:
        HeapsmithError: The text is no number of bytes, is negative, or is not below 2**63.

    Example:
        >>> parse_bytes("1.5 KiB")
        1536
    """
    match = _NUMBER.fullmatch(text)
    unit = _BYTE_ALIASES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise HeapsmithError(
            f"{text!r} is not a number of bytes", hint="write 512MiB, 64KiB, 1GiB or a plain number"
        )
    number = match[1]
    value = int(number) * unit if number.isdigit() else round(float(number) * unit)
    if value >= 1 << 63:
        raise HeapsmithError(f"{text!r} is more bytes than a 64-bit machine can address")
    return value


def parse_seconds(text: str) -> float:
    """Read a duration as a person writes it (``10ms``, ``2s``, ``5m``; a plain number is seconds).

    Raises:
        HeapsmithError: The text is no duration.

    Example:
        >>> parse_seconds("250ms")
        0.25
    """
    match = _NUMBER.fullmatch(text)
    unit = _SECOND_UNITS.get(match[2].lower() or "s") if match else None
    if match is None or unit is None:
        raise HeapsmithError(f"{text!r} is not a duration", hint="write 10ms, 2s or 5m")
    return float(match[1]) * unit


def format_bytes(value: float | None) -> str:
    """Write bytes for a person, in the largest binary unit that leaves at least one whole.

    Example:
        >>> format_bytes(1536), format_bytes(None), format_bytes(17), format_bytes(-2048)
        ('1.50 KiB', '?', '17 B', '-2.00 KiB')
    """
    if value is None:
        return UNKNOWN
    size = abs(value)
    sign = "-" if value < 0 else ""
    if size < KiB:
        return f"{sign}{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1023.995:
            return f"{sign}{_three_digits(size)} {unit}"
    return f"{sign}{_three_digits(size / 1024)} TiB"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def format_count(value: float | None) -> str:
    """Write a count with thousands separated.

    Example:
        >>> format_count(1234567), format_count(None)
        ('1,234,567', '?')
    """
    return UNKNOWN if value is None else f"{value:,.0f}"


def format_seconds(value: float | None) -> str:
    """Write a duration for a person.

    Example:
        >>> format_seconds(0.0123), format_seconds(75), format_seconds(9e-8), format_seconds(None)
        ('12.3 ms', '1 min 15 s', '90.0 ns', '?')
    """
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0 s"
    if value >= 60:
        minutes, seconds = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
    if value >= 1:
        return f"{_three_digits(value)} s"
    if value >= 1e-3:
        return f"{_three_digits(value * 1e3)} ms"
    if value >= 1e-6:
        return f"{_three_digits(value * 1e6)} us"
    return f"{_three_digits(value * 1e9)} ns"

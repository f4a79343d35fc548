"""How measured figures are written, with their intervals, in every view."""

from __future__ import annotations

from heapsmith.lab.comparison import Unit
from heapsmith.lab.statistics import Difference, Spread
from heapsmith.units import UNKNOWN, format_bytes, format_count, format_seconds


def format_quantity(value: float | None, unit: Unit) -> str:
    """Write one value in its unit.

    Example:
        >>> format_quantity(0.25, "seconds"), format_quantity(None, "bytes"), format_quantity(12.5, "number")
        ('250 ms', '?', '12.5')
    """
    if value is None:
        return UNKNOWN
    if unit == "seconds":
        return format_seconds(value)
    if unit == "bytes":
        return format_bytes(value)
    return format_count(value) if unit == "count" or value >= 1000 else f"{value:.3g}"


def format_spread(spread: Spread, unit: Unit) -> str:
    """Write a median with its 95 % interval, where there is one."""
    median = format_quantity(spread.median, unit)
    if spread.low is None or spread.high is None:
        return median
    return f"{median} ({format_quantity(spread.low, unit)} – {format_quantity(spread.high, unit)})"


def format_ratio(difference: Difference | None) -> str:
    """Write a ratio with its 95 % interval, and what it is worth.

    Example:
        >>> format_ratio(Difference(0.5, 0.48, 0.52, 0.001, True))
        '0.50 (0.48–0.52)'
        >>> format_ratio(Difference(1.01, 0.9, 1.1, 0.6, False))
        '1.01 (noise)'
    """
    if difference is None or difference.ratio is None:
        return ""
    text = _ratio(difference.ratio)
    if difference.more_than_noise is None:
        return f"{text} (?)"
    if not difference.more_than_noise:
        return f"{text} (noise)"
    if difference.low is None or difference.high is None:
        return text
    return f"{text} ({_ratio(difference.low)}–{_ratio(difference.high)})"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"

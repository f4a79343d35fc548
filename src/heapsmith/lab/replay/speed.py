"""The pace of a replay: as fast as it goes, as recorded, or fast but with the rests that were recorded."""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from heapsmith.errors import HeapsmithError
from heapsmith.units import format_seconds, parse_seconds


class Speed(msgspec.Struct, frozen=True):
    """A pace.

    Args:
        factor: How many times faster than recorded; 0: as fast as it goes.
        rests_from_ns: Moments longer than this in which nothing happened are slept through; 0: none are.
    """

    factor: float = 0.0
    rests_from_ns: float = 0.0

    def text(self) -> str:
        """Write it as a person does.

        Example:
            >>> read_speed("1x").text(), read_speed("5ms").text(), MAX.text()
            ('1x', 'with rests from 5.00 ms', 'max')
        """
        if self.factor:
            return f"{self.factor:g}x"
        return f"with rests from {format_seconds(self.rests_from_ns / 1e9)}" if self.rests_from_ns else "max"


MAX: Final = Speed()


def read_speed(text: str) -> Speed:
    """Read a pace: ``max``, ``1x`` (``2x``, ...), or a duration from which on rests are kept.

    Raises:
        HeapsmithError: It is none of them.

    Example:
        >>> read_speed("2x").factor, read_speed("10ms").rests_from_ns
        (2.0, 10000000.0)
    """
    if text == "max":
        return MAX
    if match := re.fullmatch(r"([0-9]*\.?[0-9]+)x", text):
        factor = float(match[1])
        if factor > 0 and math.isfinite(factor):
            return Speed(factor=factor)
    else:
        try:
            rests_from_s = parse_seconds(text)
        except HeapsmithError:
            rests_from_s = 0.0
        if rests_from_s > 0:
            return Speed(rests_from_ns=rests_from_s * 1e9)
    raise HeapsmithError(
        f"--speed {text} is no pace", hint="use max, 1x (as recorded), or a rest that is kept, like 1ms"
    )

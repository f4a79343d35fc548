"""A knob of an allocator as a typed value: unit, range, default, versions that know it, what to try."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from heapsmith.errors import HeapsmithError
from heapsmith.units import GiB, KiB, MiB, TiB, parse_bytes, parse_seconds

Value = int | float | bool | str
Version = tuple[int, ...]
Kind = Literal["bytes", "ms", "count", "ratio", "flag", "choice"]

_BOUNDLESS: Final = 1e12
_TRUE: Final = frozenset({"true", "on", "yes", "1"})
_FALSE: Final = frozenset({"false", "off", "no", "0"})


class Knob(msgspec.Struct, frozen=True, kw_only=True):
    """One value that can change when a program is launched.

    Args:
        name: What people write after the allocator's name.
        kind: The unit and type of the value; ``ms`` may also be written as a duration.
        help: One clause: what a larger value (or "on") does.
        default: What the allocator does when the knob is left alone; None where that is not one value
            (it then depends on the machine, and ``default_note`` says how).
        default_note: Why there is no one default.
        lowest: The smallest value the allocator takes.
        highest: The largest one.
        choices: The words of a ``choice``.
        since: The first version that knows the knob.
        before: The first version that no longer knows it.
        tries: Values worth trying, in order of the axis; the search moves along them.

    Example:
        >>> decay = Knob(name="decay_ms", kind="ms", help="wait", default=10_000, lowest=-1)
        >>> decay.read("1s"), decay.read("0"), decay.spell(1000)
        (1000, 0, '1000')
    """

    name: str
    kind: Kind
    help: str
    default: Value | None = None
    default_note: str = ""
    lowest: float | None = None
    highest: float | None = None
    choices: tuple[str, ...] = ()
    since: Version = ()
    before: Version | None = None
    tries: tuple[Value, ...] = ()

    def known_in(self, version: Version | None) -> bool:
        """Tell whether a version knows this knob; an unknown version is given the benefit of the doubt."""
        if version is None:
            return True
        return version >= self.since and (self.before is None or version < self.before)

    def read(self, text: str) -> Value:
        """Read a value as a person writes it.

        Raises:
            HeapsmithError: The text is no such value, or is out of range; says what would be.
        """
        value = self._parse(text.strip())
        if isinstance(value, (bool, str)):
            return value
        if (self.lowest is not None and value < self.lowest) or (
            self.highest is not None and value > self.highest
        ):
            raise HeapsmithError(f"{self.name}={text} is out of range", hint=self.range_text())
        return value

    def _parse(self, text: str) -> Value:
        if self.kind == "flag":
            if text.lower() in _TRUE | _FALSE:
                return text.lower() in _TRUE
            raise HeapsmithError(f"{self.name}={text} is neither true nor false")
        if self.kind == "choice":
            if text in self.choices:
                return text
            raise HeapsmithError(f"{self.name}={text} is not a choice", hint=self.range_text())
        if self.kind == "bytes":
            return parse_bytes(text)
        if self.kind == "ms" and re.fullmatch(r"[0-9.]+[a-z]+", text):
            return round(parse_seconds(text) * 1000)
        try:
            return float(text) if self.kind == "ratio" else int(text)
        except ValueError:
            raise HeapsmithError(f"{self.name}={text} is not a number", hint=self.range_text()) from None

    def range_text(self) -> str:
        """Say which values are good, for errors and tables."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "flag":
            return "true or false"
        unit = {"bytes": " bytes", "ms": " ms"}.get(self.kind, "")
        low = None if self.lowest is None else self.write(self.lowest)
        high = None if self.highest is None or self.highest > _BOUNDLESS else self.write(self.highest)
        if low is not None and high is not None:
            return f"{low} to {high}{unit if self.kind != 'bytes' else ''}"
        if low is not None:
            return f"{low} or more{unit}"
        return f"a number{unit and ' of' + unit}"

    def write(self, value: Value) -> str:
        """Write a value the way ``read`` takes it, as short as it goes without losing a byte."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if self.kind == "bytes" and isinstance(value, int):
            for unit, size in (("TiB", TiB), ("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
                if value and value % size == 0:
                    return f"{value // size}{unit}"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def spell(self, value: Value) -> str:
        """Spell a value for an allocator that wants plain numbers and ``true`` or ``false``."""
        if isinstance(value, bool):
            return "true" if value else "false"
        return f"{value:g}" if isinstance(value, float) else str(value)

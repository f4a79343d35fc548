"""What the two lines of mimalloc share: their knobs, whose variables were renamed in 2.1.1."""

from __future__ import annotations

from typing import Final

from heapsmith.peers.allocator import Values, Variables
from heapsmith.peers.knobs import Knob, Value, Version
from heapsmith.units import GiB, KiB, MiB

_RENAMED: Final = (2, 1, 1)
_OLD_NAMES: Final = {"purge_delay": "DECOMMIT_DELAY", "allow_large_os_pages": "LARGE_OS_PAGES"}


def spell(values: Values, version: Version | None) -> Variables:
    """Spell knob values as ``MIMALLOC_...`` variables, by the names that version reads.

    Example:
        >>> spell({"allow_large_os_pages": True}, (2, 0, 9)), spell({"purge_delay": 0}, (3, 4, 3))
        ({'MIMALLOC_LARGE_OS_PAGES': '1'}, {'MIMALLOC_PURGE_DELAY': '0'})
    """
    old = version is not None and version < _RENAMED
    variables: Variables = {}
    for name, value in values.items():
        written = _OLD_NAMES.get(name, name.upper()) if old else name.upper()
        variables[f"MIMALLOC_{written}"] = _write(name, value)
        if old and name == "purge_delay":
            # Freed segments had a delay of their own then (500 ms); one wish, so both.
            variables["MIMALLOC_SEGMENT_DECOMMIT_DELAY"] = _write(name, value)
            if value == -1:
                variables["MIMALLOC_ALLOW_DECOMMIT"] = "0"
    return variables


def _write(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if name == "arena_reserve":
        return f"{int(value) // KiB}KiB"
    return str(value)


VARIABLES: Final = (
    "MIMALLOC_PURGE_DELAY",
    "MIMALLOC_DECOMMIT_DELAY",
    "MIMALLOC_SEGMENT_DECOMMIT_DELAY",
    "MIMALLOC_ALLOW_DECOMMIT",
    "MIMALLOC_ALLOW_LARGE_OS_PAGES",
    "MIMALLOC_LARGE_OS_PAGES",
    "MIMALLOC_ARENA_EAGER_COMMIT",
    "MIMALLOC_EAGER_COMMIT",
    "MIMALLOC_ARENA_RESERVE",
    "MIMALLOC_ALLOW_THP",
)


def knobs(*, purge_delay_ms: int | None, note: str = "") -> tuple[Knob, ...]:
    """List the knobs of a line of mimalloc, whose purge delay by default is ``purge_delay_ms``."""
    return (
        Knob(
            name="purge_delay",
            kind="ms",
            help="free pages stay for so long before they are purged; -1: for ever",
            default=purge_delay_ms,
            default_note=note,
            lowest=-1,
            tries=(0, 10, 100, 1_000, -1),
        ),
        Knob(
            name="allow_large_os_pages",
            kind="flag",
            help="use 2 MiB pages where the system gives them",
            default=False,
            tries=(False, True),
        ),
        Knob(
            name="arena_eager_commit",
            kind="count",
            help="commit whole segments at once: 0 no, 1 yes, 2 where the system overcommits",
            default=2,
            lowest=0,
            highest=2,
            since=_RENAMED,
            tries=(0, 2),
        ),
        Knob(
            name="arena_reserve",
            kind="bytes",
            help="address space reserved at a time",
            default=1 * GiB,
            lowest=1 * MiB,
            since=_RENAMED,
        ),
        Knob(
            name="allow_thp",
            kind="flag",
            help="leave transparent huge pages on for the process",
            default=True,
            since=(2, 2),
            tries=(False, True),
        ),
    )

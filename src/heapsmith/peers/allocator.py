"""What is known of one allocator: its library, how it is recognised, its knobs, what it can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

from heapsmith.peers.knobs import Knob, Value, Version

Tells = Literal["exact", "approximate", "unknown"]
Values = Mapping[str, Value]
Variables = dict[str, str]

FIELDS: Final[tuple[str, ...]] = (
    "current_allocated_heap_size",
    "peak_allocated_heap_size",
    "max_total_heap_size",
    "committed_bytes",
    "reserved_bytes",
    "metadata_bytes",
    "free_cached_bytes",
)
"""What one would like to know of a heap; each allocator says which of these its own statistics can tell.

What is resident is not among them: the kernel tells it of every process, exactly. A test asks every allocator of the
machine and compares (``native/heap/told.cc`` is who asks).
"""


def tells(**known: Tells) -> dict[str, Tells]:
    """Fill the fields an allocator says nothing about with ``unknown``.

    Example:
        >>> tells(committed_bytes="exact")["reserved_bytes"]
        'unknown'
    """
    return {field: known.get(field, "unknown") for field in FIELDS}


class Install(msgspec.Struct, frozen=True):
    """A way to get an allocator.

    Args:
        manager: ``apt-get``, ``dnf`` or ``pip``; ``source`` where only building it is left.
        command: What to type, or what to build.
        where: On which systems that works, where it is not on all that have the manager.
    """

    manager: str
    command: str
    where: str = ""

    def words(self) -> str:
        """Write it for people.

        Example:
            >>> Install("apt-get", "apt-get install libjemalloc2").words()
            '`apt-get install libjemalloc2`'
        """
        way = f"its source ({self.command})" if self.manager == "source" else f"`{self.command}`"
        return f"{way} ({self.where})" if self.where else way


class Start(msgspec.Struct, frozen=True):
    """A setting of knobs that people really use, and where a search begins.

    Args:
        knobs: Name and value of each knob that differs from the default.
        goal: What it is good for: fewer resident bytes, time, or nobody knows.
        python: How CPython allocates its own objects then (see `peers.python`); None leaves that alone.
    """

    knobs: tuple[tuple[str, Value], ...] = ()
    goal: Literal["memory", "time", "balanced"] = "balanced"
    python: str | None = None


class Allocator(msgspec.Struct, frozen=True, kw_only=True):
    """One allocator that programs can be started on.

    Args:
        name: The word people write.
        title: Its full name, for tables.
        libraries: File name patterns of the library to preload, best first; empty when nothing needs
        preloading.
        identified_by: The name under which `peers.identify` recognises the library.
        variables: Environment variables that this allocator reads and heapsmith may set or clear.
        spell: From knob values and version to environment variables.
        knobs: What can be set at launch.
        starts: Settings worth trying first; the plain default is always tried.
        fields: What its statistics can tell (`FIELDS`).
        meanings: What exactly a field of those counts that is not plain, one clause each.
        install: How to get it here, by package manager.
        note: One clause a person should know before using it.
        python_only: It makes sense for CPython programs alone.
        worth_trying: Whether it takes part where nobody names candidates.
    """

    name: str
    title: str
    identified_by: str
    knobs: tuple[Knob, ...]
    spell: Callable[[Values, Version | None], Variables]
    fields: dict[str, Tells]
    meanings: dict[str, str] = {}
    libraries: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    starts: tuple[Start, ...] = ()
    install: tuple[Install, ...] = ()
    note: str = ""
    python_only: bool = False
    worth_trying: bool = True

    def how_to_get(self) -> str:
        """Say how to get it here, in one clause."""
        if not self.install:
            return self.note
        ways = " or ".join(way.words() for way in self.install)
        return f"get it with {ways}, or give the path of its library"

    def knob(self, name: str) -> Knob | None:
        """Return the knob of that name, or None."""
        return next((knob for knob in self.knobs if knob.name == name), None)

"""What a trace says beside its events: the run, its processes, threads, modules. JSON in the file, typed values here."""

from __future__ import annotations

from typing import Literal

import msgspec

StackMode = Literal["none", "sampled", "all"]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """How the trace was made.

    Attributes:
        command: The launched command; empty where a process was attached to or recorded itself.
        started_unix_ns: Wall clock at time 0 of the trace.
        tick_ns: What times in the file count, in ns: the resolution of time.
        stacks: Which events have a stack.
        sample_every_bytes: Mean bytes between samples where only sampled allocations were recorded; None: all events.
        python_objects: Whether blocks of CPython's own arenas are in the trace.
        allocator: Name of the allocator that the program ran on, as far as known.
        heapsmith: Version that wrote the file.
        machine: What is told of the machine (architecture, kernel, page size and so on).
    """

    command: list[str]
    started_unix_ns: int
    tick_ns: int = 1000
    stacks: StackMode = "none"
    sample_every_bytes: int | None = None
    python_objects: bool = False
    allocator: str | None = None
    heapsmith: str
    machine: dict[str, str | int] = {}


class ProcessStart(msgspec.Struct, frozen=True, kw_only=True):
    """A process image: made by fork or exec. Times are in ns since the start of the trace."""

    pid: int
    ppid: int | None
    name: str
    command: list[str]
    started_ns: int
    forked_from: int | None = None
    """Index of the process whose objects this one inherited by fork; None after exec."""


class ProcessEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a process image ended; `exit_code` and `signal` are None where that is unknown."""

    ended_ns: int
    exit_code: int | None = None
    signal: int | None = None
    replaced: bool = False
    """It executed another image."""


class ThreadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One thread; `index` is what events name. A later record with the same index replaces an earlier one."""

    index: int
    tid: int
    name: str
    started_ns: int | None = None
    ended_ns: int | None = None


class ModuleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A shared object or program that frames lie in; modules are numbered in their order in the file."""

    path: str
    build_id: str | None
    """Hexadecimal; None where the file has none."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A moment that somebody named: the ends of ``with heapsmith.record()``, a threshold that was crossed."""

    time_ns: int
    name: str


class Drops(msgspec.Struct, frozen=True, kw_only=True):
    """Events that were not recorded, between two moments."""

    events: int
    since_ns: int
    until_ns: int
    reason: str


class Symbol(msgspec.Struct, frozen=True, array_like=True):
    """A place in the source; file and line are None where no debug information tells them."""

    function: str
    file: str | None = None
    line: int | None = None


class FrameSymbols(msgspec.Struct, frozen=True, array_like=True):
    """What a native frame is: inlined functions first, the function they are in last."""

    frame: int
    symbols: list[Symbol]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last chunk of a recording that ended well."""

    ended_ns: int
    events: int

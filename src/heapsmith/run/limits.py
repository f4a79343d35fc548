"""How many bytes a process's heap can ever hold, who says so, and what happens there.

The tightest of all hard bounds, each less what it counts besides this heap. On Linux a bound is in one of several
currencies (heap bytes, private writable mappings, address space, pages charged to a group), and reaching it is a NULL, or
a kill, so the source and the effect belong to the number.
"""

from __future__ import annotations

import contextlib
import enum
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from heapsmith.run.values import Process

_UNLIMITED_FROM: Final = 1 << 62
_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


class LimitSource(enum.StrEnum):
    """Who sets the bound."""

    CAP = "cap"
    RLIMIT_DATA = "rlimit_data"
    RLIMIT_AS = "rlimit_as"
    CGROUP2 = "cgroup2"
    CGROUP1 = "cgroup1"
    PHYSICAL = "physical"


class LimitEffect(enum.StrEnum):
    """What happens at the bound."""

    NULL = "null"
    KILL = "kill"


@dataclass(frozen=True)
class HeapLimit:
    """A bound on the heap of one process.

    Args:
        source: Who sets it.
        effect: What an allocation meets there.
        heap_bytes: Bytes that this heap may hold in all, never below what it holds.
        available_bytes: How many more it may take now.
    """

    source: LimitSource
    effect: LimitEffect
    heap_bytes: int
    available_bytes: int


def compute_heap_limit(process: Process) -> HeapLimit | None:
    """Find the tightest bound on a running process's heap.

    Args:
        process: A watched process.

    Returns:
        The bound; None if nothing about the process can be read any more.
    """
    bounds = [
        HeapLimit(source, effect, process.live_bytes + max(0, limit - used), max(0, limit - used))
        for source, effect, limit, used in _bounds(process)
    ]
    return min(bounds, key=lambda bound: bound.available_bytes, default=None)


def _bounds(process: Process) -> Iterator[tuple[LimitSource, LimitEffect, int, int]]:
    """Yield every finite bound: source, effect, the bound, and what of it is used, in its own currency."""
    if process.limit_bytes is not None:
        yield LimitSource.CAP, LimitEffect.NULL, process.limit_bytes, process.live_bytes
    with contextlib.suppress(psutil.Error, OSError, ValueError):
        subject = psutil.Process(process.pid)
        memory = subject.memory_info()
        for source, number, used in (
            (LimitSource.RLIMIT_DATA, resource.RLIMIT_DATA, int(memory.data)),
            (LimitSource.RLIMIT_AS, resource.RLIMIT_AS, int(memory.vms)),
        ):
            soft, _ = resource.prlimit(process.pid, number)
            if soft != resource.RLIM_INFINITY:
                yield source, LimitEffect.NULL, soft, used
    for source, limit, used in _cgroup_bounds(process.pid):
        yield source, LimitEffect.KILL, limit, used
    system = psutil.virtual_memory()
    yield LimitSource.PHYSICAL, LimitEffect.KILL, system.total, system.total - system.available


def _cgroup_bounds(pid: int) -> Iterator[tuple[LimitSource, int, int]]:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            source, root, limit_file, used_file = (
                LimitSource.CGROUP2,
                _CGROUP_ROOT,
                "memory.max",
                "memory.current",
            )
        elif "memory" in controllers.split(","):
            source, root = LimitSource.CGROUP1, _CGROUP_ROOT / "memory"
            limit_file, used_file = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        # In a namespace of its own a container sees its group at the root; otherwise every ancestor binds as well.
        for directory in (group, *group.parents):
            limit, used = _read_number(directory / limit_file), _read_number(directory / used_file)
            if limit is not None and used is not None and limit < _UNLIMITED_FROM:
                yield source, limit, used
            if directory == root:
                break


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None

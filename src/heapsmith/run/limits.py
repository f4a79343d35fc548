"""How many bytes a process's heap can ever hold, who says so, and what happens there.

The tightest of all hard bounds, each less what it counts besides this heap. On Linux a bound is in one of several
currencies (heap bytes, private writable mappings, address space, pages charged to a group), and reaching it is a NULL, or
a kill, so the source and the effect belong to the number. The same arithmetic runs inside the program as
``native/os/limits.cc``.
"""

from __future__ import annotations

import contextlib
import enum
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heapsmith.errors import RunError
from heapsmith.run.values import Process
from heapsmith.units import format_bytes
from heapsmith.wire.region import PAGE_BYTES

_UNLIMITED_FROM: Final = 1 << 62
_AUTO_SHARE: Final = 0.75
"""Of a container's limit, what a heap may take by itself: .NET's default."""
_LEAST_AUTO_BYTES: Final = 20 << 20
_STRICT_OVERCOMMIT: Final = 2


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
    THROTTLE = "throttle"


@dataclass(frozen=True)
class Bound:
    """One bound in its own currency.

    Args:
        source: Who sets it.
        effect: What an allocation meets there.
        limit_bytes: The bound itself.
        used_bytes: What of it is used now, by whatever it counts; idle page cache is not (it goes before anybody is
            killed).
        place: The file or resource limit that says so.
    """

    source: LimitSource
    effect: LimitEffect
    limit_bytes: int
    used_bytes: int
    place: str

    @property
    def available_bytes(self) -> int:
        """How much more it allows."""
        return max(0, self.limit_bytes - self.used_bytes)


@dataclass(frozen=True)
class HeapLimit:
    """A bound on the heap of one process.

    Args:
        source: Who sets it.
        effect: What an allocation meets there.
        heap_bytes: Bytes that this heap may hold in all, never below what it holds.
        available_bytes: How many more it may take now.
        raw_bytes: The bound itself, in its own currency.
        place: The file or resource limit that says so.
        soft_bytes: The lower of the warning threshold and what memory.high leaves to this heap; None for neither.
        soft_source: Who sets that.
    """

    source: LimitSource
    effect: LimitEffect
    heap_bytes: int
    available_bytes: int
    raw_bytes: int = 0
    place: str = ""
    soft_bytes: int | None = None
    soft_source: LimitSource | None = None


@dataclass(frozen=True)
class Machine:
    """Where the kernel tells these things; the tests make one of their own.

    Args:
        proc: Usually ``/proc``.
        cgroups: Usually ``/sys/fs/cgroup``.
    """

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")


_MACHINE: Final = Machine()


def compute_heap_limit(process: Process, machine: Machine = _MACHINE) -> HeapLimit | None:
    """Find the tightest bound on a running process's heap.

    Args:
        process: A watched process.
        machine: Where to read.

    Returns:
        The bound; None if nothing about the process can be read any more.
    """
    return compute_tightest(
        read_bounds(process.pid, machine), process.live_bytes, process.limit_bytes, process.warn_at_bytes
    )


def compute_tightest(
    bounds: Iterable[Bound], live_bytes: int, limit_bytes: int | None, warn_at_bytes: int | None
) -> HeapLimit | None:
    """Choose among the kernel's bounds and heapsmith's own.

    Args:
        bounds: Of the kernel.
        live_bytes: What the heap holds.
        limit_bytes: Heapsmith's hard limit; None for none.
        warn_at_bytes: Its warning threshold; None for none.

    Returns:
        The tightest; None if nothing about the process can be read any more.
    """
    every = list(bounds)
    hard = [bound for bound in every if bound.effect is not LimitEffect.THROTTLE]
    soft = [bound for bound in every if bound.effect is LimitEffect.THROTTLE]
    if not hard:
        return None
    if limit_bytes is not None:
        hard.append(Bound(LimitSource.CAP, LimitEffect.NULL, limit_bytes, live_bytes, "heapsmith's limit"))
    if warn_at_bytes is not None:
        soft.append(Bound(LimitSource.CAP, LimitEffect.THROTTLE, warn_at_bytes, live_bytes, "--warn-at"))
    tightest = min(hard, key=lambda bound: bound.available_bytes)
    softest = min(soft, key=lambda bound: bound.limit_bytes - bound.used_bytes, default=None)
    return HeapLimit(
        source=tightest.source,
        effect=tightest.effect,
        heap_bytes=live_bytes + tightest.available_bytes,
        available_bytes=tightest.available_bytes,
        raw_bytes=tightest.limit_bytes,
        place=tightest.place,
        soft_bytes=None if softest is None else live_bytes + softest.limit_bytes - softest.used_bytes,
        soft_source=None if softest is None else softest.source,
    )


def compute_auto_limit(machine: Machine = _MACHINE) -> tuple[int, Bound]:
    """Choose a limit below the one that would kill: three quarters of the tightest bound of the kernel.

    Returns:
        Bytes, and the bound that they are a share of.

    Raises:
        RunError: Nothing bounds this process.

    Example:
        >>> limit_bytes, bound = compute_auto_limit()
        >>> limit_bytes <= bound.limit_bytes
        True
    """
    bounds = [bound for bound in read_bounds("self", machine) if bound.effect is not LimitEffect.THROTTLE]
    # The group's own number, not what is left of it: what else runs in it now will not be there for ever.
    tightest = min(bounds, key=lambda bound: bound.limit_bytes, default=None)
    if tightest is None:
        raise RunError("no limit can be chosen", "nothing here bounds memory", "give --limit in bytes")
    return max(
        min(_LEAST_AUTO_BYTES, tightest.limit_bytes), int(tightest.limit_bytes * _AUTO_SHARE)
    ), tightest


def largest_request_bytes(allocator: str, available_bytes: int) -> int:
    """The largest single request that fits into so many bytes, by how an allocator rounds large blocks.

    Args:
        allocator: Its usual name.
        available_bytes: What the tightest bound leaves.

    Example:
        >>> largest_request_bytes("jemalloc", 100 << 20) >> 20, largest_request_bytes("unknown", 100 << 20) >> 20
        (96, 64)
    """
    if available_bytes < PAGE_BYTES:
        return 0
    if allocator in ("glibc", "musl", "heapsmith"):  # pages, and the words before a block
        return available_bytes // PAGE_BYTES * PAGE_BYTES - 32
    if allocator == "dlmalloc":
        return available_bytes // PAGE_BYTES * PAGE_BYTES - 128
    if allocator == "tcmalloc":
        return available_bytes // 8192 * 8192
    if allocator.startswith("mimalloc"):
        return max(0, available_bytes // 65536 * 65536 - 65536)
    if allocator == "jemalloc":  # four size classes to a doubling
        quarter = 1 << max(0, available_bytes.bit_length() - 3)
        return available_bytes // quarter * quarter
    # Nobody knows how it rounds: whole powers of two, and a page for words of its own.
    room = available_bytes - PAGE_BYTES
    return 0 if room <= 0 else 1 << (room.bit_length() - 1)


def refuse_limit_below_live(process: Process, limit_bytes: int) -> None:
    """A limit below what is live would fail every allocation.

    Raises:
        RunError: It is below.
    """
    if limit_bytes < process.live_bytes:
        raise RunError(
            f"process {process.pid} cannot be limited to {format_bytes(limit_bytes)}",
            f"{format_bytes(process.live_bytes)} are live",
            "say --force: then its next allocation fails",
        )


def read_bounds(pid: int | str, machine: Machine = _MACHINE) -> Iterator[Bound]:
    """Yield every finite bound of the kernel on a process (``"self"`` for this one); none when it is gone."""
    status = _read_table(machine.proc / str(pid) / "status")
    if not status:
        return
    for source, number, key in (
        (LimitSource.RLIMIT_DATA, resource.RLIMIT_DATA, "VmData"),
        (LimitSource.RLIMIT_AS, resource.RLIMIT_AS, "VmSize"),
    ):
        with contextlib.suppress(OSError, ValueError):
            soft, _ = resource.prlimit(0 if pid == "self" else int(pid), number)
            if soft != resource.RLIM_INFINITY and key in status:
                yield Bound(source, LimitEffect.NULL, soft, status[key], source.value.upper())
    yield from _read_groups(pid, machine)
    yield from _read_machine(machine)


def _read_groups(pid: int | str, machine: Machine) -> Iterator[Bound]:
    for group in memory_groups(pid, machine):
        used = group.used_bytes()
        if used is None:
            continue
        for file, effect in group.limits:
            limit = _read_number(group.directory / file)
            if limit is not None and limit < _UNLIMITED_FROM:
                yield Bound(group.source, effect, limit, used, str(group.directory / file))


@dataclass(frozen=True)
class MemoryGroup:
    """A cgroup that a process's pages are charged to.

    Args:
        source: Its version.
        directory: Its files.
    """

    source: LimitSource
    directory: Path

    @property
    def limits(self) -> tuple[tuple[str, LimitEffect], ...]:
        """The files of its limits, and what happens at each."""
        if self.source is LimitSource.CGROUP1:
            return (("memory.limit_in_bytes", LimitEffect.KILL),)
        return (("memory.max", LimitEffect.KILL), ("memory.high", LimitEffect.THROTTLE))

    def read_limits(self) -> dict[str, int]:
        """Its finite limits by the last word of their names: ``max``, ``high``."""
        names = {"memory.limit_in_bytes": "max", "memory.max": "max", "memory.high": "high"}
        found = {names[file]: _read_number(self.directory / file) for file, _ in self.limits}
        return {name: value for name, value in found.items() if value is not None and value < _UNLIMITED_FROM}

    def current_bytes(self) -> int | None:
        """What is charged to it, page cache included; None where it does not say."""
        name = "memory.usage_in_bytes" if self.source is LimitSource.CGROUP1 else "memory.current"
        return _read_number(self.directory / name)

    def used_bytes(self) -> int | None:
        """What is charged to it and cannot simply be dropped: without idle page cache."""
        current = self.current_bytes()
        if current is None:
            return None
        key = "total_inactive_file" if self.source is LimitSource.CGROUP1 else "inactive_file"
        return max(0, current - self.statistics().get(key, 0))

    def statistics(self) -> dict[str, int]:
        """Its ``memory.stat``."""
        return _read_pairs(self.directory / "memory.stat")

    def events(self) -> dict[str, int]:
        """How often its limits were met: ``high``, ``max``, ``oom``, ``oom_kill``, ...; empty where it does not count."""
        if self.source is LimitSource.CGROUP2:
            return _read_pairs(self.directory / "memory.events")
        events = {
            key: value
            for key, value in _read_pairs(self.directory / "memory.oom_control").items()
            if key == "oom_kill"
        }
        failures = _read_number(self.directory / "memory.failcnt")
        return events if failures is None else events | {"max": failures}

    def stall_seconds(self) -> dict[str, float]:
        """How long tasks have waited for memory, ``some`` and ``full``; empty where the kernel does not measure it."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = (self.directory / "memory.pressure").read_text().splitlines()
            return {
                line.split()[0]: int(line.rsplit("total=", 1)[1]) / 1e6 for line in lines if "total=" in line
            }
        return {}


def memory_groups(pid: int | str, machine: Machine = _MACHINE) -> Iterator[MemoryGroup]:
    """Yield the cgroups that bound a process's memory, its own first, then every ancestor that can be seen."""
    try:
        lines = (machine.proc / str(pid) / "cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, separator, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not separator:
            continue
        if not controllers:
            # Where the old hierarchy has the memory controller, the new one is a folder beside it.
            roots = [
                (LimitSource.CGROUP2, machine.cgroups),
                (LimitSource.CGROUP2, machine.cgroups / "unified"),
            ]
            name = "memory.current"
        elif "memory" in controllers.split(","):
            roots = [(LimitSource.CGROUP1, machine.cgroups / "memory")]
            name = "memory.usage_in_bytes"
        else:
            continue
        for source, root in roots:
            group = root / path.lstrip("/")
            # In a namespace of its own a container sees its group at the root; otherwise every ancestor binds as well.
            for directory in (group, *group.parents):
                if (directory / name).exists():
                    yield MemoryGroup(source, directory)
                if directory == root:
                    break


def _read_machine(machine: Machine) -> Iterator[Bound]:
    table = _read_table(machine.proc / "meminfo")
    total = table.get("MemTotal", 0) + table.get("SwapTotal", 0)
    if not total:
        return
    available = table.get("MemAvailable", 0) + table.get("SwapFree", 0)
    yield Bound(LimitSource.PHYSICAL, LimitEffect.KILL, total, total - available, "the machine's memory")
    strict = _read_number(machine.proc / "sys/vm/overcommit_memory") == _STRICT_OVERCOMMIT
    if strict and "CommitLimit" in table:
        yield Bound(
            LimitSource.PHYSICAL,
            LimitEffect.NULL,
            table["CommitLimit"],
            table.get("Committed_AS", 0),
            "vm.overcommit_memory=2",
        )


def _read_table(path: Path) -> dict[str, int]:
    """A file of ``Key:   number kB`` lines, as bytes."""
    table = dict[str, int]()
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            words = value.split()
            if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
                table[key] = int(words[0]) * 1024
    return table


def _read_pairs(path: Path) -> dict[str, int]:
    pairs = dict[str, int]()
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition(" ")
            if value.strip().isdigit():
                pairs[key] = int(value)
    return pairs


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None

"""What the kernel says of a process: resident memory, faults, threads, kills. The only reader of ``/proc`` and cgroups."""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STAT_STATE, _STAT_PARENT, _STAT_MINOR_FAULTS, _STAT_MAJOR_FAULTS, _STAT_START = 0, 1, 7, 9, 19
_STAT_RESIDENT: Final = 21
"""Fields of /proc/PID/stat counted from the one after the name (proc(5))."""
_AT_RANDOM: Final = 25
"""The entry of the auxiliary vector that points to random bytes on the stack (getauxval(3))."""


@dataclass(frozen=True)
class KernelView:
    """One look at a process; ``None`` where the kernel would not say."""

    resident_bytes: int | None
    resident_bytes_peak: int | None
    minor_faults: int | None
    major_faults: int | None
    start_ticks: int
    parent_pid: int


def look_at(pid: int) -> KernelView | None:
    """Look at a process; None if it is gone, or dead and not yet reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    if fields[_STAT_STATE] in "ZX":
        return None
    resident, peak = None, None
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
            elif line.startswith("VmRSS:"):
                resident = int(line.split()[1]) * 1024
    return KernelView(
        resident_bytes=resident,
        resident_bytes_peak=peak,
        minor_faults=int(fields[_STAT_MINOR_FAULTS]),
        major_faults=int(fields[_STAT_MAJOR_FAULTS]),
        start_ticks=int(fields[_STAT_START]),
        parent_pid=int(fields[_STAT_PARENT]),
    )


def is_hidden(pid: int) -> bool:
    """Whether a process runs that ``/proc`` does not show: another user's, where it is mounted with ``hidepid``.

    Example:
        >>> is_hidden(os.getpid())
        False
    """
    if Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def pid_namespace(pid: int | None = None) -> int | None:
    """The namespace that a process's id holds in (this process's when left out); None where the kernel would not say."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid or 'self'}/ns/pid").stat().st_ino
    return None


def find_in_namespace(pid: int, namespace: int) -> int | None:
    """Find the process that has an id in a namespace below this one; None if there is none any more.

    Args:
        pid: Its id there.
        namespace: As `pid_namespace` answers.

    Returns:
        Its id here.
    """
    for candidate in own_processes():
        if inner_pid(candidate) == pid and pid_namespace(candidate) == namespace:
            return candidate
    return None


def inner_pid(pid: int) -> int | None:
    """The id that a process has in its own namespace; None if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return None


def image_mark(pid: int) -> int | None:
    """A number that changes with each program executed in a process; None where the kernel would not say."""
    with contextlib.suppress(OSError):
        for key, value in struct.iter_unpack("=QQ", Path(f"/proc/{pid}/auxv").read_bytes()):
            if key == _AT_RANDOM:
                return value
    return None


def read_life(pid: int) -> tuple[int | None, int | None]:
    """When a process started, in ticks, and its resident bytes: one file; None if it is gone or dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None, None
    if fields[_STAT_STATE] in "ZX":
        return None, None
    return int(fields[_STAT_START]), int(fields[_STAT_RESIDENT]) * _PAGE_BYTES


def thread_names(pid: int) -> dict[int, str]:
    """The present names of a process's threads, by thread id."""
    names = dict[int, str]()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                names[int(entry.name)] = Path(entry.path, "comm").read_text(errors="replace").rstrip("\n")
    return names


def open_memory_files(pid: int, name: str) -> list[Path]:
    """The descriptors of a process that are memory files of a name, as paths to open."""
    found = list[Path]()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if Path(entry.path).readlink().name.startswith(f"memfd:{name}"):
                    found.append(Path(entry.path))
    return found


def environment_variable(pid: int, name: str) -> str | None:
    """A variable of the environment that a process was started with; None if it has none, or is not ours to ask."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            key, _, value = entry.partition(b"=")
            if key == name.encode():
                return os.fsdecode(value)
    return None


def own_processes() -> list[int]:
    """The processes of this user."""
    own = os.getuid()
    pids = list[int]()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == own or own == 0:
                    pids.append(int(entry.name))
    return pids


def count_oom_kills() -> int | None:
    """How often the kernel killed for memory in this process's cgroup; None where nobody counts."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                files = (Path("/sys/fs/cgroup") / path.lstrip("/") / "memory.events",)
            elif "memory" in controllers.split(","):
                base = Path("/sys/fs/cgroup/memory")
                files = (base / path.lstrip("/") / "memory.oom_control", base / "memory.oom_control")
            else:
                continue
            for file in files:
                with contextlib.suppress(OSError):
                    for entry in file.read_text(errors="replace").splitlines():
                        key, _, value = entry.partition(" ")
                        if key == "oom_kill":
                            return int(value)
    return None

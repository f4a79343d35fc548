"""Run directories: where the regions of one launched program lie, in memory, readable by their user alone.

``BASE/run-PID-NUMBER/`` holds the launch block and, for each process image, ``PID.IMAGE.region`` and ``.control``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from heapsmith.errors import RunError
from heapsmith.wire.region import CONTROL_SUFFIX, LAUNCH, LAUNCH_FILE, LAUNCH_MAGIC, REGION_SUFFIX, VERSION

_PREFIX: Final = "run-"
_KEEP_S: Final = 24 * 3600.0
_ROOM_BYTES: Final = 1 << 20
_MEMORY_FILE_SYSTEMS: Final = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class RunDirectory:
    """Where the launcher and the programs under it meet.

    Args:
        path: The directory.
        in_memory: Whether regions may lie in it; if not, programs keep them in their descriptors.
        why_not: What is wrong with the places in memory, for people; empty where nothing is.
    """

    path: Path
    in_memory: bool
    why_not: str

    def write_launch_block(self, *, python_objects: bool, limit_bytes: int, warn_at_bytes: int) -> None:
        """Say what the launcher wants, before the program starts."""
        block = np.zeros(1, LAUNCH.dtype())
        block["magic"] = LAUNCH_MAGIC
        block["version"] = VERSION
        block["python_objects"] = python_objects
        block["limit_bytes"] = limit_bytes
        block["warn_at_bytes"] = warn_at_bytes
        block["memory_files"] = not self.in_memory
        (self.path / LAUNCH_FILE).write_bytes(block.tobytes())

    def remove(self) -> None:
        """Remove the directory and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class RegionFile:
    """A region in a run directory."""

    path: Path
    pid: int
    image: int

    @property
    def control_path(self) -> Path:
        """The control block beside it."""
        return self.path.with_name(self.path.name.removesuffix(REGION_SUFFIX) + CONTROL_SUFFIX)


def create_run_directory() -> RunDirectory:
    """Make a run directory in memory, or, where no memory file system can be written, anywhere.

    Raises:
        RunError: No directory can be made at all.
    """
    complaints: list[str] = []
    for base in _bases():
        try:
            _prepare(base)
            path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
        except OSError as error:
            complaints.append(f"{base}: {error.strerror or error}")
            continue
        if problem := _find_problem(path):
            complaints.append(f"{base}: {problem}")
            path.rmdir()
            continue
        _remove_forgotten(base)
        return RunDirectory(path, in_memory=True, why_not="; ".join(complaints))
    try:
        path = Path(tempfile.mkdtemp(prefix=f"heapsmith-{_PREFIX}{os.getpid()}-"))
    except OSError as error:
        complaints.append(str(error))
        raise RunError(
            "no run directory can be made", "; ".join(complaints), "free some room in /dev/shm"
        ) from error
    return RunDirectory(path, in_memory=False, why_not="; ".join(complaints))


def run_directories() -> Iterator[Path]:
    """Yield the run directories of this user, newest first; one that goes away meanwhile is left out."""
    found = list[tuple[float, Path]]()
    for base in _bases():
        for path in base.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path))
    yield from (path for _, path in sorted(found, reverse=True))


def region_files(directory: Path) -> list[RegionFile]:
    """List the regions of a run directory, by process and image."""
    files = list[RegionFile]()
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if not entry.name.endswith(REGION_SUFFIX):
                continue
            pid, _, image = entry.name.removesuffix(REGION_SUFFIX).partition(".")
            if pid.isdigit() and image.isdigit():
                files.append(RegionFile(Path(entry.path), int(pid), int(image)))
    return sorted(files, key=lambda file: (file.pid, file.image))


def _bases() -> Iterator[Path]:
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "heapsmith"
    yield Path("/dev/shm") / f"heapsmith-{os.getuid()}"


def _prepare(base: Path) -> None:
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(0, "it is not a directory of this user alone")


def _find_problem(path: Path) -> str:
    if _file_system_of(path) not in _MEMORY_FILE_SYSTEMS:
        return "it is not in memory"
    trial = path / "room"
    try:
        with trial.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        trial.unlink(missing_ok=True)
    return ""


def _file_system_of(path: Path) -> str:
    best, kind = "", ""
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return ""  # /proc is not there: nobody can tell
    for line in lines:
        fields = line.split(" ")
        mount = fields[1].rstrip("/")
        if (str(path) + "/").startswith(mount + "/") and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


def _remove_forgotten(base: Path) -> None:
    """Remove what launchers left that were killed, a day later, if nothing of it runs any more."""
    for path in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            old = time.time() - path.stat().st_mtime > _KEEP_S
            if old and not any(_is_alive(file.pid) for file in region_files(path)):
                shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()

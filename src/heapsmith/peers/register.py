"""The register of all allocators, and where each is on this machine."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.native import LIBRARIES
from heapsmith.peers import allocators
from heapsmith.peers.allocator import Allocator
from heapsmith.peers.identify import identify
from heapsmith.peers.knobs import Version

_ACTIVE: Final = ("VIRTUAL_ENV", "CONDA_PREFIX")
_OF_WHEELS: Final = "lib/python3*/*-packages/cmeel.prefix/lib"
"""Where wheels of the cmeel family (mimalloc 3 is one) have their C libraries, below an environment."""
_USUAL_FOLDERS: Final = (
    "/usr/local/lib64",
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/lib",
    "/opt/homebrew/lib",
    "/home/linuxbrew/.linuxbrew/lib",
    "/usr/lib64/mimalloc",
)


class Found(msgspec.Struct, frozen=True):
    """An allocator and what of it is on this machine.

    Args:
        allocator: What is known of it anywhere.
        here: Whether a program can be started on it on this machine.
        path: The library to preload; None where nothing needs preloading, or it is not here.
        version: Its version in its own words, or None when unknown.
        version_numbers: The same as numbers, or None.
        problem: Why it cannot be used although its file is here; else None.
    """

    allocator: Allocator
    here: bool
    path: Path | None = None
    version: str | None = None
    version_numbers: Version | None = None
    problem: str | None = None


@functools.cache
def register() -> Mapping[str, Allocator]:
    """Return every allocator by name: whatever the files of `peers.allocators` define.

    Example:
        >>> sorted(register())[:3]
        ['default', 'dlmalloc', 'glibc']
    """
    found: list[Allocator] = []
    for module in pkgutil.iter_modules(allocators.__path__):
        room = importlib.import_module(f"{allocators.__name__}.{module.name}")
        found += getattr(room, "ALLOCATORS", None) or (room.ALLOCATOR,)
    return {allocator.name: allocator for allocator in found}


@functools.cache
def find(name: str) -> Found:
    """Find an allocator of the register on this machine, and ask it for its version.

    Args:
        name: Its name in the register.

    Example:
        >>> find("glibc").here
        True
    """
    allocator = register()[name]
    if not allocator.libraries:
        identity = identify(None)
        here = identity.name == allocator.identified_by
        if allocator.python_only:
            return Found(allocator, here=here)
        return Found(
            allocator,
            here=here,
            version=identity.version if here else None,
            version_numbers=identity.version_numbers if here else None,
            problem=None if here else "the C library of this system is another one",
        )
    problem = None
    for path in _candidates(allocator.libraries):
        identity = identify(path)
        if identity.problem is None and identity.name == allocator.identified_by:
            return Found(
                allocator,
                here=True,
                path=path,
                version=identity.version,
                version_numbers=identity.version_numbers,
            )
        if identity.problem is not None and problem is None:
            problem = f"{path}: {identity.problem}"
    return Found(allocator, here=False, problem=problem)


def _candidates(patterns: tuple[str, ...]) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in library_folders():
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                real = path.resolve()
                if real not in seen and real.is_file():
                    seen.add(real)
                    yield path


@functools.cache
def library_folders() -> tuple[Path, ...]:
    """Return the folders where libraries are looked for, best first.

    That is where our own presets are, ``LD_LIBRARY_PATH``, where pip and conda put libraries (the active environment, that
    of this Python, the user's), the folders the loader knows, and the usual places of distributions.
    """
    folders = [LIBRARIES]
    folders += [Path(part) for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part]
    active = [Path(prefix) for name in _ACTIVE if (prefix := os.environ.get(name))]
    for prefix in (*active, Path(sys.prefix), Path.home() / ".local", Path("/usr/local")):
        folders.append(prefix / "lib")
        folders += sorted(prefix.glob(_OF_WHEELS))
    folders += _loader_folders()
    folders += sorted(Path("/usr/lib").glob("*-linux-*"))
    folders += [Path(folder) for folder in _USUAL_FOLDERS]
    return tuple(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))


def _loader_folders() -> list[Path]:
    for program in ("/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"):
        try:
            listing = subprocess.run(
                [program, "-p"], capture_output=True, text=True, check=False, timeout=10
            ).stdout
        except OSError:
            continue
        paths = re.findall(r"=> (/\S+)", listing)
        return list(dict.fromkeys(Path(path).parent for path in paths))
    return []

"""Which allocator a check or a benchmark runs on: a name, a library or a spec, resolved to what is preloaded."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heapsmith.errors import CheckError
from heapsmith.forge import forge, preset_library
from heapsmith.spec import load_spec, presets

SYSTEM: Final = "system"
_FIELD: Final = {
    "jemalloc": "libjemalloc.so.2",
    "mimalloc": "libmimalloc.so.2.0",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "tbbmalloc": "libtbbmalloc_proxy.so.2",
}
_LIBRARY_FOLDERS: Final = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)


@dataclass(frozen=True)
class Subject:
    """An allocator to judge.

    Args:
        name: As it was asked for.
        library: What is preloaded; None is the process's own malloc.
    """

    name: str
    library: Path | None

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that runs on it: nothing else is preloaded."""
        kept = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        return kept | ({"LD_PRELOAD": str(self.library)} if self.library else {})


def known_subjects() -> list[str]:
    """Return the names that can be asked for here: ``system``, presets, and the field where it is installed.

    Example:
        >>> known_subjects()[0]
        'system'
    """
    return [SYSTEM, *presets(), *(name for name in _FIELD if _installed(name) is not None)]


def select_subjects(names: Sequence[str] | None) -> tuple[list[Subject], list[str]]:
    """Resolve the allocators of a benchmark; one of the field that is not installed is said, not an error.

    Args:
        names: As they were asked for; None or empty for the preset ``default`` and the field.

    Returns:
        Allocators, the system's malloc left out; a line for each that is missing.

    Raises:
        CheckError: There is no such allocator.

    Example:
        >>> [subject.name for subject in select_subjects(["system", "default"])[0]]
        ['default']
    """
    found: list[Subject] = []
    missing: list[str] = []
    for name in dict.fromkeys(names or ["default", *_FIELD]):
        if name in _FIELD and _installed(name) is None:
            missing.append(f"{name} is left out: it is not installed (there is no {_FIELD[name]})")
        elif name not in (SYSTEM, "glibc"):
            found.append(resolve_subject(name))
    return found, missing


def versions(subjects: Sequence[Subject]) -> list[str]:
    """Return each allocator and the file it is, symbolic links followed; the C library first.

    Example:
        >>> versions([])[0].startswith("system (")
        True
    """
    libc = " ".join(platform.libc_ver())
    files = [f"{subject.name} ({subject.library.resolve().name})" for subject in subjects if subject.library]
    return [f"system ({libc})", *files]


def resolve_subject(name: str) -> Subject:
    """Find the allocator of a name: ``system``, a preset, a spec (``.toml``), the field's names, or a library's path.

    Raises:
        CheckError: There is no such allocator, or the file is no shared library.

    Example:
        >>> resolve_subject("system").library is None
        True
    """
    if name in (SYSTEM, "glibc"):
        return Subject(name, None)
    if name in _FIELD:
        library = _installed(name)
        if library is None:
            raise CheckError(
                f"{name} is not installed", f"there is no {_FIELD[name]}", "see `heapsmith allocators`"
            )
        return Subject(name, library)
    if name in presets() or name.endswith(".toml"):
        return Subject(name, preset_library(name) or forge(load_spec(name)).path)
    path = Path(name)
    if "/" not in name and ".so" not in name:
        raise CheckError(
            f"there is no allocator {name!r}", hint=f"use {', '.join(known_subjects())}, or a library's path"
        )
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise CheckError(f"cannot read {name}", error.strerror or str(error)) from error
    if len(head) < 20 or head[:4] != b"\x7fELF" or struct.unpack_from("<H", head, 16)[0] != 3:
        raise CheckError(f"{name} is no shared library", "it cannot be preloaded")
    return Subject(name, path.resolve())


def _installed(name: str) -> Path | None:
    return next(
        (path for folder in _LIBRARY_FOLDERS if (path := Path(folder) / _FIELD[name]).is_file()), None
    )

"""Which allocator a check, a benchmark or a run uses: a name with knobs, a library or a spec, ready to be preloaded."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heapsmith.forge import preset_library
from heapsmith.lab.field import read_field
from heapsmith.peers.allocator import Variables
from heapsmith.peers.candidate import AS_IT_IS
from heapsmith.peers.preload import preload_words
from heapsmith.peers.register import find
from heapsmith.spec import presets

SYSTEM: Final = AS_IT_IS
_FIELD: Final = ("jemalloc", "mimalloc", "tcmalloc", "tbb")


@dataclass(frozen=True)
class Subject:
    """An allocator to judge.

    Args:
        name: As it was asked for.
        library: What is preloaded; None is the process's own malloc.
        variables: What the environment gets besides: the knobs.
    """

    name: str
    library: Path | None
    variables: Variables = field(default_factory=dict[str, str])

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that runs on it: nothing else is preloaded."""
        kept = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"} | self.variables
        return kept | ({"LD_PRELOAD": ":".join(preload_words(self.library))} if self.library else {})


def known_subjects() -> list[str]:
    """Return the names that can be asked for here: ``system``, presets, and the field where it is installed.

    Example:
        >>> known_subjects()[0]
        'system'
    """
    lines = {"mimalloc": ("mimalloc3", "mimalloc2")}
    field_here = [name for name in _FIELD if any(find(line).here for line in lines.get(name, (name,)))]
    return [SYSTEM, *presets(), *field_here]


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
    here = known_subjects()
    for name in dict.fromkeys(names or ["default", *_FIELD]):
        if name in _FIELD and name not in here:
            missing.append(f"{name} is left out: it is not installed; see `heapsmith allocators`")
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


def resolve_subject(text: str) -> Subject:
    """Find an allocator: ``system``, a preset, a spec (``.toml``), a name of the register, or a library's path.

    All but ``system`` may be followed by knobs: ``default:limit=1GiB,purge_delay=0``.

    Raises:
        HeapsmithError: There is no such allocator here, it has no such knob, or the file is no library to preload.

    Example:
        >>> resolve_subject("system").library is None
        True
        >>> resolve_subject("default:cache=64KiB").variables
        {'HEAPSMITH_HEAP': 'cache=65536'}
    """
    name, _, knobs = text.strip().partition(":")
    ready = preset_library(name)
    if ready is not None and not knobs:
        return Subject(name, ready)
    candidate = read_field([text])[0]
    library = None if candidate.library is None else Path(candidate.library)
    return Subject(text, library, dict(candidate.variables))

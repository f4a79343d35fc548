"""Which allocator a check, a benchmark or a run uses: a name with knobs, a library or a spec, ready to be preloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heapsmith.errors import CheckError, HeapsmithError
from heapsmith.forge import forge, preset_library
from heapsmith.peers.allocator import Variables
from heapsmith.peers.candidate import read_candidate
from heapsmith.peers.register import find, register
from heapsmith.spec import load_spec, presets

SYSTEM: Final = "system"
_DEFAULT: Final = "default"
_OURS: Final = "heapsmith"
_ALSO_CALLED: Final = {"tbbmalloc": "tbb"}
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
        return kept | ({"LD_PRELOAD": str(self.library)} if self.library else {})


def known_subjects() -> list[str]:
    """Return the names that can be asked for here: ``system``, presets, and the field where it is installed.

    Example:
        >>> known_subjects()[0]
        'system'
    """
    lines = {"mimalloc": ("mimalloc3", "mimalloc2")}
    field_here = [name for name in _FIELD if any(find(line).here for line in lines.get(name, (name,)))]
    return [SYSTEM, *presets(), *field_here]


def forge_named(text: str) -> str:
    """Forge the heap that ``SPEC.toml`` or ``SPEC.toml:knob=value`` names, and name its library in its place.

    Any other text is answered as it is.

    Example:
        >>> forge_named("glibc:arena_max=1")
        'glibc:arena_max=1'
    """
    name, colon, knobs = text.strip().partition(":")
    if not name.endswith(".toml"):
        return text
    return f"{forge(load_spec(name)).path}{colon}{knobs}"


def resolve_subject(text: str) -> Subject:
    """Find an allocator: ``system``, a preset, a spec (``.toml``), a name of the register, or a library's path.

    All but ``system`` may be followed by knobs: ``default:limit=1GiB,purge_delay=0``.

    Raises:
        CheckError: There is no such allocator here, it has no such knob, or the file is no library to preload.

    Example:
        >>> resolve_subject("system").library is None
        True
        >>> resolve_subject("default:cache=64KiB").variables
        {'HEAPSMITH_HEAP': 'cache=65536'}
    """
    name, _, knobs = text.strip().partition(":")
    if name == SYSTEM and not knobs:
        return Subject(name, None)
    ready = preset_library(name)
    if ready is not None and not knobs:
        return Subject(name, ready)
    name = _ALSO_CALLED.get(name, name)
    if name == _DEFAULT:
        name = _OURS
    elif "/" not in name and ".so" not in name and not name.endswith(".toml") and not _is_known(name):
        raise CheckError(
            f"there is no allocator {name!r}", hint=f"use {', '.join(known_subjects())}, or a library's path"
        )
    try:
        candidate = read_candidate(forge_named(f"{name}:{knobs}" if knobs else name))
    except CheckError:
        raise
    except HeapsmithError as error:
        raise CheckError(error.what, error.why, error.hint) from error
    library = None if candidate.library is None else Path(candidate.library)
    return Subject(text, library, dict(candidate.variables))


def _is_known(name: str) -> bool:
    return name in register() or name in presets() or name == "mimalloc"

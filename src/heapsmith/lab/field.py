"""Who takes part: allocators of this machine with their knobs, and heaps of ours by preset, spec or library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from heapsmith.forge import forge, preset_library
from heapsmith.peers.candidate import Candidate, Elsewhere, read_candidates
from heapsmith.spec import load_spec, presets


def read_field(texts: Iterable[str]) -> list[Candidate]:
    """Read candidates as people write them.

    Args:
        texts: Each ``system`` (the program as it is started today), ``NAME:knob=value,...`` of an allocator of this
            machine, a preset, a ``SPEC.toml`` (forged now, where it is not in the cache), or a ``LIB.so``.

    Raises:
        HeapsmithError: All that is wrong with any of them.

    Example:
        >>> [candidate.label for candidate in read_field(["system", "default", "glibc:arena_max=2"])]
        ['system', 'default', 'glibc:arena_max=2']
    """
    return read_candidates(texts, Elsewhere(tuple(presets()), (".toml",), _library))


def _library(name: str) -> Path:
    return preset_library(name) or forge(load_spec(name)).path

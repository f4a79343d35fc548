"""Who takes part: allocators of this machine with their knobs, and heaps of ours by preset, spec or library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from heapsmith.forge import forge, preset_library
from heapsmith.peers.candidate import Candidate, Elsewhere, read_candidates
from heapsmith.spec import load_spec, presets

_ALSO_CALLED: Final = {"tbbmalloc": "tbb"}


def read_field(texts: Iterable[str]) -> list[Candidate]:
    """Read candidates as people write them.

    Args:
        texts: Each ``system`` (the program as it is started today), ``NAME:knob=value,...`` of an allocator of this
            machine or of a preset, a ``SPEC.toml`` (forged now, where it is not in the cache), or a ``LIB.so``.

    Raises:
        HeapsmithError: All that is wrong with any of them.

    Example:
        >>> [candidate.label for candidate in read_field(["system", "default", "glibc:arena_max=2"])]
        ['system', 'default', 'glibc:arena_max=2']
    """
    texts = [_ALSO_CALLED.get(text, text) for text in texts]
    unbuilt = tuple(name for name in presets() if preset_library(name) is None)
    return read_candidates(texts, Elsewhere(unbuilt, (".toml",), _library))


def _library(name: str) -> Path:
    return forge(load_spec(name)).path

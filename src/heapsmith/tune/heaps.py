"""Heaps that are made here as candidates: a spec is forged, a preset is at hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from heapsmith.forge import forge, preset_library
from heapsmith.peers.candidate import AS_IT_IS, Candidate, read_candidates
from heapsmith.spec import HeapSpec, load_spec, presets
from heapsmith.tune.candidates import here


def candidate_of(spec: HeapSpec, label: str | None = None) -> Candidate:
    """Forge a spec, and make a candidate of the library.

    Args:
        spec: The heap.
        label: What it is called in tables; its name when left out.

    Raises:
        ForgeError: It cannot be compiled, or fails its verification.
    """
    ready = preset_library(spec.name) if spec.name in presets() and load_spec(spec.name) == spec else None
    library = ready or forge(spec).path
    return Candidate(label=label or spec.name, allocator=str(library), library=str(library))


def read_heaps(names: Iterable[str]) -> list[Candidate]:
    """Read candidates as `read_candidates` does, and specs (``.toml``) and presets besides.

    Example:
        >>> [candidate.label for candidate in read_heaps(["small", "glibc"])]
        ['small', 'glibc']
    """
    names = list(names)
    made = {
        name: candidate_of(load_spec(name), label=name)
        for name in names
        if name.endswith(".toml") or (name in presets() and name != AS_IT_IS)
    }
    peers = iter(read_candidates([name for name in names if name not in made]))
    return [made[name] if name in made else next(peers) for name in names]


def choose_heaps(names: Sequence[str] | None) -> list[Candidate]:
    """Read what a person named; with nothing named, every allocator of this machine, the C library's first.

    Raises:
        HeapsmithError: All that is wrong with any of them.
    """
    if not names:
        names = [found.allocator.name for found in here() if not found.allocator.python_only]
        names.sort(key=lambda name: name != "glibc")
    return read_heaps(names)

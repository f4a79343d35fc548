"""Forged heaps as candidates, and who takes part in a replay."""

from __future__ import annotations

from collections.abc import Sequence

from heapsmith.forge import forge
from heapsmith.lab.field import read_field
from heapsmith.peers.candidate import Candidate
from heapsmith.spec import HeapSpec
from heapsmith.tune.candidates import here


def candidate_of(spec: HeapSpec, label: str) -> Candidate:
    """Forge a spec, and make a candidate of the library.

    Args:
        spec: The heap.
        label: What it is called in tables.

    Raises:
        ForgeError: It cannot be compiled, or fails its verification.
    """
    library = str(forge(spec).path)
    return Candidate(label=label, allocator=library, library=library)


def choose_players(names: Sequence[str] | None) -> list[Candidate]:
    """Read who plays, the baseline first; with nobody named, every allocator of this machine, the C library's first.

    Raises:
        HeapsmithError: All that is wrong with any of them.

    Example:
        >>> [candidate.label for candidate in choose_players(["small", "glibc"])]
        ['small', 'glibc']
    """
    if not names:
        names = [found.allocator.name for found in here() if not found.allocator.python_only]
        names.sort(key=lambda name: name != "glibc")
    return read_field(names)

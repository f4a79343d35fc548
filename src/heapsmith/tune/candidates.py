"""Which candidates take part: what people name, or everything worth trying on this program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from heapsmith.lab.rehearsal import Rehearsal
from heapsmith.peers import python
from heapsmith.peers.candidate import AS_IT_IS, Candidate, as_it_is, make_candidate, read_candidates
from heapsmith.peers.knobs import Value
from heapsmith.peers.register import Found, find, register


def choose_candidates(names: Sequence[str] | None) -> list[Candidate]:
    """Read the candidates that a person named, baseline first.

    Args:
        names: What was named; the first is the baseline. One alone is compared with ``default``, none at all means
            every allocator of this machine against ``default``.

    Raises:
        HeapsmithError: All that is wrong with any of them.

    Example:
        >>> [candidate.label for candidate in choose_candidates(["glibc:arena_max=1"])]
        ['default', 'glibc:arena_max=1']
    """
    if not names:
        names = [AS_IT_IS, *(found.allocator.name for found in here() if found.path is not None)]
    elif len(names) == 1:
        names = [AS_IT_IS, *names]
    return read_candidates(names)


def here() -> list[Found]:
    """Return the allocators of the register that are on this machine."""
    return [found for name in register() if (found := find(name)).here]

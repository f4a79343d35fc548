"""dlmalloc: one lock, one heap; built as a library of its own, it tells its footprint and keeps to a limit."""

from __future__ import annotations

from typing import Final

from heapsmith.peers.allocator import Allocator, Install, Values, Variables, tells
from heapsmith.peers.knobs import Version


def _spell(values: Values, version: Version | None) -> Variables:
    return {}


ALLOCATOR: Final = Allocator(
    name="dlmalloc",
    title="Doug Lea's malloc",
    identified_by="dlmalloc",
    libraries=("libdlmalloc.so", "libdlmalloc.so.*"),
    spell=_spell,
    knobs=(),
    fields=tells(
        current_allocated_heap_size="approximate",
        max_total_heap_size="exact",
        committed_bytes="exact",
        free_cached_bytes="exact",
    ),
    meanings={
        "current_allocated_heap_size": "chunk bytes, with the words before each block",
        "max_total_heap_size": "where the program sets a footprint limit",
    },
    install=(Install("source", "as a shared library, with USE_LOCKS=1, else it is for one thread"),),
    note="no distribution package",
)

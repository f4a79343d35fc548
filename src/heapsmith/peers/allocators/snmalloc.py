"""snmalloc: message passing between threads; its preload library has no knobs and tells nothing."""

from __future__ import annotations

from typing import Final

from heapsmith.peers.allocator import Allocator, Install, Values, Variables, tells
from heapsmith.peers.knobs import Version


def _spell(values: Values, version: Version | None) -> Variables:
    return {}


ALLOCATOR: Final = Allocator(
    name="snmalloc",
    title="snmalloc",
    identified_by="snmalloc",
    libraries=("libsnmallocshim.so", "libsnmallocshim-*.so", "libsnmalloc.so"),
    spell=_spell,
    knobs=(),
    fields=tells(),
    install=(Install("source", "its target snmallocshim"),),
    note="no distribution package",
)

"""The malloc of musl: part of its C library, without knobs and without statistics."""

from __future__ import annotations

from typing import Final

from heapsmith.peers.allocator import Allocator, Values, Variables, tells
from heapsmith.peers.knobs import Version


def _spell(values: Values, version: Version | None) -> Variables:
    return {}


ALLOCATOR: Final = Allocator(
    name="musl",
    title="musl malloc",
    identified_by="musl",
    spell=_spell,
    knobs=(),
    fields=tells(),
    note="comes with a system built on musl, and cannot be taken to another",
)

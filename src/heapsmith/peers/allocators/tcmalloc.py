"""tcmalloc as gperftools ships it: one page heap, thread caches; knobs in ``TCMALLOC_...`` variables."""

from __future__ import annotations

from typing import Final

from heapsmith.peers.allocator import Allocator, Install, Start, Values, Variables, tells
from heapsmith.peers.knobs import Knob, Version
from heapsmith.units import GiB, KiB, MiB

_VARIABLES: Final = {
    "release_rate": "TCMALLOC_RELEASE_RATE",
    "max_total_thread_cache": "TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES",
    "aggressive_decommit": "TCMALLOC_AGGRESSIVE_DECOMMIT",
    "heap_limit_mib": "TCMALLOC_HEAP_LIMIT_MB",
}


def _spell(values: Values, version: Version | None) -> Variables:
    return {
        _VARIABLES[name]: ("1" if value else "0") if isinstance(value, bool) else f"{value}"
        for name, value in values.items()
    }


ALLOCATOR: Final = Allocator(
    name="tcmalloc",
    title="gperftools tcmalloc",
    identified_by="tcmalloc",
    libraries=("libtcmalloc_minimal.so.4", "libtcmalloc_minimal.so", "libtcmalloc.so.4", "libtcmalloc.so"),
    variables=tuple(_VARIABLES.values()),
    spell=_spell,
    knobs=(
        Knob(
            name="release_rate",
            kind="ratio",
            help="how eagerly free pages go back, from 0 (never) to 10",
            default=1.0,
            lowest=0,
            highest=1000,
            tries=(0.0, 1.0, 10.0, 100.0),
        ),
        Knob(
            name="max_total_thread_cache",
            kind="bytes",
            help="bytes that all thread caches together may hold",
            default=32 * MiB,
            lowest=512 * KiB,
            highest=1 * GiB,
            tries=(512 * KiB, 4 * MiB, 32 * MiB, 256 * MiB),
        ),
        Knob(
            name="aggressive_decommit",
            kind="flag",
            help="give free pages back at once",
            default=False,
            since=(2, 2),
            tries=(False, True),
        ),
        Knob(
            name="heap_limit_mib",
            kind="count",
            help="refuse to grow beyond so many MiB; 0: no limit",
            default=0,
            lowest=0,
            highest=2**31 - 1,
            since=(2, 1),
        ),
    ),
    starts=(
        Start((("aggressive_decommit", True),), "memory"),
        Start(
            (("aggressive_decommit", True), ("max_total_thread_cache", 512 * KiB)), "memory", python="malloc"
        ),
        Start((("release_rate", 10.0),), "memory"),
        Start((("release_rate", 0.0),), "time"),
    ),
    fields=tells(
        current_allocated_heap_size="exact",
        max_total_heap_size="exact",
        committed_bytes="exact",
        reserved_bytes="exact",
        free_cached_bytes="approximate",
    ),
    meanings={
        "max_total_heap_size": "where heap_limit_mib sets one",
        "free_cached_bytes": "committed less allocated, asked one after the other",
    },
    install=(
        Install("apt-get", "apt-get install libtcmalloc-minimal4"),
        Install("dnf", "dnf install gperftools-libs"),
    ),
)

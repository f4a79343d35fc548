"""jemalloc: decay-based purging, many arenas; knobs in ``MALLOC_CONF`` (jemalloc(3), TUNING)."""

from __future__ import annotations

from typing import Final

from heapsmith.peers.allocator import Allocator, Install, Start, Values, Variables, tells
from heapsmith.peers.knobs import Knob, Version
from heapsmith.units import KiB, MiB

_LONGEST_MS: Final = (2**63 - 1) // 1_000_000


def _spell(values: Values, version: Version | None) -> Variables:
    if not values:
        return {}
    return {"MALLOC_CONF": ",".join(f"{name}:{_KNOBS[name].spell(value)}" for name, value in values.items())}


_ALL: Final = (
    Knob(
        name="dirty_decay_ms",
        kind="ms",
        help="free pages stay for about so long before they are purged; -1: for ever",
        default=10_000,
        lowest=-1,
        highest=_LONGEST_MS,
        since=(5, 0),
        tries=(0, 100, 1_000, 10_000, -1),
    ),
    Knob(
        name="muzzy_decay_ms",
        kind="ms",
        help="pages purged lazily stay for so long before they are purged for good; -1: for ever",
        default=0,
        lowest=-1,
        highest=_LONGEST_MS,
        since=(5, 0),
        tries=(0, 1_000, 10_000),
    ),
    Knob(
        name="narenas",
        kind="count",
        help="arenas shared by the threads: fewer keep less, and threads wait more",
        default_note="4 per processor",
        lowest=1,
        highest=4094,
        tries=(1, 2, 4),
    ),
    Knob(
        name="tcache_max",
        kind="bytes",
        help="largest block a thread keeps for itself; 0: almost none",
        default=32 * KiB,
        lowest=0,
        highest=8 * MiB,
        since=(5, 3),
        tries=(0, 4 * KiB, 32 * KiB, 1 * MiB, 8 * MiB),
    ),
    Knob(
        name="background_thread",
        kind="flag",
        help="threads of its own purge, also while the program sleeps",
        default=False,
        since=(5, 0),
        tries=(False, True),
    ),
    Knob(
        name="thp",
        kind="choice",
        help="transparent huge pages for the heap",
        default="default",
        choices=("always", "never", "default"),
        since=(5, 1),
        tries=("default", "always"),
    ),
    Knob(
        name="metadata_thp",
        kind="choice",
        help="transparent huge pages for the metadata",
        default="disabled",
        choices=("disabled", "auto", "always"),
        since=(5, 1),
    ),
    Knob(
        name="percpu_arena",
        kind="choice",
        help="arenas by processor, not by thread",
        default="disabled",
        choices=("disabled", "percpu", "phycpu"),
        since=(5, 0),
    ),
    Knob(
        name="oversize_threshold",
        kind="bytes",
        help="blocks from here on live in an arena of their own, purged at once; 0: none do",
        default=8 * MiB,
        lowest=0,
        since=(5, 2),
        tries=(0, 8 * MiB),
    ),
)
_KNOBS: Final = {knob.name: knob for knob in _ALL}

ALLOCATOR: Final = Allocator(
    name="jemalloc",
    title="jemalloc",
    identified_by="jemalloc",
    libraries=("libjemalloc.so.2", "libjemalloc.so"),
    variables=("MALLOC_CONF",),
    spell=_spell,
    knobs=_ALL,
    starts=(
        Start((("dirty_decay_ms", 0),), "memory", python="malloc"),
        Start((("dirty_decay_ms", 0), ("narenas", 1)), "memory"),
        Start((("dirty_decay_ms", 0), ("narenas", 1)), "memory", python="malloc"),
        Start((("dirty_decay_ms", 0),), "memory"),
        Start((("dirty_decay_ms", 1_000), ("background_thread", True)), "memory"),
        Start((("dirty_decay_ms", -1), ("oversize_threshold", 0)), "time"),
    ),
    fields=tells(
        current_allocated_heap_size="approximate",
        committed_bytes="approximate",
        reserved_bytes="exact",
        metadata_bytes="exact",
        free_cached_bytes="approximate",
    ),
    meanings={
        "current_allocated_heap_size": "usable bytes; blocks in thread caches as in use",
        "committed_bytes": "mapped extents, some of which are purged",
        "reserved_bytes": "mapped and retained",
        "free_cached_bytes": "inside of active pages alone",
    },
    install=(
        Install("apt-get", "apt-get install libjemalloc2"),
        Install("dnf", "dnf install jemalloc"),
    ),
)

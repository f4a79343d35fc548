"""heapsmith's own presets: one allocator each, with the knobs that need no compiler (``native/abi/knobs.cc``)."""

from __future__ import annotations

from typing import Final

import msgspec

from heapsmith.peers.allocator import Allocator, Start, Values, Variables, tells
from heapsmith.peers.knobs import Knob, Version
from heapsmith.units import KiB, MiB

VARIABLE: Final = "HEAPSMITH_HEAP"
NAME: Final = "heapsmith"
_FOR_EVER: Final = -1


def _spell(values: Values, version: Version | None) -> Variables:
    if not values:
        return {}
    return {VARIABLE: ",".join(f"{name}={_written(name, value)}" for name, value in values.items())}


def _written(name: str, value: object) -> str:
    if name == "purge_delay":
        return "never" if value == _FOR_EVER else f"{value}ms"
    return str(value)


KNOBS: Final = (
    Knob(
        name="limit",
        kind="bytes",
        help="committed bytes at most: beyond it allocations fail",
        default_note="none, or as forged",
        lowest=MiB,
    ),
    Knob(
        name="purge_delay",
        kind="ms",
        help="free pages stay for about so long before they go back; -1: until malloc_trim",
        default_note="as forged: 500 ms in `default`",
        lowest=_FOR_EVER,
        highest=1 << 40,
        tries=(0, 100, 500, 5_000, _FOR_EVER),
    ),
    Knob(
        name="cache",
        kind="bytes",
        help="what one thread may hold for itself",
        default_note="as forged: 512KiB in `default`",
        lowest=KiB,
        highest=1 << 40,
        tries=(16 * KiB, 64 * KiB, 512 * KiB, 2 * MiB),
    ),
    Knob(
        name="huge_pages",
        kind="choice",
        help="transparent huge pages, or those of vm.nr_hugepages",
        default_note="as forged",
        choices=("off", "on", "reserved"),
        tries=("off", "on"),
    ),
    Knob(
        name="purge",
        kind="choice",
        help="lazy: the kernel takes free pages when it wants them",
        default_note="as forged",
        choices=("now", "lazy"),
        tries=("now", "lazy"),
    ),
)

_FIELDS: Final = tells(
    current_allocated_heap_size="approximate",
    committed_bytes="exact",
    reserved_bytes="exact",
    metadata_bytes="exact",
    free_cached_bytes="exact",
)
_MEANINGS: Final = {
    "current_allocated_heap_size": "usable bytes; blocks in the caches of other threads as in use",
    "free_cached_bytes": "in threads' caches, in waiting batches, and as free pages that were not given back",
}


def _preset(preset: str, title: str, starts: tuple[Start, ...], *, worth_trying: bool = True) -> Allocator:
    return Allocator(
        name=preset,
        title=title,
        identified_by=f"{NAME} {preset}",
        libraries=(f"libheapsmith_{preset}.so",),
        variables=(VARIABLE,),
        spell=_spell,
        knobs=KNOBS,
        starts=starts,
        fields=_FIELDS,
        meanings=_MEANINGS,
        note="comes with heapsmith",
        worth_trying=worth_trying,
    )


ALLOCATORS: Final = (
    _preset(
        "default",
        "heapsmith, for everything",
        (
            Start((("cache", 64 * KiB), ("purge_delay", 0)), "memory"),
            Start((), "memory", python="malloc"),
            Start((("huge_pages", "on"), ("purge_delay", 5_000)), "time"),
        ),
    ),
    _preset("small", "heapsmith, least memory", (Start((), "memory", python="malloc"),)),
    _preset("low-latency", "heapsmith, resident before it is asked for", ()),
    _preset("pow2", "heapsmith, twelve powers of two", (), worth_trying=False),
    _preset("hardened", "heapsmith, looking for mistakes", (), worth_trying=False),
)


def forged(name: str) -> Allocator:
    """Describe a heap that somebody has forged: it has the knobs and tells what the presets tell.

    Args:
        name: How it is called here: its library's path.

    Example:
        >>> [knob.name for knob in forged("libweb.so").knobs][:2]
        ['limit', 'purge_delay']
    """
    return msgspec.structs.replace(ALLOCATORS[0], name=name, title=name, libraries=(), starts=(), note="")

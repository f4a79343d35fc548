"""The scalable allocator of oneAPI Threading Building Blocks, through its malloc proxy."""

from __future__ import annotations

from typing import Final

from heapsmith.peers.allocator import Allocator, Install, Start, Values, Variables, tells
from heapsmith.peers.knobs import Knob, Version
from heapsmith.units import MiB

_VARIABLES: Final = {
    "use_huge_pages": "TBB_MALLOC_USE_HUGE_PAGES",
    "huge_size_threshold": "TBB_MALLOC_SET_HUGE_SIZE_THRESHOLD",
}


def _spell(values: Values, version: Version | None) -> Variables:
    return {_VARIABLES[name]: f"{int(value)}" for name, value in values.items()}


ALLOCATOR: Final = Allocator(
    name="tbb",
    title="oneTBB scalable allocator",
    identified_by="tbb",
    libraries=("libtbbmalloc_proxy.so.2", "libtbbmalloc_proxy.so"),
    variables=tuple(_VARIABLES.values()),
    spell=_spell,
    knobs=(
        Knob(
            name="use_huge_pages",
            kind="flag",
            help="use 2 MiB pages where the system gives them",
            default=False,
            tries=(False, True),
        ),
        Knob(
            name="huge_size_threshold",
            kind="bytes",
            help="blocks from here on are not kept for reuse but given back",
            default_note="64 MiB or more, by the machine",
            lowest=0,
            since=(2021,),
            tries=(4 * MiB, 64 * MiB),
        ),
    ),
    starts=(Start((("use_huge_pages", True),), "time"),),
    fields=tells(),
    install=(
        Install("apt-get", "apt-get install libtbbmalloc2"),
        Install("pip", "pip install tbb"),
    ),
)

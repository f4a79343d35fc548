"""mimalloc 2: the stable line."""

from __future__ import annotations

from typing import Final

from heapsmith.peers import mimalloc
from heapsmith.peers.allocator import Allocator, Install, Start, tells

ALLOCATOR: Final = Allocator(
    name="mimalloc2",
    title="mimalloc 2",
    identified_by="mimalloc2",
    libraries=("libmimalloc.so.2", "libmimalloc.so.2.*", "libmimalloc.so"),
    variables=mimalloc.VARIABLES,
    spell=mimalloc.spell,
    knobs=mimalloc.knobs(purge_delay_ms=None, note="10 (25 before 2.1.1)"),
    starts=(
        Start((("purge_delay", 0),), "memory", python="malloc"),
        Start((("purge_delay", 0),), "memory"),
        Start((("purge_delay", -1),), "time"),
        Start((("allow_large_os_pages", True),), "time"),
    ),
    fields=tells(committed_bytes="approximate"),
    meanings={"committed_bytes": "taken from the system; from 2.1 on all of the first arena, used or not"},
    install=(Install("apt-get", "apt-get install libmimalloc2.0", "Debian 12, Ubuntu 22.04 and 24.04"),),
)

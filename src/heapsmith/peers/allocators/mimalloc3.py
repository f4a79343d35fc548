"""mimalloc 3: heaps shared between threads, purging after one second."""

from __future__ import annotations

from typing import Final

from heapsmith.peers import mimalloc
from heapsmith.peers.allocator import Allocator, Install, Start, tells

ALLOCATOR: Final = Allocator(
    name="mimalloc3",
    title="mimalloc 3",
    identified_by="mimalloc3",
    libraries=("libmimalloc.so.3", "libmimalloc.so.3.*", "libmimalloc.so"),
    variables=mimalloc.VARIABLES,
    spell=mimalloc.spell,
    knobs=mimalloc.knobs(purge_delay_ms=1_000),
    starts=(
        Start((("purge_delay", 0),), "memory", python="malloc"),
        Start((("purge_delay", 0),), "memory"),
        Start((("purge_delay", -1),), "time"),
        Start((("allow_large_os_pages", True),), "time"),
    ),
    fields=tells(committed_bytes="approximate"),
    meanings={"committed_bytes": "taken from the system, and never less after a purge"},
    install=(
        Install("pip", "pip install cmeel-mimalloc"),
        Install("apt-get", "apt-get install libmimalloc3", "Debian 13, Ubuntu 25.04 or later"),
    ),
)

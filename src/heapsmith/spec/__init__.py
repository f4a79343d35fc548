"""A heap described: one value per slot, valid once it exists, in Python and in TOML alike.

    web = HeapSpec(
        name="web",
        sizes=Geometric(smallest_bytes=16, largest_bytes=32 * KiB, steps_per_doubling=4),
        cache=BoundedCache(limit_bytes=64 * KiB),
        remote=RemoteStack(),
        pages=OsPages() | Limit(limit_bytes=512 * MiB) | PurgeAfter(delay_ms=10),
    )
"""

from heapsmith.spec.document import load_spec, presets, read_document, write_document
from heapsmith.spec.heap import HeapSpec, Problem
from heapsmith.spec.policies import (
    BoundedCache,
    Explicit,
    FixedCache,
    FutexLock,
    Geometric,
    HugePages,
    Limit,
    NoCache,
    NoLock,
    OsPages,
    PagePipe,
    PowersOfTwo,
    Prefault,
    PurgeAfter,
    PurgeAtOnce,
    PurgeOnDemand,
    RemoteBatch,
    RemoteStack,
    SpinLock,
)

__all__ = [
    "BoundedCache",
    "Explicit",
    "FixedCache",
    "FutexLock",
    "Geometric",
    "HeapSpec",
    "HugePages",
    "Limit",
    "NoCache",
    "NoLock",
    "OsPages",
    "PagePipe",
    "PowersOfTwo",
    "Prefault",
    "Problem",
    "PurgeAfter",
    "PurgeAtOnce",
    "PurgeOnDemand",
    "RemoteBatch",
    "RemoteStack",
    "SpinLock",
    "load_spec",
    "presets",
    "read_document",
    "write_document",
]

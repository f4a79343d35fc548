"""heapsmith: your program's heap, made to measure.

Example:
    >>> import heapsmith
    >>> with heapsmith.watch(["true"]) as run:
    ...     result = run.wait()
    >>> result.exit.code
    0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from heapsmith.units import GiB, KiB, MiB, TiB

if TYPE_CHECKING:
    from heapsmith.here import Arena, LocalHeap, limit, mallinfo, numpy_heap, peak, watch_threshold
    from heapsmith.run.here import record
    from heapsmith.run.launch import watch
    from heapsmith.run.watch import processes

__version__ = "0.1.0"

__all__ = [
    "Arena",
    "GiB",
    "KiB",
    "LocalHeap",
    "MiB",
    "TiB",
    "limit",
    "mallinfo",
    "numpy_heap",
    "peak",
    "processes",
    "record",
    "watch",
    "watch_threshold",
]

_HOMES: Final = {
    "Arena": "heapsmith.here",
    "LocalHeap": "heapsmith.here",
    "limit": "heapsmith.here",
    "load_ipython_extension": "heapsmith.notebook",
    "mallinfo": "heapsmith.here",
    "numpy_heap": "heapsmith.here",
    "peak": "heapsmith.here",
    "processes": "heapsmith.run.watch",
    "record": "heapsmith.run.here",
    "watch": "heapsmith.run.launch",
    "watch_threshold": "heapsmith.here",
}
"""Where a name is that is loaded only when it is used: a command line that asks for little should start quickly."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'heapsmith' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

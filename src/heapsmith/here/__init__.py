"""The heap of this very process: what it holds, its limit, peaks of pieces of a program, thresholds; heaps of its own.

Under ``heapsmith run`` every field is counted; without it, what the allocator itself and the kernel tell is answered and
the rest is ``None``.

Example:
    >>> from heapsmith import here
    >>> here.mallinfo().resident_bytes > 0
    True
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from heapsmith.here.arena import Arena, ArenaStatistics, Mark
    from heapsmith.here.bound import Limit, limit
    from heapsmith.here.local_calls import ClosedError, LocalStatistics
    from heapsmith.here.local_heap import LocalHeap
    from heapsmith.here.numpy_data import NumpyHeap, numpy_heap
    from heapsmith.here.report import Mallinfo, Part, mallinfo
    from heapsmith.here.scope import Peak, peak
    from heapsmith.here.threshold import Crossing, Threshold, watch_threshold

__all__ = [
    "Arena",
    "ArenaStatistics",
    "ClosedError",
    "Crossing",
    "Limit",
    "LocalHeap",
    "LocalStatistics",
    "Mallinfo",
    "Mark",
    "NumpyHeap",
    "Part",
    "Peak",
    "Threshold",
    "limit",
    "mallinfo",
    "numpy_heap",
    "peak",
    "watch_threshold",
]

_HOMES: Final = {
    "Arena": "arena",
    "ArenaStatistics": "arena",
    "ClosedError": "local_calls",
    "Crossing": "threshold",
    "Limit": "bound",
    "LocalHeap": "local_heap",
    "LocalStatistics": "local_calls",
    "Mallinfo": "report",
    "Mark": "arena",
    "NumpyHeap": "numpy_data",
    "Part": "report",
    "Peak": "scope",
    "Threshold": "threshold",
    "limit": "bound",
    "mallinfo": "report",
    "numpy_heap": "numpy_data",
    "peak": "scope",
    "watch_threshold": "threshold",
}
"""Where a name is that is loaded only when it is used: NumPy alone would add tens of MiB to what is asked about."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'heapsmith.here' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"heapsmith.here.{_HOMES[name]}"), name)

"""The heap of this very process: what it holds, its limit, peaks of pieces of a program, thresholds; heaps of its own.

Under ``heapsmith run`` every field is counted; without it, what the allocator itself and the kernel tell is answered and
the rest is ``None``.

Example:
    >>> from heapsmith import here
    >>> here.mallinfo().resident_bytes > 0
    True
"""

from heapsmith.here.arena import Arena, ArenaStatistics, Mark
from heapsmith.here.bound import Limit, limit
from heapsmith.here.local_calls import ClosedError, LocalStatistics
from heapsmith.here.local_heap import LocalHeap
from heapsmith.here.numpy_heap import NumpyHeap, numpy_heap
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

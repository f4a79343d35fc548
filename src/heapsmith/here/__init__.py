"""The heap of this very process: what it holds, its limit, peaks of pieces of a program, thresholds.

Under ``heapsmith run`` every field is counted; without it, what the allocator itself and the kernel tell is answered and
the rest is ``None``.

Example:
    >>> from heapsmith import here
    >>> here.mallinfo().resident_bytes > 0
    True
"""

from heapsmith.here.bound import Limit, limit
from heapsmith.here.report import Mallinfo, Part, mallinfo
from heapsmith.here.scope import Peak, peak
from heapsmith.here.threshold import Crossing, Threshold, watch_threshold

__all__ = [
    "Crossing",
    "Limit",
    "Mallinfo",
    "Part",
    "Peak",
    "Threshold",
    "limit",
    "mallinfo",
    "peak",
    "watch_threshold",
]

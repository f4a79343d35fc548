"""The teaching allocator: its executable model, a script language, the driver of libraries, checks, studies.

Example:
    >>> from heapsmith.osmem import HEAP_START, Model
    >>> heap = Model()
    >>> p = heap.malloc(1000).pointer
    >>> q = heap.malloc(500).pointer
    >>> step = heap.realloc(p, 3000)  # q is in the way: p has to move
    >>> [event.kind for event in step.events]
    ['blocked', 'searched', 'taken', 'split', 'copied', 'freed']
"""

from heapsmith.osmem.blocks import HEAP_START, Block, Event, Layout, Step, SystemCall
from heapsmith.osmem.model import BadPointerError, Model
from heapsmith.osmem.script import Script, ScriptError, parse_script, play
from heapsmith.osmem.trace_text import format_trace

__all__ = [
    "HEAP_START",
    "BadPointerError",
    "Block",
    "Event",
    "Layout",
    "Model",
    "Script",
    "ScriptError",
    "Step",
    "SystemCall",
    "format_trace",
    "parse_script",
    "play",
]

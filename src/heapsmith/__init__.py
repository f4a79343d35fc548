"""heapsmith: your program's heap, made to measure."""

__version__ = "0.1.0"

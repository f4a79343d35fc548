"""Names of recorded frames, found afterwards: by build-id, from the program's files or from debug files anywhere."""

from heapsmith.symbols.names import FrameNames

__all__ = ["FrameNames"]

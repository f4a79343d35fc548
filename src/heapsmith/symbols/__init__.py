"""Names of recorded frames: by build-id, from the program's files or from debug files anywhere."""

from heapsmith.symbols.modules import name_frames
from heapsmith.symbols.names import FrameNames

__all__ = ["FrameNames", "name_frames"]

"""Keeps objects of known sizes, says how many blocks the interpreter itself counts, and leaves at once."""

import os
import sys

if __name__ == "__main__":
    kept = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    # Not what is just too large for the pools: malloc's smallest blocks for it are of the size of theirs.
    sizes = [size for size in range(0, 2000, 7) if not 512 < size + 35 <= 520]
    keep = [None] * (kept * len(sizes))
    at = 0
    for _ in range(kept):
        for size in sizes:
            keep[at] = bytes(size + 2)
            at += 1
    for turn in range(20000):
        bytes(turn % 700 + 2)
    line = b"%d" % sys.getallocatedblocks()
    os.write(1, line)
    os._exit(0)

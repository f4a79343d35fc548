"""Run by gdb in its own Python: loads the library into the stopped process, at a moment when nothing is half-done there."""

import os
import time
from typing import Any

ATTEMPTS = 50
# Whoever is in one of these may hold a lock that loading a library needs.
BUSY = (
    "malloc",
    "free",
    "calloc",
    "realloc",
    "memalign",
    "int_",
    "dl",
    "arena",
    "mmap",
    "munmap",
    "brk",
    "fork",
)


def is_quiet(gdb: Any) -> bool:
    """Whether no thread is inside the allocator or the dynamic linker."""
    for thread in gdb.selected_inferior().threads():
        thread.switch()
        frame, depth = gdb.newest_frame(), 0
        while frame is not None and depth < 12:
            if (frame.name() or "").lstrip("_").startswith(BUSY):
                return False
            frame, depth = frame.older(), depth + 1
    return True


def begin(gdb: Any) -> str:
    """Find a quiet moment, and begin; answers what is to be said of it."""
    gdb.execute("set unwindonsignal on", to_string=True)
    for attempt in range(ATTEMPTS):
        if is_quiet(gdb):
            break
        # Let it run on for a moment.
        gdb.execute("detach", to_string=True)
        time.sleep(0.002 * (attempt + 1))
        gdb.execute("attach " + os.environ["HEAPSMITH_PID"], to_string=True)
    else:
        return "no moment was found in which it is not inside its allocator"
    min(gdb.selected_inferior().threads(), key=lambda thread: thread.num).switch()
    library = os.environ["HEAPSMITH_ATTACH_LIBRARY"]
    if int(gdb.parse_and_eval(f'((void *(*)(const char *, int))dlopen)("{library}", 2)')) == 0:
        return "the library cannot be loaded into it (another C library, or another system's files)"
    directory = os.environ["HEAPSMITH_ATTACH_DIRECTORY"]
    answer = int(gdb.parse_and_eval(f'((int (*)(const char *))hs_record_start)("{directory}")'))
    return ("recording", "it is being recorded already", "it may not share memory with the recorder")[answer]


if __name__ == "__main__":
    import gdb  # type: ignore[import-not-found]

    gdb.write(f"heapsmith: {begin(gdb)}\n")

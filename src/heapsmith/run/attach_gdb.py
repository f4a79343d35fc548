"""Run by gdb in its own Python: loads the library into the stopped process, at a moment when nothing is half-done there."""

import os
import time

import gdb  # type: ignore[import-not-found]

ATTEMPTS = 50
# Whoever is in one of these may hold a lock that loading a library needs.
BUSY = (
    "malloc",
    "free",
    "calloc",
    "realloc",
    "memalign",
    "_int_",
    "dl",
    "_dl_",
    "arena",
    "mmap",
    "munmap",
    "brk",
    "fork",
)


def say(line: str) -> None:
    """Tell whoever started gdb."""
    gdb.write(line + "\n")


def is_quiet() -> bool:
    """Whether no thread is inside the allocator or the dynamic linker."""
    for thread in gdb.selected_inferior().threads():
        thread.switch()
        frame, depth = gdb.newest_frame(), 0
        while frame is not None and depth < 12:
            name = (frame.name() or "").lstrip("_")
            if any(name.startswith(busy.lstrip("_")) for busy in BUSY):
                return False
            frame, depth = frame.older(), depth + 1
    return True


def call(expression: str) -> int:
    """Evaluate a call in the process."""
    return int(gdb.parse_and_eval(expression))


def main() -> None:
    """Find a quiet moment, and begin."""
    gdb.execute("set unwindonsignal on", to_string=True)
    for attempt in range(ATTEMPTS):
        if is_quiet():
            break
        # Let it run on for a moment.
        gdb.execute("detach", to_string=True)
        time.sleep(0.002 * (attempt + 1))
        gdb.execute("attach " + os.environ["HEAPSMITH_PID"], to_string=True)
    else:
        say("heapsmith: no moment was found in which it is not inside its allocator")
        return
    first = sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num)[0]
    first.switch()
    library = os.environ["HEAPSMITH_ATTACH_LIBRARY"]
    handle = call(f'((void *(*)(const char *, int))dlopen)("{library}", 2)')
    if handle == 0:
        say("heapsmith: the library cannot be loaded into it (another C library, or another system's files)")
        return
    directory = os.environ["HEAPSMITH_ATTACH_DIRECTORY"]
    answer = call(f'((int (*)(const char *))hs_record_start)("{directory}")')
    if answer == 0:
        say("heapsmith: recording")
    elif answer == 1:
        say("heapsmith: it is being recorded already")
    else:
        say("heapsmith: it may not share memory with the recorder")


main()

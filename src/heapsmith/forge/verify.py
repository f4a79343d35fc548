"""A short self-check of a library before anybody runs a program on it: it is loaded, and used, by child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from heapsmith.errors import ForgeError

_TIMEOUT_S: Final = 60

# Loads the library beside the process's own malloc and asks it for blocks of all sizes.
_USE: Final = """
import ctypes, sys
heap = ctypes.CDLL(sys.argv[1])
for name, arguments in dict(malloc="n", calloc="nn", realloc="pn", aligned_alloc="nn").items():
    function = getattr(heap, name)
    function.restype = ctypes.c_void_p
    function.argtypes = [{"n": ctypes.c_size_t, "p": ctypes.c_void_p}[kind] for kind in arguments]
heap.free.argtypes = heap.malloc_usable_size.argtypes = [ctypes.c_void_p]
heap.free.restype, heap.malloc_usable_size.restype = None, ctypes.c_size_t
may_refuse = sys.argv[2] == "limited"
live = []
def keep(block, size, alignment=16):
    if not block and may_refuse:
        return
    assert block, f"no block of {size} bytes"
    assert block % alignment == 0 or (size < alignment and block % 8 == 0), f"{size} bytes at {block:#x}"
    assert heap.malloc_usable_size(block) >= size, f"usable size of {size} bytes"
    for other, length in live[-200:]:
        assert block + size <= other or other + length <= block, f"{size} bytes overlap {length}"
    ctypes.memset(block, len(live) & 255, size)
    live.append((block, size))
sizes = [*range(0, 1100, 7), *(1 << bit for bit in range(10, 24)), *((1 << bit) + 1 for bit in range(10, 24))]
for size in sizes:
    keep(heap.malloc(size), size)
for size in sizes:
    block = heap.calloc(1, size)
    assert not block or ctypes.string_at(block, size) == bytes(size), f"calloc of {size} bytes is not zero"
    keep(block, size)
for shift in range(4, 22):
    keep(heap.aligned_alloc(1 << shift, 100), 100, 1 << shift)
for index, (block, size) in enumerate(live):
    assert ctypes.string_at(block, size) == bytes([index & 255]) * size, f"contents of {size} bytes changed"
    if index % 2:
        moved = heap.realloc(block, size * 2 + 1)
        if not moved and may_refuse:
            continue
        assert moved, f"no realloc to {size * 2 + 1} bytes"
        assert ctypes.string_at(moved, size) == bytes([index & 255]) * size, f"realloc of {size} bytes lost contents"
        heap.free(moved)
    else:
        heap.free(block)
assert not heap.malloc((1 << 63) - 1), "a block larger than memory"
"""
_PRELOAD: Final = """
import threading
work = [threading.Thread(target=lambda: [bytearray(n) for n in range(5000)]) for _ in range(4)]
[thread.start() for thread in work]
[thread.join() for thread in work]
print(sum(len(str(n)) for n in range(20000)))
"""


def verify_library(library: Path, *, limited: bool = False) -> None:
    """Use a library in two child processes: loaded beside malloc, and in its place.

    Args:
        library: The shared object.
        limited: Whether it may refuse what a program of some size needs.

    Raises:
        ForgeError: It is no allocator, or it does not do what an allocator must.
    """
    _run("it was loaded", ["-c", _USE, str(library), "limited" if limited else ""], {})
    output = _run(
        "a program ran on it", ["-c", _PRELOAD], {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
    )
    if output.strip() != str(sum(len(str(n)) for n in range(20000))):
        raise ForgeError(
            f"{library.name} fails its verification", f"a program on it printed {output.strip()!r}"
        )


def _run(when: str, words: list[str], extra: dict[str, str]) -> str:
    try:
        result = subprocess.run(
            [sys.executable, "-S", *words],
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ForgeError("the library fails its verification", f"it hung when {when}") from error
    said = result.stderr.strip().splitlines()
    # The dynamic linker says so and goes on without a library that it cannot preload.
    ignored = any("cannot be preloaded" in line for line in said)
    if result.returncode == 0 and not ignored:
        return result.stdout
    why = said[-1] if said else f"the process ended with {result.returncode}"
    raise ForgeError("the library fails its verification", f"when {when}: {why}")

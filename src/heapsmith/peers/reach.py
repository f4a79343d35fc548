"""What a preloaded library can reach in a program, and what it cannot: read from the program's files."""

from __future__ import annotations

import functools
import mmap
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec

from heapsmith.peers.register import register

Linkage = Literal["dynamic", "musl", "static", "script", "other"]

_ELF: Final = b"\x7fELF"
_PT_INTERP: Final = 3
_MARKS: Final = {
    "jemalloc": b"<jemalloc>: ",
    "mimalloc": b"mimalloc: warning",
    "tcmalloc": b"TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES",
    "TBB's allocator": b"TBBmalloc: ",
    "snmalloc": b"snmalloc",
    "Go's own heap": b"\xff Go buildinf:",
}
"""Text that an allocator leaves in whatever it is linked into, stripped or not."""
_RUNTIMES: Final = (
    (re.compile(r"^libjvm\.so"), "the Java heap"),
    (re.compile(r"^libcoreclr\.so"), "the .NET heap"),
    (re.compile(r"^(node|libnode\.so.*|libv8.*)$"), "the heap of V8"),
)
_ADVICE: Final = (
    (re.compile(r"libarrow"), "set ARROW_DEFAULT_MEMORY_POOL=system and it uses the program's malloc"),
    (re.compile(r"polars"), "its jemalloc reads _RJEM_MALLOC_CONF, e.g. dirty_decay_ms:0"),
    (re.compile(r"duckdb"), "its jemalloc reads DUCKDB_JE_MALLOC_CONF; `SET memory_limit` bounds it"),
)
_PYTHON: Final = re.compile(r"^(python(\d(\.\d+)?)?t?|libpython\d.*|pypy3?.*)$")


class Embedded(msgspec.Struct, frozen=True):
    """An allocator inside a file of the program that a preload does not replace.

    Args:
        file: The library or executable.
        allocator: What was found in it.
        advice: What can be done about it; empty when nothing is known.
    """

    file: str
    allocator: str
    advice: str = ""


def read_linkage(program: str) -> Linkage:
    """Tell how a program is linked, from its ELF header.

    Example:
        >>> import sys
        >>> read_linkage("/bin/true")
        'dynamic'
    """
    try:
        with Path(program).open("rb") as file:
            head = file.read(64)
            if head.startswith(b"#!"):
                return "script"
            if head[:4] != _ELF or len(head) < 64 or head[4] != 2 or head[5] != 1:
                return "other"
            offset = struct.unpack_from("<Q", head, 32)[0]
            size, count = struct.unpack_from("<HH", head, 54)
            file.seek(offset)
            table = file.read(size * count)
            for index in range(count):
                kind, _, where, _, _, length = struct.unpack_from("<IIQQQQ", table, index * size)
                if kind == _PT_INTERP:
                    file.seek(where)
                    return "musl" if b"ld-musl" in file.read(length) else "dynamic"
            return "static"
    except (OSError, struct.error):
        return "other"


def reads_tunables(program: str) -> bool:
    """Tell whether a static program has glibc's malloc, which reads ``GLIBC_TUNABLES`` there, too."""
    return read_linkage(program) == "static" and _contains(program, b"glibc.malloc.arena_max")


def is_python(program: str) -> bool:
    """Tell whether an executable is a Python interpreter, by its name."""
    return _PYTHON.match(Path(program).name) is not None


def linked_allocator(objects: Iterable[str]) -> tuple[str, str] | None:
    """Name the allocator library of the register that a program is linked with, and its file.

    Args:
        objects: The files the program has mapped.

    Example:
        >>> linked_allocator(["/usr/bin/x", "/usr/lib/libjemalloc.so.2"])
        ('jemalloc', '/usr/lib/libjemalloc.so.2')
    """
    for file in objects:
        for allocator in register().values():
            if any(Path(file).match(pattern) for pattern in allocator.libraries):
                return allocator.name, file
    return None


def find_embedded(objects: Iterable[str]) -> list[Embedded]:
    """Find allocators of their own inside the files a program has mapped.

    Args:
        objects: Paths of executables and libraries; files that are gone are passed over.
    """
    found: list[Embedded] = []
    for file in objects:
        name = Path(file).name
        if linked_allocator([file]) is not None or name.startswith(("libtbbmalloc.so", "libc.so", "libc-")):
            continue
        advice = next((text for pattern, text in _ADVICE if pattern.search(file)), "")
        for pattern, runtime in _RUNTIMES:
            if pattern.match(name):
                found.append(Embedded(file, runtime, advice))
        # CPython since 3.13 carries a mimalloc that serves its objects when told to: a knob, not a limit.
        found += [
            Embedded(file, allocator, advice)
            for allocator in _marks_in(file)
            if not (allocator == "mimalloc" and _PYTHON.match(name))
        ]
    return found


@functools.cache
def _marks_in(file: str) -> tuple[str, ...]:
    return tuple(name for name, mark in _MARKS.items() if _contains(file, mark))


def _contains(file: str, mark: bytes) -> bool:
    try:
        with (
            Path(file).open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(mark) >= 0
    except (OSError, ValueError):
        return False

"""Tell which allocator a library is, and its version, by starting a small program on it and asking.

A file name proves nothing (``libmimalloc.so`` may be any version), and a library that cannot be preloaded is
only ignored with a warning by the loader; so the question is asked in a process that really runs on it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.peers.knobs import Version
from heapsmith.peers.preload import preload_words

_ASK: Final = r"""
import ctypes, json, os, sys
class Info(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p)] + [(name, ctypes.c_void_p) for name in ("base", "name", "at")]
process = ctypes.CDLL(None)
def owner(name):
    try:
        function = getattr(process, name)
    except AttributeError:
        return None
    info = Info()
    process.dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))
    return os.path.realpath(info.file.decode()) if info.file else None
answer = {"malloc": owner("malloc"), "name": None, "version": None}
def mine(name):
    return owner(name) is not None and owner(name) == answer["malloc"]
if mine("heapsmith_name"):
    process.heapsmith_name.restype = ctypes.c_char_p
    answer.update(name="heapsmith " + process.heapsmith_name().decode())
elif mine("mallctl"):
    text, size = ctypes.c_char_p(), ctypes.c_size_t(8)
    process.mallctl(b"version", ctypes.byref(text), ctypes.byref(size), None, ctypes.c_size_t(0))
    answer.update(name="jemalloc", version=(text.value or b"").decode())
elif mine("mi_version"):
    number = process.mi_version()
    parts = (number // 10000, number // 100 % 100, number % 100) if number >= 10000 else map(int, str(number))
    answer.update(name="mimalloc", version=".".join(map(str, parts)))
elif mine("tc_version"):
    process.tc_version.restype = ctypes.c_char_p
    answer.update(name="tcmalloc", version=process.tc_version(None, None, None).decode())
elif mine("heapsmith_tell"):
    answer.update(name="heapsmith")
elif mine("dlmalloc_footprint") or mine("malloc_footprint"):
    answer.update(name="dlmalloc")
elif owner("scalable_malloc"):
    answer.update(name="tbb", library=owner("scalable_malloc"))
elif mine("gnu_get_libc_version"):
    process.gnu_get_libc_version.restype = ctypes.c_char_p
    answer.update(name="glibc", version=process.gnu_get_libc_version().decode())
elif "musl" in os.path.basename(answer["malloc"] or ""):
    answer.update(name="musl")
print(json.dumps(answer))
"""
_TBB_VERSION: Final = re.compile(rb"TBBmalloc: VERSION\s+([0-9][0-9.]*)")
_SNMALLOC_MARK: Final = b"snmalloc"


class Identity(msgspec.Struct, frozen=True):
    """What a library turned out to be.

    Args:
        name: The allocator ("jemalloc", "mimalloc2", ...), or None for one that nobody here knows.
        version: The version, or None when it does not tell.
        problem: Why no program can be started on it; None when one can.
    """

    name: str | None
    version: str | None
    problem: str | None = None

    @property
    def version_numbers(self) -> Version | None:
        """The version as numbers that can be compared, or None."""
        if self.version is None or not re.fullmatch(r"\d+(\.\d+)*", self.version):
            return None
        return tuple(int(part) for part in self.version.split("."))


def identify(library: Path | None) -> Identity:
    """Tell what a preloadable library is.

    Args:
        library: The library; None asks for the process's own malloc.

    Example:
        >>> identify(None).problem is None
        True
    """
    if library is None:
        return _ask(None, 0)
    try:
        return _ask(str(library.resolve()), library.stat().st_mtime_ns)
    except OSError as error:
        return Identity(None, None, error.strerror or "cannot be read")


@functools.cache
def _ask(library: str | None, _changed_ns: int) -> Identity:
    environment = {
        key: value for key, value in os.environ.items() if key not in {"LD_PRELOAD", "PYTHONMALLOC"}
    }
    if library is not None:
        environment["LD_PRELOAD"] = ":".join(preload_words(Path(library)))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _ASK],
            env=environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Identity(None, None, "a program started on it hangs")
    if done.returncode != 0:
        signal = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return Identity(None, None, f"a program started on it fails ({signal})")
    answer = json.loads(done.stdout.decode().strip().splitlines()[-1])
    if library is not None and os.path.realpath(answer["malloc"]) != os.path.realpath(library):
        complaint = done.stderr.decode(errors="replace").strip().splitlines()
        reason = (
            complaint[0].split("from LD_PRELOAD")[-1].strip() if complaint else "it does not define malloc"
        )
        return Identity(None, None, _loader_reason(reason))
    name: str | None = answer["name"]
    version: str | None = answer["version"] or None
    if name == "mimalloc" and version is not None:
        name = f"mimalloc{version.split('.')[0]}"
    elif name == "tbb":
        found = _TBB_VERSION.search(Path(answer["library"]).read_bytes())
        version = found[1].decode() if found else None
    elif name is None and library is not None and _SNMALLOC_MARK in Path(library).read_bytes():
        name = "snmalloc"
    # "gperftools 2.10" and "5.3.0-0-g54eaed1d" say their version and more.
    number = re.search(r"\d+(?:\.\d+)*", version or "")
    return Identity(name, number[0] if number else version)


def _loader_reason(text: str) -> str:
    match = re.search(r"cannot be preloaded \((.*)\): ignored", text)
    return f"the loader refuses it: {match[1]}" if match else text

"""Programs compiled from tests/telling/programs, and the allocators of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from heapsmith.native import LIBRARIES, SOURCES, library
from heapsmith.peers.register import find
from watched import needs

PROGRAMS = Path(__file__).parent / "programs"
CLIENT = SOURCES / "abi" / "heapsmith_client.c"
FIELD = ("glibc", "jemalloc", "mimalloc2", "tcmalloc", "tbb")
Build = Callable[..., Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def behind_watch(allocator: str = "glibc", *, watched: bool = True) -> dict[str, str]:
    """The environment of a program on an allocator, watched or not; skips where it is not installed."""
    found = find(allocator)
    if not found.here:
        pytest.skip(f"there is no {allocator} on this machine")
    libraries = [str(library("libheapsmith_watch.so"))] if watched else []
    libraries += [str(found.path)] if found.path else []
    kept = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    return kept | ({"LD_PRELOAD": ":".join(libraries)} if libraries else {})


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile sources into a program."""

    def compile_program(*words: str | Path, compiler: str = "gcc") -> Path:
        needs(compiler)
        program = tmp_path / f"program{len(list(tmp_path.iterdir()))}"
        command = [compiler, "-g", "-O1", "-fno-builtin", "-Wall", f"-I{SOURCES / 'abi'}", *map(str, words)]
        subprocess.run([*command, "-o", str(program), "-pthread"], check=True)
        return program

    return compile_program


LINK_HEAPSMITH = (f"-L{LIBRARIES}", "-lheapsmith", f"-Wl,-rpath,{LIBRARIES}")

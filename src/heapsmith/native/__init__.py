"""The native core: its sources (the same path in a checkout and in a wheel) and the libraries built from them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from heapsmith.errors import HeapsmithError

SOURCES: Final = Path(__file__).resolve().parent
"""Where the C++ sources are; `forge` compiles them."""

LIBRARIES: Final = SOURCES / "lib"
"""Where the build puts the shared libraries."""


def library(name: str) -> Path:
    """Find a shared library of this installation.

    Args:
        name: The file name (``"libosmem.so"``).

    Raises:
        HeapsmithError: The installation has no such library.

    Example:
        >>> library("libheapsmith_watch.so").name
        'libheapsmith_watch.so'
    """
    path = LIBRARIES / name
    if not path.is_file():
        raise HeapsmithError(
            f"{name} is missing",
            f"not in {LIBRARIES}",
            "install heapsmith again: its build makes the libraries",
        )
    return path

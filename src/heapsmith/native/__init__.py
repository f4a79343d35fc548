"""The native core: its sources (the same path in a checkout and in a wheel) and the libraries built from them."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
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


def preloadable(path: Path, folder: Path | None = None) -> Path:
    """Name a library so that it can stand in ``LD_PRELOAD``, which the dynamic linker splits at spaces and colons.

    Args:
        path: The library.
        folder: Where a link to it may be made; None is a folder that goes when this process ends.

    Example:
        >>> preloadable(Path("/lib/libm.so.6"))
        PosixPath('/lib/libm.so.6')
    """
    path = path.absolute()
    if not any(separator in str(path) for separator in _SEPARATORS):
        return path
    # Several libraries of one name may be preloaded.
    link = (folder or _links()) / f"{path.stat().st_ino:x}-{path.name.translate(_PLAIN)}"
    if not link.is_symlink():
        link.symlink_to(path)
    return link


_SEPARATORS: Final = " :\t\n$"
_PLAIN: Final = str.maketrans(_SEPARATORS, "_" * len(_SEPARATORS))


@functools.cache
def _links() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="heapsmith-links-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder

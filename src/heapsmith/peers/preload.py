"""What ``LD_PRELOAD`` has to name for a library to arrive: where its loader would not look, its neighbours too."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from heapsmith.native import preloadable

_OF_THE_SYSTEM: Final = ("/usr/lib", "/lib")
_SAYS_WHERE: Final = ("DT_RUNPATH", "DT_RPATH")


def preload_words(library: Path) -> list[str]:
    """Return what to preload so that a program runs on a library, in order.

    Example:
        >>> preload_words(Path("/usr/lib/libjemalloc.so.2"))
        ['/usr/lib/libjemalloc.so.2']
    """
    return [str(preloadable(path)) for path in (*find_neighbours(library), library)]


def is_of_the_system(library: Path) -> bool:
    """Whether a library is where the distribution's packages put theirs, and the loader looks by itself."""
    return str(library).startswith(_OF_THE_SYSTEM)


@functools.cache
def find_neighbours(library: Path) -> tuple[Path, ...]:
    """Find the libraries beside one that it needs without saying where they are (as pip's TBB does).

    Args:
        library: The library; whatever cannot be read has no neighbours.
    """
    if is_of_the_system(library):
        return ()
    try:
        with library.open("rb") as file:
            dynamic: Any = ELFFile(file).get_section_by_name(".dynamic")
            tags: list[Any] = [] if dynamic is None else list(dynamic.iter_tags())
    except (OSError, ELFError):
        return ()
    if any(tag.entry.d_tag in _SAYS_WHERE for tag in tags):
        return ()
    needed: list[str] = [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
    return tuple(library.parent / name for name in needed if (library.parent / name).is_file())

"""The functions of an ELF file by address."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

import cxxfilt  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray

_SYMBOL_64: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_FUNCTIONS: Final = (2, 10)  # STT_FUNC, STT_GNU_IFUNC


class SymbolTable:
    """The functions of some files, in the order of their addresses; 64-bit little-endian ELF.

    Args:
        paths: The files of one module: its own and its debug file.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        values: list[NDArray[Any]] = []
        self._strings: list[bytes] = []
        for path in paths:
            for table, strings in _read_tables(path):
                functions = np.isin(table["info"] & 15, _FUNCTIONS) & (table["section"] != 0)
                rows = table[functions & (table["value"] != 0)]
                which = np.full(len(rows), len(self._strings), np.uint64)
                values.append(np.stack([rows["value"], rows["size"], which, rows["name"]], axis=1))
                self._strings.append(strings)
        everything = np.concatenate(values) if values else np.zeros((0, 4), np.uint64)
        order = np.lexsort((everything[:, 1], everything[:, 0]))
        self._starts, self._sizes, self._tables, self._names = everything[order].astype(np.uint64).T

    def find(self, address: int) -> str | None:
        """Answer the name of the function that holds an address (as linked); None where none does."""
        place = int(np.searchsorted(self._starts, np.uint64(address), side="right")) - 1
        while place >= 0:
            start, size = int(self._starts[place]), int(self._sizes[place])
            if address < start + size or (size == 0 and address - start < 4096):
                return demangle(self._name(place).partition("@")[0])
            if address - start > 1 << 20 or size:
                return None
            place -= 1
        return None

    def _name(self, place: int) -> str:
        strings, start = self._strings[int(self._tables[place])], int(self._names[place])
        return strings[start : strings.find(b"\0", start)].decode(errors="replace")


def _read_tables(path: Path) -> list[tuple[NDArray[np.void], bytes]]:
    found: list[tuple[NDArray[np.void], bytes]] = []
    try:
        with path.open("rb") as file:
            elf: Any = ELFFile(file)
            if elf.elfclass != 64 or not elf.little_endian:
                return found
            for name in (".symtab", ".dynsym"):
                section = elf.get_section_by_name(name)
                if section is None or section["sh_type"] == "SHT_NOBITS":
                    continue
                data: bytes = section.data()
                strings: bytes = elf.get_section(section["sh_link"]).data()
                usable = len(data) - len(data) % _SYMBOL_64.itemsize
                found.append((np.frombuffer(data[:usable], _SYMBOL_64), strings + b"\0"))
    except (ELFError, OSError, ValueError, KeyError, AttributeError, IndexError):
        return found
    return found


@functools.cache
def demangle(name: str) -> str:
    """Answer the source name of a linker's name; the name itself where it is not mangled.

    Example:
        >>> demangle("_ZN4demo4growEi"), demangle("main")
        ('demo::grow(int)', 'main')
    """
    if not name.startswith(("_Z", "__Z")):
        return name
    try:
        return str(cxxfilt.demangle(name))
    except (cxxfilt.InvalidName, cxxfilt.LibraryNotFound, ValueError):
        return name

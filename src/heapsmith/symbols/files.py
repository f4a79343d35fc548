"""Where the files of a module are: the module itself, and its debug file, told by build-id."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from heapsmith.trace import ModuleRecord

_DEBUG_ROOTS: Final = (Path("/usr/lib/debug"),)
_NO_ELF: Final = (ELFError, OSError, ValueError, KeyError, AssertionError, IndexError)


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """What of a module was found.

    Args:
        symbols: Files with symbols, the most telling first.
        lines: The file with line numbers; None where there is none.
        problem: Why there is nothing, or less than there might be.
    """

    symbols: tuple[Path, ...]
    lines: Path | None
    problem: str = ""


def find_module_files(
    module: ModuleRecord, folders: Sequence[Path] = (), kept_open: Path | None = None
) -> ModuleFiles:
    """Find what is here of a recorded module; a file with another build-id is another module.

    Args:
        module: As recorded.
        folders: Further places, looked at first: a debug tree with ``.build-id``, or simply the files.
        kept_open: Where the file can still be read if it has been deleted meanwhile.
    """
    found: list[Path] = []
    lines: Path | None = None
    problem = "neither it nor a debug file of its build-id is here"
    at_home = {Path(module.path), kept_open}
    for path in (*_candidates(module, folders), *([kept_open] if kept_open else [])):
        if path in found or not path.is_file():
            continue
        build_id, has_symbols, has_lines = _look(path)
        if module.build_id is not None and build_id != module.build_id:
            if path == Path(module.path):
                problem = "the file on this machine is another version"
            continue
        if module.build_id is None and path not in at_home and path.name != Path(module.path).name:
            continue
        if has_symbols:
            found.append(path)
        if has_lines and lines is None:
            lines = path
    return ModuleFiles(tuple(found), lines, "" if found else problem)


def _candidates(module: ModuleRecord, folders: Sequence[Path]) -> Iterator[Path]:
    path = Path(module.path)
    name = path.name
    build_id = module.build_id
    for folder in folders:
        if build_id:
            yield folder / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
            yield folder / build_id[:2] / f"{build_id[2:]}.debug"
            yield folder / build_id / "debuginfo"
            yield folder / f"{build_id}.debug"
        yield folder / f"{name}.debug"
        yield folder / path.relative_to("/") if path.is_absolute() else folder / path
        yield folder / name
    if build_id:
        for root in _DEBUG_ROOTS:
            yield root / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
        cache = os.environ.get("DEBUGINFOD_CACHE_PATH") or str(
            Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "debuginfod_client"
        )
        yield Path(cache) / build_id / "debuginfo"
    yield path.with_name(name + ".debug")
    yield path.parent / ".debug" / f"{name}.debug"
    yield path.parent / ".debug" / name
    yield path


def _look(path: Path) -> tuple[str | None, bool, bool]:
    """Answer the build-id of a file, and whether it has symbols and line numbers."""
    try:
        with path.open("rb") as file:
            elf: Any = ELFFile(file)
            build_id = read_build_id(elf)
            has_symbols = any(elf.get_section_by_name(name) is not None for name in (".symtab", ".dynsym"))
            return build_id, has_symbols, elf.get_section_by_name(".debug_line") is not None
    except _NO_ELF:
        return None, False, False


def read_build_id(elf: Any) -> str | None:
    """Answer the build-id of an open ELF file in hexadecimal; None where it has none."""
    section = elf.get_section_by_name(".note.gnu.build-id")
    if section is None:
        return None
    for note in section.iter_notes():
        if note["n_type"] == "NT_GNU_BUILD_ID":
            return str(note["n_desc"])
    return None

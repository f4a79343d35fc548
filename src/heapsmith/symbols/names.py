"""Frames of a trace by name: Python's as recorded, native ones by build-id, an honest offset where nothing tells more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from heapsmith.symbols.elf_symbols import SymbolTable, demangle
from heapsmith.symbols.files import ModuleFiles, find_module_files
from heapsmith.symbols.lines import find_tool, read_lines
from heapsmith.trace import FrameKind, Symbol, Trace
from heapsmith.trace.layout import UNKNOWN_MODULE
from heapsmith.trace.places import Label

_OURS: Final = "libheapsmith"
"""Frames of what records are no part of the program."""


class FrameNames:
    """Names frames; what it looked up once, it knows.

    Args:
        folders: Where to look for debug files and programs first, for traces of other machines.
        read_debug_files: Look for files at all; else only what the trace tells.

    Example:
        >>> FrameNames().problems
        {}
    """

    def __init__(self, folders: Sequence[Path] = (), *, read_debug_files: bool = True) -> None:
        self._folders = list(folders)
        self._read_debug_files = read_debug_files
        self._files: dict[tuple[str, str | None], ModuleFiles] = {}
        self._tables: dict[tuple[Path, ...], SymbolTable] = {}
        self.problems: dict[str, str] = {}
        """Modules whose frames have no names, and why."""

    def __call__(self, trace: Trace, frames: Sequence[int]) -> dict[int, tuple[Label, ...]]:
        """Answer the labels of frames: inlined functions first."""
        found: dict[int, tuple[Label, ...]] = {}
        native: dict[int, list[tuple[int, int]]] = {}
        for frame in frames:
            row = trace.frames[frame]
            kind, a, b, c = int(row["kind"]), int(row["a"]), int(row["b"]), int(row["c"])
            if kind == FrameKind.PYTHON:
                found[frame] = (_python_label(trace, a, b, c),)
            elif kind != FrameKind.NATIVE:
                found[frame] = (Label("?", is_named=False),)
            elif a == UNKNOWN_MODULE or a >= len(trace.modules):
                found[frame] = (Label(f"{b:#x} (in no file: generated code)", is_named=False),)
            else:
                native.setdefault(a, []).append((frame, b))
        for number, rows in native.items():
            found.update(self._name_module(trace, number, rows))
        return found

    def _name_module(
        self, trace: Trace, number: int, rows: list[tuple[int, int]]
    ) -> dict[int, tuple[Label, ...]]:
        module = trace.modules[number]
        found: dict[int, tuple[Label, ...]] = {}
        if module.path.rpartition("/")[2].startswith(_OURS):
            return {frame: () for frame, _ in rows}
        unknown: list[tuple[int, int]] = []
        for frame, address in rows:
            recorded = trace.symbols.get(frame)
            if recorded and (recorded[-1].line is not None or not self._read_debug_files):
                found[frame] = _native_labels(module.path, recorded)
            else:
                unknown.append((frame, address))
        if not unknown:
            return found
        files = self._files_of(module.path, module.build_id, trace, number)
        # A frame is a return address: the call is before it, perhaps on another line.
        calls = {frame: max(0, address - 1) for frame, address in unknown}
        lines = read_lines(files.lines, sorted(set(calls.values()))) if files.lines else {}
        table = self._table(files.symbols)
        for frame, address in unknown:
            symbols = lines.get(calls[frame]) or trace.symbols.get(frame)
            if symbols:
                found[frame] = _native_labels(module.path, symbols)
                continue
            function = table.find(calls[frame])
            if function is not None:
                found[frame] = (Label(function, module=module.path),)
            else:
                offset = f"{module.path.rpartition('/')[2]}+{address:#x}"
                found[frame] = (Label(offset, module=module.path, is_named=False),)
        return found

    def _files_of(self, path: str, build_id: str | None, trace: Trace, number: int) -> ModuleFiles:
        key = path, build_id
        if key not in self._files:
            if self._read_debug_files:
                files = find_module_files(trace.modules[number], self._folders)
            else:
                files = ModuleFiles((), None, "files were not looked for")
            self._files[key] = files
            if files.problem:
                self.problems[path] = files.problem
            elif files.lines is not None and find_tool() is None:
                self.problems[path] = "its lines need llvm-symbolizer or addr2line, and neither is installed"
        return self._files[key]

    def _table(self, paths: tuple[Path, ...]) -> SymbolTable:
        if paths not in self._tables:
            self._tables[paths] = SymbolTable(paths)
        return self._tables[paths]


def _python_label(trace: Trace, name: int, file: int, line: int) -> Label:
    strings = trace.strings
    function = strings[name] if name < len(strings) else "?"
    path = strings[file] if file < len(strings) else None
    return Label(function or "?", path or None, line or None, is_python=True)


def _native_labels(module: str, symbols: Sequence[Symbol]) -> tuple[Label, ...]:
    return tuple(
        Label(demangle(symbol.function), symbol.file, symbol.line, module=module) for symbol in symbols
    )

"""Frames of a trace by name: Python's as recorded, native ones by build-id, an honest offset where nothing tells more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from heapsmith.symbols.elf_symbols import demangle
from heapsmith.symbols.modules import ModuleNames
from heapsmith.trace import FrameKind, ModuleRecord, Symbol, Trace
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
        self._modules: dict[ModuleRecord, ModuleNames] = {}
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
            # The recorder had the same file, so only a folder that somebody names can know more than a line.
            if recorded and not self._folders and (recorded[-1].line or not self._read_debug_files):
                found[frame] = _native_labels(module.path, recorded)
            else:
                unknown.append((frame, address))
        if not unknown:
            return found
        here = (
            self._names_of(module).find([address for _, address in unknown]) if self._read_debug_files else {}
        )
        is_any_unnamed = False
        for frame, address in unknown:
            symbols, recorded = here.get(address), trace.symbols.get(frame)
            if recorded and not (symbols and (symbols[-1].line or not recorded[-1].line)):
                symbols = recorded
            if symbols:
                found[frame] = _native_labels(module.path, symbols)
                continue
            is_any_unnamed = True
            offset = f"{module.path.rpartition('/')[2]}+{address:#x}"
            found[frame] = (Label(offset, module=module.path, is_named=False),)
        if is_any_unnamed or not any(frame in trace.symbols for frame, _ in unknown):
            problem = (
                self._names_of(module).problem if self._read_debug_files else "files were not looked for"
            )
            if problem:
                self.problems[module.path] = problem
        return found

    def _names_of(self, module: ModuleRecord) -> ModuleNames:
        if module not in self._modules:
            self._modules[module] = ModuleNames(module, self._folders)
        return self._modules[module]


def _python_label(trace: Trace, name: int, file: int, line: int) -> Label:
    strings = trace.strings
    function = strings[name] if name < len(strings) else "?"
    path = strings[file] if file < len(strings) else None
    return Label(function or "?", path or None, line or None, is_python=True)


def _native_labels(module: str, symbols: Sequence[Symbol]) -> tuple[Label, ...]:
    return tuple(
        Label(demangle(symbol.function), symbol.file, symbol.line, module=module) for symbol in symbols
    )

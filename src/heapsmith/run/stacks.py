"""Stacks as the program left them, on their way into the trace: modules, code objects and frames, each written once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.run.drain import DrainedProcess
from heapsmith.symbols import name_frames
from heapsmith.trace import FrameKind, ModuleRecord, TraceWriter
from heapsmith.trace.layout import FRAME, STACK, UNKNOWN_MODULE
from heapsmith.wire.recording import (
    CODE,
    CODES_OFFSET_BYTES,
    FRAME_MODULE_SHIFT,
    FRAME_PYTHON_BIT,
    MODULE,
    MODULES_OFFSET_BYTES,
    NODE,
    NODES_OFFSET_BYTES,
    TEXTS_OFFSET_BYTES,
)

_MOST_KEPT_OPEN: Final = 512
_DELETED: Final = " (deleted)"
"""The kernel puts it behind the name of a file that is only open any more."""
_ADDRESS: Final = (1 << FRAME_MODULE_SHIFT) - 1
_CODE_UNIT_BYTES: Final = 2
_NO_LOCATION: Final = 15
_NO_COLUMNS: Final = 13
_LONG: Final = 14
_ONE_LINE_FORMS: Final = range(10, 13)


def read_lines(table: bytes, first_line: int) -> list[tuple[int, int | None]]:
    """Decode CPython's table of locations (3.11 and later, Objects/locations.md of its sources).

    Args:
        table: ``co_linetable``.
        first_line: ``co_firstlineno``.

    Returns:
        For each run of instructions the offset behind it in bytes, and its line.

    Example:
        >>> def two():
        ...     return 1
        >>> code = two.__code__
        >>> max(line for _, line in read_lines(code.co_linetable, 10) if line)
        11
    """
    rows = list[tuple[int, int | None]]()
    at = end = 0
    line = first_line

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while at < len(table):
            byte = table[at]
            at += 1
            value |= (byte & 63) << shift
            shift += 6
            if not byte & 64:
                break
        return value

    def signed() -> int:
        value = varint()
        return -(value >> 1) if value & 1 else value >> 1

    while at < len(table):
        head = table[at]
        at += 1
        code = head >> 3 & 15
        end += ((head & 7) + 1) * _CODE_UNIT_BYTES
        if code == _NO_LOCATION:
            rows.append((end, None))
            continue
        if code == _LONG:
            line += signed()
            for _ in range(3):
                varint()
        elif code == _NO_COLUMNS:
            line += signed()
        elif code in _ONE_LINE_FORMS:
            line += code - 10
            at += 2
        else:
            at += 1
        rows.append((end, line))
    return rows


@dataclass
class FileTables:
    """What the whole file has: strings and modules, numbered once for all processes."""

    writer: TraceWriter
    strings: dict[str, int] = field(default_factory=dict[str, int])
    modules: dict[ModuleRecord, int] = field(default_factory=dict[ModuleRecord, int])
    native_frames: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """Module and address of each native frame."""
    kept_open: dict[ModuleRecord, int] = field(default_factory=dict[ModuleRecord, int])
    """Descriptors of the modules' files: names are read at the end, when a file may have been deleted."""
    next_stack: int = 1
    _new_strings: list[str] = field(default_factory=list[str])

    def string(self, text: str) -> int:
        """The number of a string; `flush_strings` writes those that are new."""
        number = self.strings.get(text)
        if number is None:
            number = self.strings[text] = len(self.strings)
            self._new_strings.append(text)
        return number

    def flush_strings(self) -> None:
        """Write the strings that are new."""
        if self._new_strings:
            self.writer.write_strings(self._new_strings)
            self._new_strings = []

    def module(self, record: ModuleRecord, pid: int) -> int:
        """The number of a module, which is written when it is new; `pid` has it mapped."""
        number = self.modules.get(record)
        if number is None:
            number = self.modules[record] = len(self.modules)
            self.writer.write_modules([record])
            if len(self.kept_open) < _MOST_KEPT_OPEN:
                with contextlib.suppress(OSError):
                    self.kept_open[record] = _open_module(record.path, pid)
        return number

    def write_names(
        self, longest_s: float, on_module: Callable[[ModuleRecord, int, int], None] | None
    ) -> None:
        """Write what the native frames are called, so that the trace can be read where the files are not."""
        files = {
            record: Path(f"/proc/{os.getpid()}/fd/{number}") for record, number in self.kept_open.items()
        }
        frames, self.native_frames = self.native_frames, {}
        for symbols in name_frames(
            list(self.modules), frames, kept_open=files, longest_s=longest_s, on_module=on_module
        ):
            if symbols:
                self.writer.write_symbols(symbols)

    def close(self) -> None:
        """Let go of the modules' files."""
        while self.kept_open:
            os.close(self.kept_open.popitem()[1])


def _open_module(path: str, pid: int) -> int:
    """Open a module's file; one that has been deleted by the process that has it mapped."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        process = Path(f"/proc/{pid}")
        if str((process / "exe").readlink()) == path + _DELETED:
            return os.open(process / "exe", flags)
        for line in (process / "maps").read_text(errors="replace").splitlines():
            if line.endswith(path + _DELETED):
                return os.open(process / "map_files" / line.partition(" ")[0], flags)
        raise


@dataclass
class _Code:
    name: int
    file: int
    rows: list[tuple[int, int | None]]

    def line(self, offset_bytes: int) -> int:
        """The line of the instruction there; 0 where it has none."""
        for end, line in self.rows:
            if offset_bytes < end:
                return line or 0
        return 0


class StackTables:
    """The stacks of one process: writes what is new, and tells the drain what numbers they have in the file.

    Args:
        tables: Of the file.
        drained: The process.
        pid: Of it.
    """

    def __init__(self, tables: FileTables, drained: DrainedProcess, pid: int) -> None:
        self._tables = tables
        self._pid = pid
        self._drained = drained
        self._nodes = 1
        self._numbers = np.zeros(1, np.uint32)
        self._frames = dict[int, int]()
        self._modules = list[tuple[int, int]]()
        self._codes = list[_Code]()

    def write_modules(self) -> None:
        """Write the modules that the program has met since the last call, and keep their files open."""
        self._read_modules(int(self._drained.header()["modules_used"]))

    def write_new(self) -> None:
        """Write the nodes that the program has added since the last call."""
        header = self._drained.header()
        used = int(header["nodes_used"])
        if used <= self._nodes:
            return
        first, self._nodes = self._nodes, used
        raw = self._drained.read(
            NODES_OFFSET_BYTES + first * NODE.size_bytes, (used - first) * NODE.size_bytes
        )
        nodes = np.frombuffer(raw, NODE.dtype())
        self._read_modules(int(header["modules_used"]))
        self._read_codes(int(header["codes_used"]))
        keys, inverse = np.unique(nodes["frame"], return_inverse=True)
        frames = self._write_frames(keys)[inverse]
        rows = np.zeros(len(nodes), STACK)
        rows["frame"] = frames
        # Rows get their numbers in order, so that a parent among them has one that can be told beforehand.
        first_number = self._tables.next_stack
        parents = nodes["parent"].astype(np.int64)
        old = parents < first
        rows["parent"][old] = self._numbers[parents[old]]
        rows["parent"][~old] = first_number + (parents[~old] - first)
        self._tables.writer.write_stacks(rows)
        self._tables.next_stack += len(rows)
        numbers = np.arange(first_number, first_number + len(rows), dtype=np.uint32)
        self._numbers = np.concatenate([self._numbers, numbers])
        self._drained.number_stacks(first, numbers)

    def _write_frames(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        numbers = np.zeros(len(keys), np.uint32)
        new = list[tuple[int, int, int, int]]()
        places = list[int]()
        for place, key in enumerate(keys.tolist()):
            known = self._frames.get(key)
            if known is None:
                new.append(self._describe(key))
                places.append(place)
            else:
                numbers[place] = known
        if new:
            self._tables.flush_strings()
            first = self._tables.writer.write_frames(np.array(new, FRAME))
            for offset, place in enumerate(places):
                self._frames[int(keys[place])] = numbers[place] = first + offset
                kind, module, address, _ = new[offset]
                if kind == FrameKind.NATIVE:
                    self._tables.native_frames[first + offset] = module, address
        return numbers

    def _describe(self, key: int) -> tuple[int, int, int, int]:
        if key & FRAME_PYTHON_BIT:
            number = key >> 32 & 0x7FFFFFFF
            if not 0 < number <= len(self._codes):
                return int(FrameKind.PYTHON), self._tables.string("?"), self._tables.string("?"), 0
            code = self._codes[number - 1]
            return int(FrameKind.PYTHON), code.name, code.file, code.line(key & 0xFFFFFFFF)
        address = key & _ADDRESS
        number = key >> FRAME_MODULE_SHIFT
        if not 0 < number <= len(self._modules):
            return int(FrameKind.NATIVE), UNKNOWN_MODULE, address, 0
        module, bias = self._modules[number - 1]
        return int(FrameKind.NATIVE), module, address - bias, 0

    def _read_modules(self, used: int) -> None:
        first = len(self._modules)
        if used <= first:
            return
        raw = self._drained.read(
            MODULES_OFFSET_BYTES + first * MODULE.size_bytes, (used - first) * MODULE.size_bytes
        )
        for row in np.frombuffer(raw, MODULE.dtype()):
            build_id = row["build_id"][: int(row["build_id_bytes"])].tobytes().hex()
            path = row["path"].decode(errors="replace").removesuffix(_DELETED)
            record = ModuleRecord(path=path, build_id=build_id or None)
            self._modules.append((self._tables.module(record, self._pid), int(row["bias"])))

    def _read_codes(self, used: int) -> None:
        first = len(self._codes)
        raw = self._drained.read(
            CODES_OFFSET_BYTES + first * CODE.size_bytes, (used - first) * CODE.size_bytes
        )
        for row in np.frombuffer(raw, CODE.dtype()):
            name, file, lines = (
                self._drained.read(TEXTS_OFFSET_BYTES + int(row[f"{part}_at"]), int(row[f"{part}_bytes"]))
                for part in ("name", "file", "lines")
            )
            self._codes.append(
                _Code(
                    self._tables.string(name.decode(errors="replace") or "?"),
                    self._tables.string(file.decode(errors="replace") or "?"),
                    read_lines(lines, int(row["first_line"])),
                )
            )

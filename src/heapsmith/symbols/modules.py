"""What the addresses of a module are, by its files; and all that a recording met, named within a time that is given."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from heapsmith.symbols.elf_symbols import SymbolTable
from heapsmith.symbols.files import ModuleFiles, find_module_files
from heapsmith.symbols.lines import find_tool, read_lines
from heapsmith.trace import FrameSymbols, ModuleRecord, Symbol

_LEAST_S: Final = 0.1
_SYSTEM: Final = ("/usr/", "/lib", "/opt/")


class ModuleNames:
    """Names addresses of one module; what it looked up once, it knows.

    Args:
        module: As recorded.
        folders: Where to look for its files first.
        kept_open: Where its file can still be read if it has been deleted.

    Example:
        >>> ModuleNames(ModuleRecord(path="/no/such.so", build_id=None)).find([0x1234])
        {}
    """

    def __init__(
        self, module: ModuleRecord, folders: Sequence[Path] = (), kept_open: Path | None = None
    ) -> None:
        self._module, self._folders, self._kept_open = module, folders, kept_open
        self._found: dict[int, list[Symbol]] = {}
        self._looked_up: set[int] = set()

    @property
    def problem(self) -> str:
        """Why there are no names, or fewer than there might be; empty where there is no reason."""
        if self._files.problem or self._files.lines is None or find_tool() is not None:
            return self._files.problem
        return "its lines need llvm-symbolizer or addr2line, and neither is installed"

    def find(self, addresses: Sequence[int], timeout_s: float = 120.0) -> dict[int, list[Symbol]]:
        """Look up return addresses: the call is before each, perhaps on another line.

        Args:
            addresses: As linked.
            timeout_s: When to be content with functions for those whose lines have not been found.

        Returns:
            For each address that is known: inlined functions first, the function they are in last.
        """
        new = [address for address in addresses if address not in self._looked_up]
        if new:
            self._looked_up.update(new)
            calls = {address: max(0, address - 1) for address in new}
            lines = self._files.lines
            known = read_lines(lines, sorted(set(calls.values())), timeout_s) if lines else {}
            for address, call in calls.items():
                symbols = known.get(call)
                if symbols is None and (function := self._table.find(call)) is not None:
                    symbols = [Symbol(function)]
                if symbols:
                    self._found[address] = symbols
        return {address: self._found[address] for address in addresses if address in self._found}

    @functools.cached_property
    def _files(self) -> ModuleFiles:
        return find_module_files(self._module, self._folders, self._kept_open)

    @functools.cached_property
    def _table(self) -> SymbolTable:
        return SymbolTable(self._files.symbols)


def name_frames(
    modules: Sequence[ModuleRecord],
    frames: Mapping[int, tuple[int, int]],
    *,
    kept_open: Mapping[ModuleRecord, Path] | None = None,
    longest_s: float = 10.0,
    on_module: Callable[[ModuleRecord, int, int], None] | None = None,
) -> Iterator[list[FrameSymbols]]:
    """Name native frames, the program's own modules first, within a time.

    When the time is over, what is left gets the functions of the symbol tables, which take a moment, and no lines.

    Args:
        modules: By number.
        frames: For each frame the number of its module (of no module: any other number) and its address.
        kept_open: Where files of modules can be read that may have been deleted.
        longest_s: For lines and inlined functions of all modules together.
        on_module: Called before each module with it, how many are done, and how many there are.

    Yields:
        For each module its frames as far as they have names.
    """
    until_s = time.monotonic() + longest_s
    by_module: dict[int, dict[int, int]] = {}
    for frame, (number, address) in frames.items():
        if number < len(modules):
            by_module.setdefault(number, {})[frame] = address
    order = sorted(
        by_module, key=lambda number: (modules[number].path.startswith(_SYSTEM), -len(by_module[number]))
    )
    for done, number in enumerate(order):
        module = modules[number]
        if on_module is not None:
            on_module(module, done, len(order))
        names = ModuleNames(module, kept_open=(kept_open or {}).get(module))
        rows = by_module[number]
        found = names.find(sorted(set(rows.values())), max(_LEAST_S, until_s - time.monotonic()))
        yield [FrameSymbols(frame, found[address]) for frame, address in rows.items() if address in found]

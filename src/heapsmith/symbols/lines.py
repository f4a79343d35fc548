"""Line numbers and inlined functions out of debug information, by the machine's own symbolizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from heapsmith.symbols.elf_symbols import demangle
from heapsmith.trace import Symbol

_TOOLS: Final = {
    "llvm-symbolizer": ("--output-style=GNU", "--addresses", "--inlines", "--functions=linkage", "--no-demangle"),
    "addr2line": ("--addresses", "--inlines", "--functions"),
}  # fmt: skip
_TIMEOUT_S: Final = 120.0


def find_tool() -> str | None:
    """Answer the symbolizer of this machine; None where it has none."""
    return next((path for name in _TOOLS if (path := shutil.which(name))), None)


def read_lines(
    path: Path, addresses: Sequence[int], timeout_s: float = _TIMEOUT_S
) -> dict[int, list[Symbol]]:
    """Look up where addresses are in the source.

    Args:
        path: A file with debug information.
        addresses: As linked.
        timeout_s: When to be content with what has been found.

    Returns:
        For each address that is known its places: inlined functions first, the function they are in last.
    """
    tool = find_tool()
    if tool is None or not addresses:
        return {}
    command = [tool, *_TOOLS[Path(tool).name], "-e", str(path)]
    # Names never wait for a server: what debuginfod has fetched before is found by its cache.
    environment = os.environ | {"DEBUGINFOD_URLS": ""}
    text = "".join(f"{address:#x}\n" for address in addresses)
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=timeout_s, env=environment, check=False
        )
    except OSError:
        return {}
    except subprocess.TimeoutExpired as late:
        return parse_lines((late.stdout or b"").decode(errors="replace"))
    return parse_lines(done.stdout.decode(errors="replace"))


def parse_lines(text: str) -> dict[int, list[Symbol]]:
    r"""Read what a symbolizer answers in GNU style: an address, then pairs of a function's and a place's line.

    Example:
        >>> parse_lines("0x10\nmain\n/src/a.c:7\n0x20\n??\n??:0\n")
        {16: [Symbol(function='main', file='/src/a.c', line=7)]}
    """
    found: dict[int, list[Symbol]] = {}
    address: int | None = None
    function: str | None = None
    for line in text.splitlines():
        if line.startswith("0x") and function is None:
            address = int(line, 16)
        elif address is None or not line:
            continue
        elif function is None:
            function = line
        else:
            file, _, number = line.partition(" (")[0].rpartition(":")
            if function != "??" or not file.startswith("??"):
                known_file = None if file.startswith("??") or not file else file
                known_line = int(number) if number.isdigit() and number != "0" else None
                found.setdefault(address, []).append(Symbol(demangle(function), known_file, known_line))
            function = None
    return {at: symbols for at, symbols in found.items() if any(s.function != "??" for s in symbols)}

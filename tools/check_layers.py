"""Hold the imports and includes of both trees against `layers.toml`; print each violation and fail if there is one.

python tools/check_layers.py
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_TREE = ROOT / "src" / "heapsmith"
NATIVE_TREE = PYTHON_TREE / "native"
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def imported_rooms(source: str, room: str) -> Iterator[str]:
    """Yield the top-level rooms of heapsmith that a module of ``room`` imports, wherever in the module it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "heapsmith" and len(parts) > 1 and parts[1] != room:
                yield parts[1]


def python_violations(layers: dict[str, int]) -> Iterator[str]:
    """Yield each import that does not point downwards, and each room that has no row."""
    for path in sorted(PYTHON_TREE.rglob("*.py")):
        relative = path.relative_to(PYTHON_TREE)
        room = relative.parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue  # the package's own face may show every room
        if room not in layers:
            yield f"{relative}: `{room}` has no row in layers.toml"
            continue
        for other in imported_rooms(path.read_text(), room):
            if other in layers and layers[other] >= layers[room]:
                yield f"{relative}: `{room}` (row {layers[room]}) imports `{other}` (row {layers[other]})"


def native_violations(layers: dict[str, int], programs: dict[str, list[str]]) -> Iterator[str]:
    """Yield each include that does not point downwards, and each folder that has no row."""
    for path in sorted(p for p in NATIVE_TREE.rglob("*") if p.suffix in {".h", ".cc", ".c", ".def"}):
        relative = path.relative_to(NATIVE_TREE)
        room = relative.parts[0]
        if room == "lib":
            continue
        if room not in layers and room not in programs:
            yield f"native/{relative}: `{room}` has no row in layers.toml"
            continue
        for include in _INCLUDE.findall(path.read_text()):
            other = include.split("/")[0] if "/" in include else room
            if other == room:
                continue
            if room in programs:
                if other not in programs[room]:
                    yield f"native/{relative}: program `{room}` includes `{include}`"
            elif other not in layers or layers[other] >= layers[room]:
                yield f"native/{relative}: `{room}` (row {layers[room]}) includes `{include}`"


def violations() -> list[str]:
    """Return every violation of the table, in both languages."""
    table = tomllib.loads((ROOT / "layers.toml").read_text())
    return [
        *python_violations(table["python"]),
        *native_violations(table["native"], table["native_programs"]),
    ]


if __name__ == "__main__":
    found = violations()
    print("\n".join(found) if found else "layers: every import and include points downwards")
    sys.exit(1 if found else 0)

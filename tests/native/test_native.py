"""The pieces of the probe as ordinary programs, under the compiler's sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from heapsmith.native import SOURCES
from watched import needs

HERE = Path(__file__).parent
PROBE = sorted(
    path
    for room in ("probe", "os")
    for path in (SOURCES / room).glob("*.cc")
    if path.name not in {"python.cc", "python_counted.cc"}  # they need an interpreter's names
)
# What records, and what reads it: both ends of the rings in one program.
RINGS = sorted(
    path
    for room in ("drain", "os", "record")
    for path in (SOURCES / room).glob("*.cc")
    if path.name not in {"entries.cc", "mappings.cc", "python.cc"}  # they need the exported names
)
SOURCES_OF = {
    "size_classes": [],
    "follow": [],
    "mappings": PROBE,
    "accounts": PROBE,
    "local_heap": [],
    "tide": [],
    "rings": RINGS,
    "passed_on": RINGS,
    "python_layout": [],
}
SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread",),
}


CASES = [
    *((name, "address") for name in SOURCES_OF),
    ("accounts", "thread"),
    ("rings", "thread"),
    ("passed_on", "thread"),
]


@pytest.mark.parametrize(("name", "sanitizer"), CASES)
def test_a_piece_of_the_probe_holds_under(name: str, sanitizer: str, tmp_path: Path) -> None:
    needs("g++")
    program = tmp_path / name
    built = subprocess.run(
        [
            *("g++", "-std=gnu++20", "-O1", "-g", "-pthread", "-Wall", "-Wextra", *SANITIZERS[sanitizer]),
            *("-I", str(SOURCES), "-I", str(HERE), "-o", str(program)),
            *(str(source) for source in (HERE / f"{name}.cc", *SOURCES_OF[name])),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip(f"the compiler has no sanitizer for {sanitizer}s")
    assert built.returncode == 0, built.stderr
    # The thread sanitizer's own memory has fixed places, which address randomisation may have taken.
    still = ["setarch", "-R"] if sanitizer == "thread" and shutil.which("setarch") else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEAPSMITH")}
    finished = subprocess.run([*still, program], capture_output=True, text=True, check=False, env=environment)
    assert finished.returncode == 0, finished.stderr[-3000:]

"""Under tools that have a heap of their own the heap steps aside, and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heapsmith.lab.subjects import resolve_subject

_SOURCE = (
    '#include <stdio.h>\n#include <stdlib.h>\nint main(void) { free(malloc(10)); puts("fine"); return 0; }\n'
)


def build(folder: Path, *flags: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc on this machine")
    (folder / "fine.c").write_text(_SOURCE)
    words = ["gcc", "-g", "-fno-builtin", *flags, str(folder / "fine.c"), "-o", str(folder / "fine")]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"this compiler knows no {' '.join(flags)}")
    return folder / "fine"


def run_on_default(*command: str) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        "-m",
        "heapsmith",
        "run",
        "--allocator",
        "default",
        "--no-summary",
        "--",
        *command,
    ]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_a_program_built_with_a_sanitizer_keeps_its_heap(tmp_path: Path, sanitizer: str) -> None:
    done = run_on_default(str(build(tmp_path, f"-fsanitize={sanitizer}")))
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert "keeps its own heap: it is built with a sanitizer" in done.stderr


def test_valgrind_keeps_its_heap(tmp_path: Path) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("there is no valgrind on this machine")
    program = str(build(tmp_path))
    done = run_on_default("valgrind", "-q", "--error-exitcode=9", program)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert "valgrind keeps its own heap" in done.stderr
    environment = {**os.environ, "LD_PRELOAD": str(resolve_subject("default").library)}
    by_hand = subprocess.run(
        ["valgrind", "-q", "--error-exitcode=9", program],
        env=environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (by_hand.returncode, by_hand.stdout) == (0, "fine\n"), by_hand.stderr
    said = [line for line in by_hand.stderr.splitlines() if line.startswith("heapsmith")]
    assert said == ["heapsmith: Valgrind has a heap of its own, which it looks into: this one stands aside"]

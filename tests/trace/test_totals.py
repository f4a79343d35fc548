"""On a program whose blocks are known, our totals are those of the program, of heaptrack and of memray."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from heapsmith.trace import open_trace
from heapsmith.trace.analysis import analyse
from recorded import record
from watched import needs

CPP = """
#include <cstdlib>
int main(int, char** words) {
  int const blocks = std::atoi(words[1]);
  void** kept = static_cast<void**>(std::calloc(blocks + 1, sizeof(void*)));
  for (int i = 0; i < blocks; i++) kept[i] = std::malloc(1000 + i % 7);
  for (int i = 0; i < blocks; i++) kept[i] = std::realloc(kept[i], 2000);
  for (int i = 0; i < blocks; i++) if (i % 4) std::free(kept[i]);
}
"""
PYTHON = """
import sys
blocks = [bytearray(100_000) for _ in range(int(sys.argv[1]))]
del blocks[: len(blocks) * 3 // 4]
"""


@dataclass(frozen=True)
class Totals:
    """Of one run."""

    allocations: float
    allocated_bytes: float
    peak_bytes: float
    left_bytes: float

    def __sub__(self, other: Totals) -> Totals:
        return Totals(
            self.allocations - other.allocations,
            self.allocated_bytes - other.allocated_bytes,
            self.peak_bytes - other.peak_bytes,
            self.left_bytes - other.left_bytes,
        )


def ours(folder: Path, *command: str | Path) -> Totals:
    path = folder / "ours.heap"
    record(path, *command, options=("--no-python-objects", "--force"))
    [[figures]] = analyse([open_trace(path)])
    return Totals(
        figures.allocations, figures.allocated_bytes, figures.live_bytes_peak, figures.live_bytes_at_end
    )


def heaptracks(folder: Path, *command: str | Path) -> Totals:
    out = folder / "heaptrack"
    for old in folder.glob("heaptrack.*"):
        old.unlink()
    subprocess.run(["heaptrack", "-o", out, *command], check=True, capture_output=True)
    [made] = folder.glob("heaptrack.*")
    said = subprocess.run(["heaptrack_print", "-f", made], check=True, capture_output=True, text=True).stdout

    def bytes_of(what: str) -> float:
        number, unit = re.findall(rf"^{what}: ([0-9.]+)([BKMG])", said, re.MULTILINE)[-1]
        return float(number) * {"B": 1, "K": 1e3, "M": 1e6, "G": 1e9}[unit]

    calls = float(re.findall(r"^calls to allocation functions: (\d+)", said, re.MULTILINE)[-1])
    return Totals(
        calls, float("nan"), bytes_of("peak heap memory consumption"), bytes_of("total memory leaked")
    )


def memrays(folder: Path, *words: str | Path) -> Totals:
    out, stats = folder / "memray.bin", folder / "memray.json"
    run = [sys.executable, "-m", "memray"]
    subprocess.run([*run, "run", "-f", "-q", "-o", out, *words], check=True, capture_output=True)
    subprocess.run([*run, "stats", "--json", "-f", "-o", stats, out], check=True, capture_output=True)
    said = json.loads(stats.read_text())
    return Totals(
        said["total_num_allocations"],
        said["total_bytes_allocated"],
        said["metadata"]["peak_memory"],
        float("nan"),
    )


@pytest.fixture
def cpp(tmp_path: Path) -> Path:
    needs("g++")
    (tmp_path / "known.cc").write_text(CPP)
    subprocess.run(
        ["g++", "-O1", "-g", "-fno-builtin", "-o", tmp_path / "known", tmp_path / "known.cc"], check=True
    )
    return tmp_path / "known"


def grown(run: Callable[..., Totals], folder: Path, *command: str | Path, blocks: int) -> Totals:
    """What the blocks add, so that what the start of the program takes does not matter."""
    return run(folder, *command, str(blocks)) - run(folder, *command, "0")


def test_of_a_program_in_c_they_are_the_programs_and_heaptracks(cpp: Path, tmp_path: Path) -> None:
    n = 70_000
    found = grown(ours, tmp_path, cpp, blocks=n)
    assert found.allocations == 2 * n
    assert found.allocated_bytes == 8 * n + 1003 * n + 2000 * n
    assert found.peak_bytes == 8 * n + 2000 * n
    assert found.left_bytes == 8 * n + 2000 * n // 4
    needs("heaptrack")
    needs("heaptrack_print")
    theirs = grown(heaptracks, tmp_path, cpp, blocks=n)
    assert theirs.allocations == found.allocations
    # It prints three or four digits.
    assert theirs.peak_bytes == pytest.approx(found.peak_bytes, rel=0.01)
    assert theirs.left_bytes == pytest.approx(found.left_bytes, rel=0.01)


def test_of_a_program_in_python_they_are_memrays(tmp_path: Path) -> None:
    pytest.importorskip("memray", reason="memray is not installed")
    (tmp_path / "known.py").write_text(PYTHON)
    # Few objects, large contents: memray counts CPython's arenas as allocations, and how many there are varies.
    n = 800
    found = grown(ours, tmp_path, sys.executable, tmp_path / "known.py", blocks=n)
    theirs = grown(memrays, tmp_path, tmp_path / "known.py", blocks=n)
    assert theirs.allocations == pytest.approx(found.allocations, abs=20)
    assert theirs.allocated_bytes == pytest.approx(found.allocated_bytes, rel=0.001)
    assert theirs.peak_bytes == pytest.approx(found.peak_bytes, rel=0.01)
    assert found.allocated_bytes == pytest.approx(n * 100_001, rel=0.001)

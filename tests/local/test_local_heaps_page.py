"""What docs/local-heaps.md shows, run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from heapsmith.forge import render_header
from heapsmith.spec import load_spec
from watched import needs

PAGE = (Path(__file__).parents[2] / "docs" / "local-heaps.md").read_text()


def shown(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return code


def test_the_python_of_the_page_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", shown("python")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_cpp_of_the_page_compiles_without_a_warning_and_runs(tmp_path: Path) -> None:
    needs("c++")
    (tmp_path / "heap.h").write_text(render_header(load_spec("default")))
    (tmp_path / "page.cc").write_text(shown("cpp"))
    words = [
        "c++",
        "-std=c++20",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        str(tmp_path / "page.cc"),
    ]
    built = subprocess.run(
        [*words, "-o", str(tmp_path / "page")], capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    assert subprocess.run([tmp_path / "page"], check=False).returncode == 0


def test_every_public_name_of_local_heaps_is_on_the_page() -> None:
    for name in (
        "LocalHeap",
        "Arena",
        "numpy_heap",
        "LocalAllocator",
        "LocalResource",
        "ArenaAllocator",
        "ClosedError",
    ):
        assert name in PAGE

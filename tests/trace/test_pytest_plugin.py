"""Tests are measured and held to their limits, by a pytest that starts itself under the watch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

kept = []

@pytest.mark.heap(limit="8MiB", leaks="1MiB")
def test_small():
    assert len(bytearray(1 << 20)) == 1 << 20

@pytest.mark.heap(limit="4MiB")
def test_too_high():
    bytearray(32 << 20)

@pytest.mark.heap(leaks="1MiB")
def test_leaking():
    kept.append(bytearray(3 << 20))

def test_unmarked():
    bytearray(16 << 20)
"""


WRONG = """
import pytest

@pytest.mark.heap(limit="much")
def test_much(): pass

@pytest.mark.heap(peak="1MiB")
def test_peak(): pass
"""


def run_pytest(folder: Path, *words: str, tests: str = TESTS) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(tests)
    environment = {
        name: value for name, value in os.environ.items()
        if name not in ("LD_PRELOAD", "HEAPSMITH_PYTEST", "HEAPSMITH_RUN") and not name.startswith("PYTEST")
    }  # fmt: skip
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugin = "heapsmith.pytest_plugin"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", "-q", "test_it.py", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_marked_tests_are_held_to_their_limits_without_any_option(tmp_path: Path) -> None:
    done = run_pytest(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 2 passed" in done.stdout
    assert "the test's live bytes rose by 32.0 MiB, its limit is 4.00 MiB" in done.stdout
    assert "the test left 3.0" in done.stdout
    assert done.stdout.count("2 failed") == 1  # one session's output, not that of the one before it


def test_the_option_shows_the_tests_by_peak(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--heap", "--heap-top", "3")
    table = done.stdout[done.stdout.index("= heap =") :]
    rows = [line for line in table.splitlines() if "test_it.py::" in line and "MiB" in line]
    assert [row.split("::")[1] for row in rows[:3]] == ["test_too_high", "test_unmarked", "test_leaking"]
    assert "1 more" in table
    assert rows[0].split()[:2] == ["32.0", "MiB"]


def test_a_marker_that_is_not_understood_fails_its_test_in_a_sentence(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, tests=WRONG)
    assert "2 failed" in done.stdout, done.stdout
    assert "'much' is not a number of bytes" in done.stdout
    assert 'write heap(limit="50MiB", leaks="1MiB")' in done.stdout
    assert "pytest_plugin.py" not in done.stdout


# The magic records the process that it is in: one that has not been recorded before, as a kernel is.
NOTEBOOK = """
import json, heapsmith

class Shell:
    def __init__(self):
        self.magics, self.user_ns = {}, {"size": 5 << 20}

    def register_magic_function(self, function, magic_kind, magic_name):
        self.magics[magic_kind, magic_name] = function

    def run_cell(self, cell):
        exec(compile(cell, "<cell>", "exec"), self.user_ns)

shell = Shell()
heapsmith.load_ipython_extension(shell)
magic = shell.magics["cell", "heap"]
first = magic("", "block = bytearray(size)\\nprint(len(block))\\n")
second = magic("--height 300", "more = bytearray(len(block) // 2)\\n")
print(json.dumps([first.text, first._repr_html_(), second.text, second._repr_html_(), magic("--nonsense", "1")]))
"""


def test_the_notebook_magic_records_a_cell_in_the_kernel_and_shows_its_report() -> None:
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=True)
    printed, said = done.stdout.splitlines()
    assert printed == f"{5 << 20}"
    first, first_page, second, second_page, nothing = json.loads(said)
    assert "5.00 MiB" in first.split("were still live at the end of the recording")[0]
    assert "<cell>:1" in first
    assert "2.50 MiB" in second.split("were still live at the end of the recording")[0]
    assert "<iframe srcdoc" in first_page
    assert "height='300'" in second_page
    assert nothing is None
    assert "--nonsense" in done.stderr

"""The example in the help of a verb runs as it is printed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from heapsmith.cli import VERBS, main

EXIT_CODES: Final = {"diff": (0,), "leaks": (0, 1), "doctor": (0, 1)}
LONG: Final = ("bench", "compare", "advise", "tune", "replay")
"""They measure: their own tests run them on less."""
SERVING: Final = ("live", "top")
"""They wait for somebody."""


def help_of(verb: str) -> str:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("COLUMNS", "400")
        assert main([verb, "--help"]) == 0
    return said.getvalue()


def example_of(verb: str) -> str:
    return re.findall(r"^Example: (.*)$", help_of(verb), re.MULTILINE)[-1].strip()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples run: what they keep in /tmp is kept here, and the recording that others read is made first."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "heapsmith").write_text(f'#!/bin/sh\nexec {sys.executable} -m heapsmith "$@"\n')
    (folder / "heapsmith").chmod(0o755)
    assert run_example("record", folder).returncode == 0
    return folder


def run_example(verb: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = example_of(verb).replace("/tmp/", f"{folder}/")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300
    )  # fmt: skip


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in (*LONG, *SERVING, "record")])
def test_the_example_of_a_verb_runs(verb: str, place: Path) -> None:
    done = run_example(verb, place)
    assert done.returncode in EXIT_CODES.get(verb, (0,)), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", (*LONG, *SERVING))
def test_the_other_examples_name_the_verb_and_options_that_exist(verb: str) -> None:
    line = example_of(verb)
    options = set(re.findall(r"(?<= )--?[a-z][a-z-]*", line.partition(" -- ")[0]))
    shown = help_of(verb)
    assert line.startswith(f"heapsmith {verb} ")
    assert {option for option in options if option not in shown} == set()

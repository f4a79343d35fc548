"""Whatever is asked for and wherever it goes: one line and an exit code, never a traceback, and valid JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ODD = os.fsdecode(b"a\xffb")


def heapsmith(
    *words: str, shell: str = '"$@"', environment: dict[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    finished = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "heapsmith", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | (environment or {}),
    )
    return finished.returncode, finished.stdout, finished.stderr


def test_bytes_that_are_no_text_pass_through_every_door(tmp_path: Path) -> None:
    document = tmp_path / "run.json"
    program = tmp_path / ODD
    program.symlink_to("/bin/sh")
    code, output, errors = heapsmith(
        *("run", "--json", str(document), "--", str(program), "-c", f"printf {ODD}; exit 3")
    )
    assert (code, output) == (3, b"a\xffb")
    told = json.loads(document.read_text())
    assert told["command"][-1] == "printf a\ufffdb; exit 3"
    assert told["processes"][0]["name"] == "a\ufffdb"
    assert errors.decode().startswith("heapsmith: ")


@pytest.mark.parametrize(
    "words", [(ODD,), ("run", "--", ODD), ("osmem", "trace", ODD), ("forge", f"{ODD}.toml")]
)
def test_a_name_that_is_no_text_is_refused_in_one_line(words: tuple[str, ...]) -> None:
    code, output, errors = heapsmith(*words)
    assert code in (2, 127)
    assert output == b""
    assert errors.decode().count("\n") == 1, errors
    assert "a\ufffdb" in errors.decode() or ascii(ODD) in errors.decode()


@pytest.mark.parametrize("verb", ["ps", "allocators"])
def test_an_output_that_cannot_be_written_is_said_in_one_line(verb: str) -> None:
    code, _, errors = heapsmith(verb, "--json", shell='"$@" >/dev/full')
    assert code == 2
    assert errors == b"heapsmith: the output could not be written: No space left on device\n"


def test_closed_streams_are_no_fault_of_the_program() -> None:
    assert heapsmith("ps", "--json", shell='"$@" >&-') == (0, b"", b"")
    code, output, _ = heapsmith("run", "--", "sh", "-c", "echo said; exit 5", shell='"$@" 2>&-')
    assert (code, output) == (5, b"said\n")


def test_a_terminal_that_knows_only_ascii_gets_signs_it_knows() -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    code, _, errors = heapsmith("run", "--", "sh", "-c", "ls / >/dev/null; exit 4", environment=ascii_only)
    assert code == 4
    assert b"<= " in errors
    assert b"\\u" not in errors
    assert errors.isascii()


def test_the_result_can_be_had_on_standard_output() -> None:
    code, output, errors = heapsmith(
        "run", "--no-summary", "--json", "-", "--", "sh", "-c", "echo first; exit 6"
    )
    first, _, document = output.partition(b"\n")
    assert (code, first, errors) == (6, b"first", b"")
    assert json.loads(document)["exit"]["code"] == 6
    code, _, errors = heapsmith("run", "--json", "--limit", "1GiB", "--", "true")
    assert code == 2
    assert errors.count(b"\n") == 1

# ruff: noqa: E501 (what a program prints, and C that is compiled, is quoted whole)
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import WRONG, build

from heapsmith.osmem.libraries import built_library

SCRIPT = "p = malloc 131040\nq = calloc 100 2\nfree q\nfree p\n"
EXPECTED = """\
os_malloc (['131040'])                                                                    = HeapStart + 0x18
  brk (['0'])                                                                             = HeapStart + 0x0
  brk (['HeapStart + 0x20000'])                                                           = HeapStart + 0x20000
os_calloc (['100', '2'])                                                                  = HeapStart + 0x20018
  brk (['HeapStart + 0x200e0'])                                                           = HeapStart + 0x200e0
os_free (['HeapStart + 0x20018'])                                                         = <void>
os_free (['HeapStart + 0x18'])                                                            = <void>
+++ exited (status 0) +++
"""


def heapsmith(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "heapsmith", "osmem", *map(str, arguments)]
    # Some tests change the directory, and the path to the package may be a relative one.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=120, env=environment
    )


@pytest.mark.parametrize("on", ["native", "model", "both"])
def test_a_trace_is_printed_as_the_courses_checker_prints_it(on: str) -> None:
    result = heapsmith("trace", "-", "--on", on, given=SCRIPT)
    assert (result.returncode, result.stdout) == (0, EXPECTED)


def test_mapped_blocks_are_numbered_in_the_order_of_mmap() -> None:
    script = "p = malloc 200000\nq = malloc 200000\nfree p\np = malloc 300000\nq = realloc q 10\n"
    lines = [" ".join(line.split()) for line in heapsmith("trace", "-", given=script).stdout.splitlines()]
    assert lines[1] == (
        "mmap (['0', '200024', 'PROT_READ | PROT_WRITE', 'MAP_PRIVATE | MAP_ANON', '-1', '0']) = <mapped-addr1> + 0x0"
    )
    assert "munmap (['<mapped-addr1> + 0x0', '200024']) = 0" in lines
    assert "os_malloc (['300000']) = <mapped-addr3> + 0x18" in lines
    assert "munmap (['<mapped-addr2> + 0x0', '200024']) = 0" in lines


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("p = malloc 10\nfree q", "2:6: the name 'q' is unknown (known here: p)"),
        ("p = malloc 10\nfree p\n  free p", "3:8: double free of p: it was freed on line 2"),
        ("free 0x1234", "1:6: 0x1234 is a foreign pointer: no call of this script has returned it"),
        (
            "p = malloc 10\nfree p+8",
            "2:6: p+8 is a foreign pointer: it points into the block of p, not to its start",
        ),
        (
            "p = malloc 10\nq = realloc p 20\nfree p",
            "3:6: p is not a live pointer any more: realloc took it on line 2",
        ),
        ("p = mallok 10", "1:5: 'mallok' is no call (malloc, calloc, realloc or free)"),
        ("p = calloc 10", "1:5: calloc takes 2 arguments, not 1 (write: calloc COUNT BYTES)"),
        ("p = malloc 1x0", "1:12: '1x0' is not a number of bytes (write 1000, 0x3e8 or 128KiB)"),
        ("p = malloc 18446744073709551616", "1:12: 18446744073709551616 does not fit a size_t"),
        ("p =", "1:1: nothing is assigned to p (for example: p = malloc 1000)"),
    ],
)
@pytest.mark.parametrize("verb", ["trace", "draw"])
def test_a_bad_script_is_refused_by_line_and_column(
    verb: str, script: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(script)
    output = tmp_path / "heap.html"
    result = heapsmith(verb, path, *(["-o", output] if verb == "draw" else []))
    assert result.returncode == 2
    assert result.stderr == f"heapsmith: {path}:{message}\n"
    assert result.stdout == ""
    assert not output.exists()


def test_a_trace_of_a_library_that_errs_is_a_difference_and_exit_code_1(tmp_path: Path) -> None:
    library = build(next(one for one in WRONG if one.name == "16-byte sizes"), tmp_path)
    result = heapsmith("trace", "-", "--lib", library, given="p = malloc 8\nq = malloc 8\n")
    assert result.returncode == 1
    assert "-os_malloc (['8'])" in result.stdout
    assert "+os_malloc (['8'])" in result.stdout


def test_json_is_one_document_and_nothing_else() -> None:
    trace = json.loads(heapsmith("trace", "-", "--json", given=SCRIPT).stdout)
    assert trace["schema"] == "heapsmith.osmem.trace/1"
    assert trace["trace"] == EXPECTED.splitlines()
    assert trace["steps"][0]["result"] - trace["heap_start"] == 24
    assert [call["name"] for call in trace["steps"][1]["system_calls"]] == ["brk"]
    check = json.loads(heapsmith("check", "--json", "free*").stdout)
    assert [one["verdict"] for one in check["checks"]] == ["pass"] * 3
    assert check["points"] == check["points_possible"] == 5
    study = json.loads(heapsmith("study", "--random", "50", "--json").stdout)
    assert study["results"][0]["name"] == "best fit"


def test_check_prints_a_line_with_points_for_each_scenario_and_a_total() -> None:
    result = heapsmith("check", "malloc-nothing", "free*")
    assert result.returncode == 0
    assert [line.split()[-1] for line in result.stdout.splitlines()[:-1]] == ["1/1", "1/1", "2/2", "2/2"]
    assert result.stdout.splitlines()[-1].endswith("4 of 4 ... 6/6 points")


def test_check_shows_the_difference_when_asked(tmp_path: Path) -> None:
    library = build(next(one for one in WRONG if one.name == "first fit"), tmp_path)
    quiet = heapsmith("check", "--lib", library, "best-fit-takes-the-smallest")
    verbose = heapsmith("check", "--lib", library, "best-fit-takes-the-smallest", "-v")
    assert quiet.returncode == verbose.returncode == 1
    assert "@@" not in quiet.stdout
    assert "+++ best-fit-takes-the-smallest.library" in verbose.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--lib", "SCRIPT"], "{script} is not a library: it is no ELF file (name a libosmem.so)"),
        (["check", "--lib", "absent.so"], "cannot read absent.so: No such file or directory (name a libosmem.so)"),
        (["check", "reallok"], "there is no scenario 'reallok' (heapsmith osmem check --list shows them)"),
        (["check", "malloc-nothing", "--random", "3"], "check runs either named scenarios or random programs: both were asked for"),
        (["check", "--random", "-1"], "cannot run -1 programs (for example: --random 1000)"),
        (["study"], "study needs one program: give a SCRIPT or --random N, not both and not neither"),
        (["study", "SCRIPT", "--random", "5"], "study needs one program: give a SCRIPT or --random N, not both and not neither"),
        (["study", "SCRIPT", "-o", "x.gif"], "cannot draw x.gif: .gif is no kind of picture (one of: .html, .svg, .png)"),
        (["draw", "SCRIPT", "-o", "x.gif"], "cannot draw x.gif: .gif is no kind of picture (one of: .html, .svg, .png)"),
        (["draw", "SCRIPT", "-o", "x.svg", "--steps", "3-9"], "there are no steps 3 to 9: {script} has 4"),
        (["draw", "SCRIPT", "-o", "x.svg", "--steps", "a-b"], "'a-b' is no range of steps (write 3-9, or 4)"),
        (["draw", "absent.txt", "-o", "x.svg"], "cannot read absent.txt: No such file or directory (name a script file, or -)"),
        (["build", "-o", "/no/such/place/x.so"], "cannot write /no/such/place/x.so: No such file or directory (name a file in a directory that you may write to)"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "script.txt"
    path.write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    result = heapsmith(*(str(path) if word == "SCRIPT" else word for word in arguments))
    assert (result.returncode, result.stderr) == (
        2,
        f"heapsmith: {message.replace('{script}', str(path))}\n",
    )


def test_check_names_the_layout_that_a_library_looks_like() -> None:
    result = heapsmith("check", "--lib", built_library("v2"))
    assert result.returncode == 2
    assert "looks like layout v2, not v1" in result.stderr
    assert result.stderr.count("\n") == 1
    assert heapsmith("check", "--lib", built_library("v2"), "--layout", "v2").returncode == 0


def test_build_makes_a_library_that_a_program_can_be_linked_with(tmp_path: Path) -> None:
    result = heapsmith("build", "-o", tmp_path / "libosmem.so", "--layout", "v2")
    assert result.returncode == 0
    program = '#include "osmem.h"\n#include <stdio.h>\nint main(void) { printf("%d", os_malloc(5) != NULL); return 0; }'
    flags = [f"-I{tmp_path}", f"-L{tmp_path}", "-losmem", f"-Wl,-rpath,{tmp_path}"]
    subprocess.run(
        ["cc", "-x", "c", "-", "-o", tmp_path / "a.out", *flags], input=program, text=True, check=True
    )
    assert subprocess.check_output([tmp_path / "a.out"]) == b"1"


def test_study_prints_a_table_and_draws_a_figure(tmp_path: Path) -> None:
    figure = tmp_path / "study.html"
    result = heapsmith("study", "--random", "200", "-o", figure)
    assert result.returncode == 0
    assert "worst fit, never coalesce" in result.stdout
    assert "system calls" in result.stdout
    assert "best fit, no split" in figure.read_text()

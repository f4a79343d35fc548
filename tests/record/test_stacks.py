"""Stacks are exact: native ones through every kind of frame, Python's with their lines, both in one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heapsmith.run.stacks import read_lines
from heapsmith.trace import FrameKind, Trace
from recorded import PROGRAMS, Recorded, record
from watched import counted_versions, interpreters, needs, versions_with_frames

Build = Callable[..., Path]
PYTHON_PROGRAM = PROGRAMS / "places.py"


def symbols_of(program: Path) -> list[tuple[int, int, str]]:
    """Address, size and name of each function of the program, sorted."""
    needs("nm")
    listed = subprocess.run(
        ["nm", "-C", "-S", "--defined-only", program], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
    return sorted(
        (int(row[0], 16), int(row[1], 16), row[3]) for row in rows if len(row) == 4 and row[2] in "tTW"
    )


def name_frame(trace: Trace, number: int, program: Path, symbols: list[tuple[int, int, str]]) -> str:
    frame = trace.frames[number]
    if frame["kind"] == FrameKind.PYTHON:
        file = (
            Path(trace.strings[int(frame["a"])]),
            Path(trace.strings[int(frame["b"])]).name,
            int(frame["c"]),
        )
        return f"{file[0]} ({file[1]}:{file[2]})"
    module = int(frame["a"])
    if module < len(trace.modules) and Path(trace.modules[module].path) == program:
        for address, size, name in symbols:
            if address <= int(frame["b"]) - 1 < address + size:  # what it returns to is behind the call
                return name
    return "?"


def stacks_by_size(made: Recorded, program: Path) -> dict[int, list[list[str]]]:
    """For each requested size from 40000 on, the stacks of its allocations, innermost frame first."""
    symbols = symbols_of(program) if program.suffix != ".py" else []
    found = dict[int, list[list[str]]]()
    for batch in made.events():
        for at in np.flatnonzero((batch.size_bytes >= 40000) & (batch.size_bytes < 40010)):
            names = list[str]()
            stack = int(batch.stack[at])
            while stack:
                node = made.trace.stacks[stack]
                names.append(name_frame(made.trace, int(node["frame"]), program, symbols))
                stack = int(node["parent"])
            found.setdefault(int(batch.size_bytes[at]), []).append(names)
    return found


@pytest.mark.parametrize(
    "flags", [(), ("-O2",), ("-fomit-frame-pointer", "-O2"), ("-fno-omit-frame-pointer", "-O0")]
)
def test_native_stacks_are_exact_through_every_kind_of_frame(
    built: Build, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    program = built("places.cc", *flags)
    made = record(tmp_path / "a.heap", program, options=("--stacks", "all"))
    stacks = stacks_by_size(made, program)

    def own(names: list[str]) -> list[str]:
        return [name for name in names if name != "?" and name != "_start"]

    assert [own(names) for names in stacks[40000]] == [["leaf", "main"]] * 3
    assert [own(names) for names in stacks[40001]] == [["leaf", "with_alloca", "main"]] * 3
    assert [own(names) for names in stacks[40002]] == [["leaf", "with_aligned", "main"]] * 3
    assert [own(names) for names in stacks[40003]] == [
        ["leaf", *["descend"] * (21 + round_), "main"] for round_ in range(3)
    ]
    assert [own(names) for names in stacks[40004]] == [["leaf", "compare", "main"]]
    assert stacks[40004][0].count("?") >= 2  # of the C library: qsort, and what calls main
    assert own(stacks[40005][0])[0] == "leaf"
    assert "main" not in stacks[40005][0]


# What is imported but compiled anew each time would be most of the recording.
def run_python(version: str, program: Path, path: Path, options: tuple[str, ...]) -> Recorded:
    return record(path, interpreters()[version], "-S", program, options=options)


@pytest.mark.parametrize("options", [("--stacks", "all"), ("--stacks", "sampled", "--sample-every", "1")])
@pytest.mark.parametrize("version", versions_with_frames())
def test_python_stacks_have_functions_and_lines(
    tmp_path: Path, version: str, options: tuple[str, ...]
) -> None:
    made = run_python(version, PYTHON_PROGRAM, tmp_path / "a.heap", options)
    lines = PYTHON_PROGRAM.read_text().splitlines()

    def line(text: str) -> int:
        return 1 + next(number for number, words in enumerate(lines) if text in words)

    stacks = {
        size: [[name for name in names if name != "?"] for names in found]
        for size, found in stacks_by_size(made, PYTHON_PROGRAM).items()
    }
    leaf = f"leaf (places.py:{line('return bytes')})"

    def module(text: str) -> str:
        return f"<module> (places.py:{line(text)})"

    by_extra = {size - 40001: found[0] for size, found in stacks.items()}
    assert by_extra[0] == [leaf, module("    leaf(0)")]
    assert by_extra[1] == [leaf, f"generator (places.py:{line('yield')})", module("for _ in generator")]
    assert by_extra[2][:2] == [leaf, f"coroutine (places.py:{line('    leaf(2)')})"]
    assert by_extra[2][-1] == module("asyncio.run")
    assert by_extra[3] == [leaf, f"Compared.__lt__ (places.py:{line('        leaf(3)')})", module("sorted(")]
    deep = f"deep (places.py:{line('return deep')})"
    assert by_extra[4] == [leaf, *[deep] * 31, module("deep(30)")]
    assert by_extra[5][0] == leaf
    assert by_extra[5][1].startswith("Thread.run (threading.py")
    assert by_extra[6] == [leaf, f"Ünïcode.größe (places.py:{line('return leaf(6)')})", module("größe()")]


def notes_of(made: Recorded) -> list[str]:
    return [note for process in made.trace.processes for note in process.notes]


def test_a_report_says_which_interpreter_is_not_understood(tmp_path: Path) -> None:
    older = [key for key in interpreters() if key not in counted_versions()]
    if not older:
        pytest.skip("every CPython of this machine is 3.11 or newer")
    program = ("-c", "print(len([bytes(50_000) for _ in range(5)]))")
    made = record(tmp_path / "a.heap", interpreters()[older[0]], *program, options=("--stacks", "all"))
    assert (made.code, made.output) == (0, "5\n")
    assert [note.partition(": ")[2] for note in notes_of(made)] == [
        "only those of CPython 3.11 to 3.15 can be"
    ] * 2
    assert not (made.trace.frames["kind"] == FrameKind.PYTHON).any()
    text = subprocess.run(
        [sys.executable, "-m", "heapsmith", "report", tmp_path / "a.heap", "--format", "text"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "no stack has frames of this CPython" in " ".join(text.split())


def test_a_report_says_why_objects_are_not_recorded(tmp_path: Path) -> None:
    made = record(
        tmp_path / "a.heap",
        *(sys.executable, "-c", ""),
        options=("--stacks", "all"),
        environment={"PYTHONMALLOC": "malloc"},
    )
    (note,) = notes_of(made)
    assert note.startswith(
        f"the objects of CPython {'.'.join(map(str, sys.version_info[:3]))} are not recorded"
    )
    assert "PYTHONMALLOC" in note


def python_frames(trace: Trace, stack: int) -> list[tuple[str, int]]:
    """Names and lines, innermost first."""
    found = list[tuple[str, int]]()
    while stack:
        node = trace.stacks[stack]
        frame = trace.frames[int(node["frame"])]
        if frame["kind"] == FrameKind.PYTHON:
            found.append((trace.strings[int(frame["a"])], int(frame["c"])))
        stack = int(node["parent"])
    return found


@pytest.mark.parametrize("version", versions_with_frames())
def test_a_python_stack_is_never_taken_for_one_that_was_there_before(tmp_path: Path, version: str) -> None:
    made = run_python(version, PROGRAMS / "wanders.py", tmp_path / "a.heap", ("--stacks", "all"))
    places = [[(name, line) for name, line in place] for place in json.loads(made.output)]
    found = dict[int, list[tuple[str, int]]]()
    for batch in made.events():
        for at in np.flatnonzero((batch.size_bytes > 40000) & (batch.size_bytes <= 40000 + len(places))):
            found[int(batch.size_bytes[at]) - 40001] = python_frames(made.trace, int(batch.stack[at]))
    assert len(found) == len(places) >= 2000
    for number, place in enumerate(places):
        assert found[number][0][0] == "leaf"
        assert found[number][1:] == place, number


@pytest.mark.parametrize("version", versions_with_frames())
def test_native_frames_surround_pythons_where_they_were(tmp_path: Path, version: str) -> None:
    made = run_python(version, PYTHON_PROGRAM, tmp_path / "a.heap", ("--stacks", "all"))
    names = stacks_by_size(made, PYTHON_PROGRAM)[40004][0]
    kinds = "".join("n" if name == "?" else "p" for name in names)
    # malloc's callers, the method, sorted() in C, the module, what started the interpreter.
    assert kinds.strip("n").replace("n", " ").split() == ["pp", "p"]
    assert kinds.startswith("n")
    assert kinds.endswith("n")


def test_samples_are_as_many_as_the_bytes_say(built: Build, tmp_path: Path) -> None:
    made = record(
        tmp_path / "a.heap",
        built("many_threads.c"),
        "800",
        options=("--stacks", "sampled", "--sample-every", "64KiB"),
    )
    sizes = np.concatenate([batch.size_bytes[batch.born >= 0] for batch in made.events()]).astype(float)
    mean = 64 * 1024
    estimate = float(np.sum(sizes / -np.expm1(-sizes / mean)))
    allocated = 800 * sum(3000 + at for at in range(50))
    assert made.trace.manifest.sample_every_bytes == mean
    # About 1800 samples: five standard deviations.
    assert abs(estimate - allocated) < 5 * (mean * allocated) ** 0.5
    died = sum(int(np.count_nonzero(batch.died >= 0)) for batch in made.events())
    unknown = sum(int(np.count_nonzero(batch.died == -2)) for batch in made.events())
    assert unknown == 0
    assert len(sizes) - died < 200  # what is live at the end was allocated by the last eight


def test_lines_are_those_that_the_interpreter_says() -> None:
    todo = [compile(path.read_text(), path.name, "exec") for path in (PYTHON_PROGRAM, Path(__file__))]
    checked = Counter[str]()
    while todo:
        code = todo.pop()
        todo += [constant for constant in code.co_consts if hasattr(constant, "co_linetable")]
        rows = read_lines(code.co_linetable, code.co_firstlineno)
        for start, _, line in code.co_lines():
            own = next(own for end, own in rows if start < end)
            assert own == line
            checked[code.co_name] += 1
    assert len(checked) > 20

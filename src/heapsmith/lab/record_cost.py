"""What recording costs the program: unrecorded, recorded by heapsmith in each way, and by the profilers that are here.

All ways of one program run in turn, in a random order each round. The program says itself what it used (its processor time,
its wall clock, its resident peak), so that start-up of the tools and their own processes are left out; the wall clock holds
what it waited for them.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.errors import CheckError
from heapsmith.lab.statistics import Spread, compute_spread
from heapsmith.trace import open_trace

_WORKLOADS: Final = Path(__file__).resolve().parent / "workloads"
_TIMEOUT_S: Final = 300.0
UNRECORDED: Final = "unrecorded"


@dataclass(frozen=True)
class Program:
    """A program to record.

    Args:
        name: On the command line.
        title: What it does, in a few words.
        source: Its file among the workloads.
        arguments: How much it does.
    """

    name: str
    title: str
    source: str
    arguments: tuple[str, ...] = ()

    @property
    def is_python(self) -> bool:
        """Whether it is a script."""
        return self.source.endswith(".py")


PROGRAMS: Final = (
    Program("loop", "C++, one thread, 16 to 1024 bytes", "one_thread.cc"),
    Program("exchange", "C++, four threads, each other's blocks", "exchange.cc"),
    Program("rows", "Python, JSON and dictionaries", "rows.py"),
    Program("objects", "Python, small objects, deep", "objects.py"),
)


class RecordCase(msgspec.Struct, frozen=True):
    """One way of recording one program; ratios are to the unrecorded program of the same round."""

    program: str
    way: str
    processor_ratio: Spread
    wall_ratio: Spread
    resident_ratio: Spread
    file_bytes: int | None
    events: int | None


@dataclass(frozen=True)
class _Way:
    name: str
    command: Callable[[list[str], Path], list[str]]
    file: str = ""


def _heapsmith(*options: str) -> Callable[[list[str], Path], list[str]]:
    return lambda command, folder: [
        *(sys.executable, "-m", "heapsmith", "record", "--force", "-o", str(folder / "trace.heap")),
        *(*options, "--", *command),
    ]


def _memray(*options: str) -> Callable[[list[str], Path], list[str]]:
    return lambda command, folder: [
        *(
            command[0],
            "-m",
            "memray",
            "run",
            "-q",
            "-f",
            *options,
            "-o",
            str(folder / "memray.bin"),
            *command[1:],
        )
    ]


def _ways(program: Program) -> list[_Way]:
    ways = [
        _Way(UNRECORDED, lambda command, _: command),
        _Way("heapsmith, every event", _heapsmith(), "trace.heap"),
        _Way("heapsmith, sampled stacks", _heapsmith("--stacks", "sampled"), "trace.heap"),
        _Way("heapsmith, every stack", _heapsmith("--stacks", "all"), "trace.heap"),
    ]
    if program.is_python:
        ways.append(_Way("heapsmith, malloc alone", _heapsmith("--no-python-objects"), "trace.heap"))
        if importlib.util.find_spec("memray") is not None:
            ways.append(_Way("memray", _memray(), "memray.bin"))
            ways.append(_Way("memray, native", _memray("--native"), "memray.bin"))
            ways.append(_Way("memray, python allocators", _memray("--trace-python-allocators"), "memray.bin"))
    if heaptrack := shutil.which("heaptrack"):
        ways.append(
            _Way(
                "heaptrack",
                lambda command, folder: [heaptrack, "-o", str(folder / "heaptrack"), *command],
                "heaptrack.*",
            )
        )
    return ways


def _prepare(program: Program, folder: Path) -> list[str]:
    source = _WORKLOADS / program.source
    if program.is_python:
        return [sys.executable, str(_WORKLOADS / "usage.py"), str(source), *program.arguments]
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        raise CheckError(f"{program.name} cannot be built", "there is no C++ compiler")
    built = folder / program.name
    command = [
        compiler,
        "-O2",
        "-g",
        "-std=c++20",
        "-pthread",
        "-include",
        str(_WORKLOADS / "usage.h"),
        str(source),
    ]
    done = subprocess.run([*command, "-o", str(built)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"{source} cannot be compiled", done.stderr.strip().splitlines()[-1])
    return [str(built), *program.arguments]


@dataclass(frozen=True)
class _Used:
    processor_s: float
    wall_s: float
    resident_bytes: float
    file_bytes: int | None
    events: int | None


def _run(way: _Way, command: list[str], folder: Path) -> _Used:
    for old in [*folder.glob(way.file or "no file"), folder / "usage"]:
        old.unlink(missing_ok=True)
    done = subprocess.run(
        way.command(command, folder),
        env=os.environ | {"HEAPSMITH_USAGE": str(folder / "usage")},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode or not (folder / "usage").exists():
        code = done.returncode
        raise CheckError(f"{way.name}: {Path(command[0]).name} failed ({code})", done.stderr.strip()[-300:])
    processor_s, wall_s, resident_bytes = map(float, (folder / "usage").read_text().split())
    files = list(folder.glob(way.file)) if way.file else []
    events = open_trace(files[0]).events if way.file == "trace.heap" and files else None
    return _Used(
        processor_s,
        wall_s,
        resident_bytes,
        sum(file.stat().st_size for file in files) if files else None,
        events,
    )


def measure_record_cost(
    names: Sequence[str],
    runs: int,
    on_case: Callable[[RecordCase], None] = lambda _: None,
    on_run: Callable[[str], None] = lambda _: None,
) -> list[RecordCase]:
    """Measure what recording costs.

    Args:
        names: Programs; empty for all.
        runs: Rounds.
        on_case: Told of each finished case.
        on_run: Told what runs now.

    Raises:
        CheckError: There is no such program, or it failed.
    """
    known = {program.name: program for program in PROGRAMS}
    if unknown := [name for name in names if name not in known]:
        raise CheckError(f"there is no program {unknown[0]!r}", hint="there are " + ", ".join(known))
    cases = list[RecordCase]()
    for program in [known[name] for name in names] or PROGRAMS:
        with tempfile.TemporaryDirectory(prefix="heapsmith-bench-") as name:
            folder = Path(name)
            command = _prepare(program, folder)
            ways = _ways(program)
            used: dict[str, list[_Used]] = {way.name: [] for way in ways}
            for round_ in range(runs):
                for way in random.sample(ways, len(ways)):
                    on_run(f"{program.title}: {way.name} ({round_ + 1} of {runs})")
                    used[way.name].append(_run(way, command, folder))
        for way in ways[1:]:
            case = _compare(program, way.name, used[UNRECORDED], used[way.name])
            cases.append(case)
            on_case(case)
    return cases


def _compare(program: Program, way: str, before: list[_Used], after: list[_Used]) -> RecordCase:
    pairs = list(zip(before, after, strict=True))
    return RecordCase(
        program=program.name,
        way=way,
        processor_ratio=compute_spread([b.processor_s / a.processor_s for a, b in pairs]),
        wall_ratio=compute_spread([b.wall_s / a.wall_s for a, b in pairs]),
        resident_ratio=compute_spread([b.resident_bytes / a.resident_bytes for a, b in pairs]),
        file_bytes=after[-1].file_bytes,
        events=after[-1].events,
    )

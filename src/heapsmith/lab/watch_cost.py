"""What watching costs: the same program unwatched and watched, in turn, from outside.

The workloads are of the kinds that the field measures profilers with: a bare malloc loop (the worst case), threads that
free each other's blocks, object-heavy Python, and programs that people run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heapsmith.errors import CheckError
from heapsmith.lab.compare import Laboratory, compare
from heapsmith.lab.comparison import Comparison
from heapsmith.lab.ledger import Ledger
from heapsmith.lab.rehearsal import rehearse
from heapsmith.lab.trials import Outcome, Workload
from heapsmith.native import library
from heapsmith.peers.candidate import Candidate, as_it_is
from heapsmith.run.launch import WATCH_LIBRARY

_WORKLOADS: Final = Path(__file__).resolve().parent / "workloads"
_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class Subject:
    """A program to watch.

    Args:
        name: What it is called on the command line.
        title: What it does, in a few words.
        commands: Makes its command, given a folder for what has to be built; None where this machine lacks something.
        missing: What is lacking then.
    """

    name: str
    title: str
    commands: Callable[[Path], list[str] | None]
    missing: str = ""


def _compiled(source: str, *arguments: str) -> Callable[[Path], list[str] | None]:
    def make(folder: Path) -> list[str] | None:
        compiler = os.environ.get("CXX") or shutil.which("c++")
        if compiler is None:
            return None
        program = folder / Path(source).stem
        command = [compiler, "-O2", "-std=c++20", "-pthread", str(_WORKLOADS / source), "-o", str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CheckError(
                f"{source} cannot be compiled", done.stderr.splitlines()[0] if done.stderr else ""
            )
        return [str(program), *arguments]

    return make


def _python(script: str, *arguments: str) -> Callable[[Path], list[str] | None]:
    return lambda _: [sys.executable, "-I", str(_WORKLOADS / script), *arguments]


def _large_source(folder: Path) -> list[str] | None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    source = folder / "large.cc"
    headers = (
        "regex",
        "map",
        "unordered_map",
        "functional",
        "algorithm",
        "random",
        "variant",
        "future",
        "filesystem",
    )
    source.write_text("".join(f"#include <{name}>\n" for name in headers) + "int main() { return 0; }\n")
    return [compiler, "-std=c++20", "-O1", "-c", str(source), "-o", str(folder / "large.o")]


SUBJECTS: Final = (
    Subject("loop", "one thread, 16 to 1024 bytes", _compiled("one_thread.cc"), "a C++ compiler"),
    Subject("exchange", "four threads, each other's blocks", _compiled("exchange.cc"), "a C++ compiler"),
    Subject("rows", "Python, JSON and dictionaries", _python("rows.py")),
    Subject("objects", "Python, small objects, deep", _python("objects.py")),
    Subject("server", "Python, a web service and clients", _python("server.py")),
    Subject("gcc", "g++ compiling a large file", _large_source, "g++"),
)


@contextmanager
def prepared(subject: Subject) -> Generator[list[str] | None]:
    """Build what a subject needs and give its command; None where this machine lacks something."""
    with tempfile.TemporaryDirectory(prefix="heapsmith-bench-") as folder:
        yield subject.commands(Path(folder))


def measure(
    command: list[str], runs: int, progress: Callable[[Outcome], None] = lambda _: None
) -> Comparison:
    """Run a command unwatched and watched, interleaved in random order.

    Args:
        command: The program and its arguments.
        runs: How often each.
        progress: Told of every run.

    Returns:
        The comparison; its second result is the watched program, with ratios to the unwatched one.

    Raises:
        CheckError: It failed when watched.
    """
    workload = Workload(
        command=tuple(command), directory=str(Path.cwd()), environment=dict(os.environ), timeout_s=_TIMEOUT_S
    )
    watched = Candidate(label="watched", allocator="watched", library=str(library(WATCH_LIBRARY)))
    with tempfile.TemporaryDirectory(prefix="heapsmith-bench-") as folder:
        laboratory = Laboratory(
            workload, rehearse(workload), Ledger(workload, folder=Path(folder)), progress=progress
        )
        comparison = compare(laboratory, [as_it_is(), watched], runs)
    if failed := comparison.results[1].failed:
        raise CheckError(f"{' '.join(command)} failed when watched", failed)
    return comparison

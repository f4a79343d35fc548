"""What a benchmark runs: suites of workloads, each a command that prints one row of figures."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from heapsmith.errors import CheckError
from heapsmith.lab.subjects import Subject
from heapsmith.native import library
from heapsmith.peers.preload import preload_words

SUITES: Final = {
    "local": ("local",),
    "locality": ("locality",),
    "threads": ("threads",),
    "memory": ("memory",),
    "field": (
        "pair-64", "pair-8k", "pair-40k", "loop", "batches", "churn", "fill", "trees",
        "server", "producers", "brief-threads", "mixed", "temporaries", "large", "growth",
    ),
    "real": ("redis", "gcc", "sqlite", "rows", "objects", "numpy-800k", "numpy-8m", "numpy-64m"),
    "spike": ("spike",),
    "startup": ("startup",),
}  # fmt: skip
"""Workloads by suite. The first four are those that metamalloc publishes."""
QUICK: Final = ("local", "threads", "loop", "churn", "server", "producers", "large", "numpy-8m", "startup")
"""Of every kind one, for a minute between two changes."""
_MADE_FOR: Final = {"local": "local.toml", "threads": "threads.toml", "memory": "memory.toml"}
_SCRIPTS: Final = Path(__file__).resolve().parent / "workloads"
_SPECS: Final = _SCRIPTS / "specs"


@dataclass(frozen=True)
class Command:
    """A command that prints one row of figures, and its environment."""

    words: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True)
class Job:
    """A workload that is no part of the program of native ones.

    Args:
        name: What it is called on the command line.
        promise: What it does, in a few words.
        command: Makes its command for an allocator.
        needs: Programs and Python packages it needs, of which one may be missing here.
    """

    name: str
    promise: str
    command: Callable[[Subject], Command]
    needs: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Return what this machine lacks for it, or None.

        Example:
            >>> Job("x", "", lambda subject: Command((), {}), needs=("no-such-program",)).missing()
            'no-such-program'
        """
        return next((name for name in self.needs if shutil.which(name) is None), None)


def _python(
    script: str, *arguments: str, python_malloc: str | None = "malloc"
) -> Callable[[Subject], Command]:
    def make(subject: Subject) -> Command:
        environment = subject.environment()
        if python_malloc:
            environment["PYTHONMALLOC"] = python_malloc
        return Command((sys.executable, str(_SCRIPTS / script), *arguments), environment)

    return make


def _program(*words: str, **variables: str) -> Callable[[Subject], Command]:
    return lambda subject: Command(
        (str(library("workloads")), "--run", _preloaded(subject), *words),
        _plain_environment(subject) | variables,
    )


def _rows(script: str, rounds: int) -> Callable[[Subject], Command]:
    return _program(sys.executable, str(_SCRIPTS / script), str(rounds), PYTHONMALLOC="malloc")


def _redis(subject: Subject) -> Command:
    words = (
        sys.executable,
        str(_SCRIPTS / "redis.py"),
        str(library("workloads")),
        str(subject.library or ""),
    )
    return Command(words, _plain_environment(subject))


def _starts(subject: Subject) -> Command:
    return Command(
        (str(library("workloads")), "--start", _preloaded(subject), "200"), _plain_environment(subject)
    )


def _plain_environment(subject: Subject) -> dict[str, str]:
    """Of a launcher, which preloads the library into its child alone."""
    return {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"} | subject.variables


def _preloaded(subject: Subject) -> str:
    return ":".join(preload_words(subject.library)) if subject.library else ""


_JOBS: Final = {
    job.name: job
    for job in (
        Job(
            "redis", "redis-server under pushes, 16 in a pipeline", _redis,
            needs=("redis-server", "redis-benchmark", "redis-cli"),
        ),
        Job(
            "gcc", "g++ -O1 on headers of the standard library",
            _program("g++", "-O1", "-w", "-S", "-o", "/dev/null", str(_SCRIPTS / "headers.cc")), needs=("g++",),
        ),
        Job(
            "sqlite", "sqlite3 in memory: fill, index, join, update",
            _program("sqlite3", ":memory:", f".read {_SCRIPTS / 'queries.sql'}"), needs=("sqlite3",),
        ),
        Job("rows", "Python under PYTHONMALLOC=malloc: JSON and dictionaries", _rows("rows.py", 15)),
        Job("objects", "Python under PYTHONMALLOC=malloc: small objects, deep", _rows("objects.py", 400)),
        Job("numpy-800k", "NumPy: a*b + c*b - a, arrays of 800 KB", _python("arrays.py", "800000", "300")),
        Job("numpy-8m", "NumPy: a*b + c*b - a, arrays of 8 MB", _python("arrays.py", "8000000", "30")),
        Job("numpy-64m", "NumPy: a*b + c*b - a, arrays of 64 MB", _python("arrays.py", "64000000", "4")),
        Job("spike", "a threaded Python service; afterwards: 2 s after its spike", _python("spike.py")),
        Job("startup", "a process that does nothing", _starts),
    )
}  # fmt: skip


@cache
def workload_promises() -> dict[str, str]:
    """Return what each workload does, by name.

    Example:
        >>> workload_promises()["pair-64"]
        'one block of 64 bytes, allocated and freed'
    """
    output = subprocess.run(
        [library("workloads"), "--list"], capture_output=True, text=True, check=True
    ).stdout
    native = dict(line.split("\t", 1) for line in output.splitlines())
    return native | {job.name: job.promise for job in _JOBS.values()}


def select_workloads(names: Sequence[str], *, quick: bool = False) -> dict[str, list[str]]:
    """Choose workloads by name or by suite.

    Args:
        names: Names of either; none for all, ``heap`` and ``all`` for all, too.
        quick: Only some of them.

    Returns:
        Names by suite.

    Raises:
        CheckError: A name that is neither.

    Example:
        >>> select_workloads(["threads", "large"])
        {'threads': ['threads'], 'field': ['large']}
        >>> sum(len(cases) for cases in select_workloads([], quick=True).values()) == len(QUICK)
        True
    """
    known = [*SUITES, *(name for suite in SUITES.values() for name in suite), "all"]
    names = [name for name in names if name != "all"]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(dict.fromkeys(known))}"
            raise CheckError(f"there is no workload {name!r}", hint=hint)
    chosen = {
        suite: [
            name
            for name in cases
            if (not names or suite in names or name in names)
            and (not quick or name in QUICK or name in names)
        ]
        for suite, cases in SUITES.items()
    }
    return {suite: cases for suite, cases in chosen.items() if cases}


def missing_for(name: str) -> str | None:
    """Return what this machine lacks for a workload, or None.

    Example:
        >>> missing_for("loop") is None
        True
    """
    return _JOBS[name].missing() if name in _JOBS else None


def command_for(name: str, subject: Subject) -> Command:
    """Make the command of a workload on an allocator.

    Example:
        >>> command_for("loop", Subject("system", None)).words[1:]
        ('loop', '1')
    """
    if name in _JOBS:
        return _JOBS[name].command(subject)
    return Command((str(library("workloads")), name, "1"), subject.environment())


def spec_made_for(suite: str) -> Path | None:
    """Return the spec of a heap that was made for a suite from its own sizes, or None.

    Example:
        >>> spec_made_for("local").name
        'local.toml'
    """
    return _SPECS / _MADE_FOR[suite] if suite in _MADE_FOR else None

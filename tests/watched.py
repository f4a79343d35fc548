"""What the tests of watched programs share: programs compiled from their sources, and programs watched."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heapsmith.native import library
from heapsmith.run.directory import RunDirectory, create_run_directory
from heapsmith.run.values import Process
from heapsmith.run.watch import Watcher
from heapsmith.wire.region import RUN_VARIABLE

PROGRAMS = Path(__file__).parent / "system" / "programs"
_COMPILERS = {".c": "gcc", ".cc": "g++"}
_FLAGS = {
    ".c": ("-std=gnu17", "-O1", "-fno-builtin", "-pthread", "-Wall"),
    ".cc": ("-std=c++20", "-O1", "-fno-builtin", "-pthread", "-Wall"),
}


def needs(*commands: str) -> None:
    """Skip a test, with the reason, where a command is missing."""
    for command in commands:
        if shutil.which(command) is None:
            pytest.skip(f"there is no {command} on this machine")


@functools.cache
def interpreters() -> dict[str, Path]:
    """The CPythons of this machine by version: the one that runs the tests, the system's, those of the path, pyenv's.

    HEAPSMITH_TEST_PYTHONS may name more of them, separated by colons.
    """
    on_path = (shutil.which(f"python3.{minor}") for minor in range(11, 16))
    candidates = [sys.executable, "/usr/bin/python3", "/usr/local/bin/python3", *filter(None, on_path)]
    candidates += sorted(map(str, Path.home().glob(".pyenv/versions/*/bin/python3")))
    candidates += filter(None, os.environ.get("HEAPSMITH_TEST_PYTHONS", "").split(":"))
    code = "import sys; print(sys.implementation.name, *sys.version_info[:2], sys.base_prefix, sys.executable, sep='\\n')"
    found = dict[str, Path]()
    for candidate in filter(os.path.exists, candidates):
        said = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if said.returncode == 0:  # a shim of pyenv may lead nowhere
            name, major, minor, prefix, executable = said.stdout.splitlines()
            if name == "cpython":
                found.setdefault(
                    f"{major}.{minor}-{'system' if prefix == '/usr' else 'own'}", Path(executable)
                )
    return found


def counted_versions() -> list[str]:
    """Those whose objects and frames can be seen."""
    return [key for key in interpreters() if tuple(map(int, key.split("-")[0].split("."))) >= (3, 11)]


def versions_with_frames() -> list[Any]:
    """Those whose frames can be read, as parameters; skipped where this machine has none."""
    found = counted_versions()
    missing = [minor for minor in range(11, 16) if not any(key.startswith(f"3.{minor}-") for key in found)]
    return found + [
        pytest.param(f"3.{minor}", marks=pytest.mark.skip(f"there is no CPython 3.{minor} on this machine"))
        for minor in missing
    ]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile a program of tests/system/programs; the same for all workers of a test run."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    place = shared / "programs"
    place.mkdir(exist_ok=True)

    def compile_program(source: str, *flags: str, compiler: str | None = None, name: str = "") -> Path:
        path = PROGRAMS / source
        using = compiler or _COMPILERS[path.suffix]
        needs(using)
        command = [using, *_FLAGS[path.suffix], *flags]
        if compiler == "musl-gcc":
            command = [using, "-O1", "-fno-builtin", *flags]
        text = path.read_bytes() + (PROGRAMS / "tally.h").read_bytes() + " ".join(command).encode()
        finished = place / f"{name or path.stem}-{hashlib.sha1(text).hexdigest()[:12]}"
        if not finished.exists():
            trial = finished.with_suffix(f".{os.getpid()}")
            subprocess.run([*command, str(path), "-o", str(trial)], check=True)
            trial.replace(finished)
        return finished

    return compile_program


@dataclass
class Watched:
    """A program that has run under watch: what it said, and every process image that was seen."""

    output: str
    errors: str
    code: int
    processes: list[Process] = field(default_factory=list[Process])

    @property
    def first(self) -> Process:
        """The last image of the process that was started."""
        pid = self.processes[0].pid
        return [process for process in self.processes if process.pid == pid][-1]

    def told(self) -> dict[str, Any]:
        """The JSON document that the program printed."""
        return json.loads(self.output)


def preloaded(directory: RunDirectory, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a program under watch."""
    environment = os.environ | dict(extra or {})
    after = f":{environment['LD_PRELOAD']}" if environment.get("LD_PRELOAD") else ""
    own = str(library("libheapsmith_watch.so"))
    return environment | {"LD_PRELOAD": own + after, RUN_VARIABLE: str(directory.path)}


@contextlib.contextmanager
def run_directory(*, limit: int = 0, warn_at: int = 0, python_objects: bool = True) -> Iterator[RunDirectory]:
    """A run directory that goes with the test."""
    directory = create_run_directory()
    directory.write_launch_block(python_objects=python_objects, limit_bytes=limit, warn_at_bytes=warn_at)
    try:
        yield directory
    finally:
        directory.remove()


@pytest.fixture
def watch() -> Callable[..., Watched]:
    """Run a program under watch to its end, without the launcher: fast, and nothing but the probe at work."""

    def run(
        command: Sequence[str | Path],
        *,
        limit: int = 0,
        warn_at: int = 0,
        python_objects: bool = True,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 60,
        **options: Any,
    ) -> Watched:
        with run_directory(limit=limit, warn_at=warn_at, python_objects=python_objects) as directory:
            started = subprocess.Popen(
                [str(word) for word in command],
                env=preloaded(directory, environment),
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=options.pop("stdout", subprocess.PIPE),
                stderr=options.pop("stderr", subprocess.PIPE),
                text=True,
                **options,
            )
            try:
                output, errors = started.communicate(timeout=timeout_s)
            finally:
                started.kill()
                started.wait()
            with contextlib.closing(Watcher(directory.path)) as watcher:
                found = watcher.poll()
            found.sort(key=lambda process: (process.pid != started.pid, process.pid, process.image))
        return Watched(output or "", errors or "", started.returncode, found)

    return run


@pytest.fixture
def heapsmith(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a person would."""

    def run(*words: str | Path, timeout_s: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "heapsmith", *map(str, words)]
        defaults: dict[str, Any] = {
            "capture_output": True,
            "text": True,
            "timeout": timeout_s,
            "stdin": subprocess.DEVNULL,
        }
        return subprocess.run(command, **(defaults | options))

    return run


@pytest.fixture
def heapsmith_run(
    heapsmith: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> Callable[..., tuple[subprocess.CompletedProcess[str], dict[str, Any]]]:
    """`heapsmith run` with its JSON document."""

    def run(
        *command: str | Path, options: Sequence[str] = (), **others: Any
    ) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        document = tmp_path / "run.json"
        finished = heapsmith("run", "--json", document, *options, "--", *command, **others)
        return finished, json.loads(document.read_text()) if document.exists() else {}

    return run

"""What the tests of recordings share: programs recorded from the command line, and their events as rows."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from heapsmith.trace import EventBatch, Operation, Trace, open_trace
from watched import needs

PROGRAMS = Path(__file__).parent / "record" / "programs"
_COMPILERS = {".c": ("gcc", "-std=gnu17"), ".cc": ("g++", "-std=c++20")}


@dataclass
class Recorded:
    """A recording: how the command ended, what it said, and its trace."""

    code: int
    output: str
    errors: str
    trace: Trace

    def events(self, process: int = 0) -> list[EventBatch]:
        """The batches of one process."""
        return [batch for batch in self.trace.batches() if batch.process == process]

    def rows(self, process: int = 0) -> list[tuple[Operation, int, int, int]]:
        """Operation, requested bytes, object born and object that died of each event."""
        found = list[tuple[Operation, int, int, int]]()
        for batch in self.events(process):
            for at in range(len(batch)):
                operation = Operation(int(batch.operation[at]) & 63)
                size = int(batch.size_bytes[at])
                found.append((operation, size, int(batch.born[at]), int(batch.died[at])))
        return found

    def sizes(self, process: int = 0) -> list[int]:
        """Requested bytes of everything born, in order."""
        return [size for _, size, born, _ in self.rows(process) if born >= 0]


def record(
    path: Path,
    *command: str | Path,
    options: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Recorded:
    """Record a command as a user would."""
    words = [sys.executable, "-m", "heapsmith", "record", "-o", str(path), *options, "--", *map(str, command)]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, **(environment or {})},
    )
    assert path.exists(), done.stderr
    return Recorded(done.returncode, done.stdout, done.stderr, open_trace(path))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile a program of tests/record/programs, once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    place = (shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared) / "recorded-programs"
    place.mkdir(exist_ok=True)

    def build(source: str, *flags: str) -> Path:
        path = PROGRAMS / source
        compiler, standard = _COMPILERS[path.suffix]
        needs(compiler)
        command = [compiler, standard, "-O1", "-g", "-fno-builtin", "-pthread", "-Wall", *flags]
        digest = hashlib.sha1(path.read_bytes() + " ".join(command).encode()).hexdigest()[:12]
        finished = place / f"{path.stem}-{digest}"
        if not finished.exists():
            trial = finished.with_suffix(f".{os.getpid()}")
            subprocess.run([*command, str(path), "-o", str(trial)], check=True)
            trial.replace(finished)
        return finished

    return build


def count_born(batches: list[EventBatch], low: int, high: int) -> int:
    """Objects whose requested bytes lie in a half-open range."""
    return sum(
        int(np.count_nonzero((b.born >= 0) & (b.size_bytes >= low) & (b.size_bytes < high))) for b in batches
    )

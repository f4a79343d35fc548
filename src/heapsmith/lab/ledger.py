"""The ledger: every outcome is kept as soon as it is known, so that an interrupted measurement can go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.lab.trials import Outcome, Workload
from heapsmith.peers.candidate import Candidate
from heapsmith.peers.register import register

_FOLDER: Final = "heapsmith/trials"


class _Line(msgspec.Struct, frozen=True):
    key: str
    outcome: Outcome


def describe_machine() -> dict[str, str | int | None]:
    """Describe this machine as far as it decides figures: processor, kernel, C library, bytes of RAM."""
    model = None
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "c_library": " ".join(platform.libc_ver()),
        "ram_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


class Ledger:
    """The outcomes of one workload on one machine.

    Args:
        workload: What was run; its command, directory and whatever of its environment decides the heap are the key.
        folder: Where ledgers are kept; by default ``$XDG_STATE_HOME/heapsmith/trials``.
        resume: Keep what is there; else begin anew.
    """

    def __init__(self, workload: Workload, *, folder: Path | None = None, resume: bool = False) -> None:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        self._folder = folder or state / _FOLDER
        self.path = self._folder / f"{_digest(_workload_key(workload))}.jsonl"
        self._outcomes: dict[tuple[str, str, int], Outcome] = {}
        if resume:
            self._read()
        else:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        if not self.path.is_file():
            return
        for text in self.path.read_bytes().splitlines():
            # A line that a crash cut short, or that another version wrote, is measured again.
            with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
                line = msgspec.json.decode(text, type=_Line)
                self._outcomes[line.key, line.outcome.phase, line.outcome.round] = line.outcome

    def __len__(self) -> int:
        return len(self._outcomes)

    def recall(self, candidate: Candidate, phase: str, number: int) -> Outcome | None:
        """Return the kept outcome of that candidate in that round, or None."""
        return self._outcomes.get((candidate_key(candidate), phase, number))

    def keep(self, candidate: Candidate, outcome: Outcome) -> None:
        """Keep an outcome; a state folder that cannot be written only costs the resuming."""
        key = candidate_key(candidate)
        self._outcomes[key, outcome.phase, outcome.round] = outcome
        with contextlib.suppress(OSError, UnicodeEncodeError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(_Line(key, outcome)) + b"\n")


def candidate_key(candidate: Candidate) -> str:
    """Name a candidate for good: what it sets, and which build of the library it preloads."""
    library = candidate.library
    build: Iterable[object] = ()
    if library is not None:
        with contextlib.suppress(OSError):
            state = Path(library).stat()
            build = (state.st_size, state.st_mtime_ns)
    return _digest(
        [candidate.label, candidate.version, library, *map(str, build), *map(str, candidate.variables)]
    )


def _workload_key(workload: Workload) -> list[object]:
    owned = {name for allocator in register().values() for name in allocator.variables} | {
        "LD_PRELOAD",
        "PATH",
    }
    deciding = sorted((name, value) for name, value in workload.environment.items() if name in owned)
    plain = msgspec.structs.replace(workload, environment=dict(deciding))
    return [msgspec.to_builtins(plain), platform.node(), describe_machine()]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]

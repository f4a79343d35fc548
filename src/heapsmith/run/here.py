"""Recording a part of this very program: ``with heapsmith.record("x.heap"):``."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from heapsmith.errors import RunError
from heapsmith.native import library
from heapsmith.run.directory import create_run_directory
from heapsmith.run.launched import PRELOAD_VARIABLE
from heapsmith.run.record import RECORD_LIBRARY, STACKS, RecordResult, RecordWishes, check_output
from heapsmith.run.recorder import Request
from heapsmith.units import parse_bytes
from heapsmith.wire.recording import OnFull
from heapsmith.wire.region import RUN_VARIABLE

_RECORDED_ALREADY: Final = 1
_PACKAGES: Final = Path(__file__).resolve().parents[2]


class record:  # noqa: N801 (used as a function is)
    """Record every allocation of this process while the context is open.

    The process needs not have been started by heapsmith. Where `heapsmith record` records it already, the context only
    marks its beginning and its end in that recording, and writes no file of its own.

    Args:
        path: The trace file.
        stacks: ``none``, ``sampled`` or ``all``: which allocations have a stack.
        sample_every: Bytes between two samples, on average.
        force: Replace a file that is there.
        python_objects: Record CPython's own objects.

    Raises:
        RunError: The file is there already or cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "part.heap"
        >>> with record(path, stacks="all") as recording:
        ...     blocks = [bytearray(5000) for _ in range(100)]
        >>> recording.result.events > 100
        True
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        stacks: Literal["none", "sampled", "all"] = "all",
        sample_every: int | str = 512 * 1024,
        force: bool = False,
        python_objects: bool = True,
    ) -> None:
        modes = {name: mode for mode, name in STACKS.items()}
        if stacks not in modes:
            raise RunError(f"stacks={stacks!r} is not known", hint="`none`, `sampled` or `all`")
        self.path = Path(path)
        self._force = force
        self._wishes = RecordWishes(
            stacks=modes[stacks],
            sample_every_bytes=parse_bytes(str(sample_every)),
            on_full=OnFull.WAIT,
            python_objects=python_objects,
        )
        self._recorder: subprocess.Popen[str] | None = None
        self._result: RecordResult | None = None

    @property
    def result(self) -> RecordResult:
        """What it came to.

        Raises:
            RunError: The context is still open, or this process was being recorded already.
        """
        if self._result is None:
            raise RunError("there is no result", "the recording has not ended, or is part of another")
        return self._result

    def mark(self, name: str) -> None:
        """Name this moment in the recording."""
        _native().hs_record_mark(name.encode()[:1024])

    def __enter__(self) -> Self:
        native = _native()
        if native.hs_record_mark(f"begin {self.path.name}".encode()) == 0:
            return self
        check_output(self.path, force=self._force)
        self._directory = create_run_directory()
        request = Request(
            directory=str(self._directory.path),
            output=str(self.path.absolute()),
            command=sys.orig_argv,
            wishes=self._wishes,
        )
        environment = {
            name: value for name, value in os.environ.items() if name not in {PRELOAD_VARIABLE, RUN_VARIABLE}
        }
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(_PACKAGES), environment.get("PYTHONPATH")))
        )
        self._recorder = subprocess.Popen(
            [sys.executable, "-m", "heapsmith.run.recorder", json.dumps(msgspec.to_builtins(request))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._recorder.stdout is not None
        said = self._recorder.stdout.readline().strip()
        if said != "ready":
            self._end()
            raise RunError(said or f"{self.path} cannot be recorded to: its recorder did not start")
        # Not through a call that lets other threads run Python meanwhile: the interpreter's allocators are exchanged.
        if native.hs_record_start(bytes(self._directory.path)) != 0:
            self._end()
            raise RunError("this process cannot be recorded", "it may not share memory with the recorder")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._recorder is None:
            _native().hs_record_mark(f"end {self.path.name}".encode())
            return
        _native().hs_record_stop()
        self._end()

    def _end(self) -> None:
        assert self._recorder is not None
        said, _ = self._recorder.communicate()
        self._directory.remove()
        if said.strip():
            self._result = msgspec.json.decode(said, type=RecordResult)


def _native() -> ctypes.PyDLL:
    return ctypes.PyDLL(str(library(RECORD_LIBRARY)))

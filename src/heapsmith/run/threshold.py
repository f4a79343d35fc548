"""A report while the program still runs: once its live bytes have crossed a threshold, before somebody kills it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from heapsmith.errors import RunError
from heapsmith.run.record import Recorder
from heapsmith.units import format_bytes

_begin = subprocess.Popen


class Threshold:
    """Looks at a recording, and has the report written the first time that live bytes are above.

    Args:
        bytes_above: The threshold, of all processes in sum.
        trace: The file that is being recorded to; the report lies beside it.
        force: Replace a report that is there.

    Raises:
        RunError: There is a report already.
    """

    def __init__(self, bytes_above: int, trace: Path, *, force: bool = False) -> None:
        self._bytes_above = bytes_above
        self._trace = trace
        self._path = trace.with_name(f"{trace.name}.html")
        if self._path.exists() and not force:
            raise RunError(
                f"{self._path} is there already", "--dump-above would write it", "replace it with --force"
            )
        self.report: Path | None = None
        self._writing: subprocess.Popen[bytes] | None = None

    def look(self, recorder: Recorder) -> None:
        """Compare what is live now."""
        if self.report is not None or recorder.live_bytes <= self._bytes_above:
            return
        recorder.mark(f"live bytes over {format_bytes(self._bytes_above)}")
        self.report = self._path
        self._writing = _begin(
            [
                sys.executable,
                "-m",
                "heapsmith",
                "report",
                str(self._trace),
                "-o",
                str(self.report),
                "--force",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> str:
        """Wait for the report, and say where it is."""
        if self._writing is None or self._writing.wait() != 0 or self.report is None:
            return f"no report could be written; the trace has the moment: heapsmith report {self._trace}"
        return f"the report of that moment is {self.report}"

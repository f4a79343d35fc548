"""What a workload in Python tells of itself: one JSON object, as the native ones print it."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path


def read_status_bytes(key: str) -> int:
    """Read one line of ``/proc/self/status`` that is in KiB.

    Args:
        key: The name of the line, such as ``VmRSS``.

    Returns:
        Bytes.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the kernel does not tell {key}")


def run_measured(work: Callable[[], object], before_after: Callable[[], object] = lambda: None) -> None:
    """Do the work and print what it took.

    Args:
        work: What is timed.
        before_after: Done when the work is over and before what is resident afterwards is read.
    """
    begin_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    begin = time.monotonic_ns()
    work()
    time_ns = time.monotonic_ns() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = read_status_bytes("VmHWM")
    before_after()
    row = {
        "time_ns": time_ns,
        "cpu_ns": int((used.ru_utime + used.ru_stime) * 1e9),
        "page_faults": used.ru_minflt - begin_faults,
        "resident_peak_bytes": peak,
        "resident_after_bytes": read_status_bytes("VmRSS"),
    }
    print(json.dumps(row))  # noqa: T201

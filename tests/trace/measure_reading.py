"""Measure how many events a second the analysis goes through: python tests/trace/measure_reading.py FILE.heap ..."""

from __future__ import annotations

import sys
import time

from heapsmith.trace import open_trace
from heapsmith.trace.analysis import analyse
from heapsmith.wire.classes import CLASS_BYTES


def main() -> None:
    for path in sys.argv[1:]:
        trace = open_trace(path)
        analyse([trace], class_bytes=CLASS_BYTES)  # compiles, and warms up
        rates: list[float] = []
        for _ in range(5):
            began = time.process_time()
            analyse([trace], class_bytes=CLASS_BYTES)
            rates.append(trace.events / (time.process_time() - began) / 1e6)
        rates.sort()
        print(
            f"{path}: {trace.events:,} events, {rates[2]:.1f} million a second ({rates[0]:.1f} to {rates[-1]:.1f})"
        )


if __name__ == "__main__":
    main()

"""Runs a script, and says at its end what the process has used itself: ``python usage.py SCRIPT [ARGUMENTS]``."""

import os
import runpy
import sys
import time
from pathlib import Path

start_s = time.monotonic()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
used_s, wall_s = time.process_time(), time.monotonic() - start_s
status = Path("/proc/self/status").read_text().splitlines()
peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
if path := os.environ.get("HEAPSMITH_USAGE"):
    Path(path).write_text(f"{used_s} {wall_s} {peak_kib * 1024}\n")

"""Runs a script, and says at its end what the process has used itself: ``python usage.py SCRIPT [ARGUMENTS]``."""

import os
import runpy
import sys
import time

start_s = time.monotonic()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
used_s, wall_s = time.process_time(), time.monotonic() - start_s
with open("/proc/self/status") as status:
    peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
if path := os.environ.get("HEAPSMITH_USAGE"):
    with open(path, "w") as file:
        file.write(f"{used_s} {wall_s} {peak_kib * 1024}\n")

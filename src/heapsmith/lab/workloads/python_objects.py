"""Object-heavy Python for the suite `python`: rows | objects; prints what the work took, and what stays after it.

After the work everything is dropped, and the program lives on for two seconds with a little to do, as a service after a
spike does. The time of the work is processor time: machines are shared.
"""

import gc
import json
import resource
import sys
import time
from pathlib import Path

import objects
import rows


def resident_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def quiet(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(len(str(number)) for number in range(1000))
        time.sleep(0.02)


def main(workload: str) -> None:
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    start = time.process_time()
    if workload == "rows":
        rows.main(25)
    else:
        objects.main(700)
    time_s = time.process_time() - start
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    peak_bytes = resident_bytes("VmHWM")
    gc.collect()
    quiet(2)
    sys.stdout.write(
        json.dumps(
            {
                "time_s": time_s,
                "page_faults": faults,
                "resident_bytes_peak": peak_bytes,
                "resident_after_bytes": resident_bytes("VmRSS"),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])

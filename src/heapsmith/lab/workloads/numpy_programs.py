"""NumPy programs for the suite `numpy`: WORKLOAD SOURCE; prints one JSON object with what the work took.

SOURCE is `malloc` (whatever the process has), `numpy_heap`, `numpy_heap-huge`, or `reused` (arrays made once, written
with `out=`: the least that any allocator could leave). Times are processor time: machines are shared.
"""

import contextlib
import importlib
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = {100: 600, 800: 300, 8_000: 40, 64_000: 9, 256_000: 5}


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def temporaries(kilobytes: int, reused: bool) -> float:
    """`a*b + c*b - a` on arrays of so many thousand bytes: the median of one evaluation, in seconds."""
    length = kilobytes * 1000 // 8
    rng = np.random.default_rng(1)
    a, b, c = rng.random(length), rng.random(length), rng.random(length)
    first, second = np.empty(length), np.empty(length)
    times = list[float]()
    for _ in range(REPEATS[kilobytes]):
        start = time.process_time()
        if reused:
            np.multiply(a, b, out=first)
            np.multiply(c, b, out=second)
            np.add(first, second, out=first)
            np.subtract(first, a, out=first)
        else:
            first = a * b + c * b - a
        times.append(time.process_time() - start)
    assert np.array_equal(first, a * b + c * b - a)
    return statistics.median(times)


def images(count: int) -> float:
    """Frames of 1280 x 720 x 3: to floats, grey, blurred, edges, stretched, to bytes again; the median of one frame."""
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    times = list[float]()
    for _ in range(count):
        start = time.process_time()
        colours = frame.astype(np.float32) / 255
        grey = colours @ np.array([0.299, 0.587, 0.114], np.float32)
        blurred = (grey[:-2, :-2] + grey[1:-1, 1:-1] * 2 + grey[2:, 2:]) / 4
        across, down = np.gradient(blurred)
        edges = np.sqrt(across * across + down * down)
        low, high = edges.min(), edges.max()
        out = ((edges - low) / (high - low + 1e-9) * 255).astype(np.uint8)
        mixed = np.clip(colours[1:-1, 1:-1] * (1 - out[..., None] / 255), 0, 1)
        frame = np.roll(frame, 7, axis=1)
        times.append(time.process_time() - start)
        assert mixed.shape == (718, 1278, 3)
    return statistics.median(times)


def group_by(count: int) -> float:
    """A table of a million rows grouped, joined, filtered and sorted with pandas: the median of one round."""
    pd: Any = importlib.import_module("pandas")

    rng = np.random.default_rng(1)
    rows = 1_000_000
    table = pd.DataFrame(
        {"key": rng.integers(0, 5000, rows), "a": rng.random(rows), "b": rng.random(rows).astype(np.float32)}
    )
    times = list[float]()
    for _ in range(count):
        start = time.process_time()
        means = table.groupby("key").agg({"a": "mean", "b": "sum"})
        joined = table.join(means.rename(columns={"a": "a_of_key", "b": "b_of_key"}), on="key")
        above = joined[joined["a"] > joined["a_of_key"]]
        top = above.assign(score=above["a"] * above["b"] - above["a_of_key"]).sort_values("score").tail(1000)
        times.append(time.process_time() - start)
        assert len(top) == 1000
    return statistics.median(times)


def run(workload: str, reused: bool) -> float:
    if workload.startswith("temporaries-"):
        return temporaries(int(workload.removeprefix("temporaries-")), reused)
    return {"images": lambda: images(12), "group-by": lambda: group_by(6)}[workload]()


def main(workload: str, source: str) -> None:
    with contextlib.ExitStack() as stack:
        if source.startswith("numpy_heap"):
            from heapsmith import numpy_heap

            stack.enter_context(numpy_heap(huge_pages=True if source.endswith("-huge") else None))
        faults = page_faults()
        time_s = run(workload, source == "reused")
        faults = page_faults() - faults
        row = {
            "time_s": time_s,
            "page_faults": faults,
            "resident_bytes_peak": resident_bytes("VmHWM"),
            "resident_after_bytes": resident_bytes("VmRSS"),
        }
    sys.stdout.write(json.dumps(row))


if __name__ == "__main__":
    main(*sys.argv[1:])

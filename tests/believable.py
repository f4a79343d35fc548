"""Believable watched processes over time, without a program: for the tests of the views."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import msgspec

from heapsmith.run.values import Event, Exit, Process, PythonHeap, SizeClass, Thread
from heapsmith.units import KiB, MiB
from heapsmith.wire.classes import CLASS_BYTES

START_S = 1_700_000_000.0
_ACTIVE = (1, 2, 3, 4, 6, 8, 12, 16, 31, 63, 66, 70, 75, 79, 83, 87)


def size_class(index: int, rate: float, time_s: float, phase: float, *, python: bool = False) -> SizeClass:
    class_bytes = CLASS_BYTES[index]
    assert class_bytes is not None
    wave = 0.55 + 0.45 * math.sin(time_s / (7 + index % 5) + phase)
    allocations = int(rate * (time_s + 1))
    live = min(allocations, int(rate * 6 * wave * min(1.0, time_s / 10) + rate))
    peak = min(allocations, int(rate * 7.1))
    return SizeClass(
        class_bytes=class_bytes,
        allocations=allocations,
        frees=allocations - live,
        remote_frees=(allocations - live) // 50,
        live_blocks=live,
        live_bytes=live * class_bytes,
        live_bytes_peak=max(live, peak) * class_bytes,
        requested_live_bytes=int(live * class_bytes * 0.9),
        python_live_blocks=live // 2 if python and class_bytes <= 520 else 0,
        python_live_bytes=live // 2 * class_bytes if python and class_bytes <= 520 else 0,
    )


def add(rows: Sequence[SizeClass]) -> list[SizeClass]:
    """Totals by class; here the peaks may be added, because these threads breathe together."""
    by_class: dict[int | None, list[SizeClass]] = {}
    for row in rows:
        by_class.setdefault(row.class_bytes, []).append(row)
    fields = [f for f in SizeClass.__struct_fields__ if f != "class_bytes"]
    return [
        SizeClass(class_bytes=key, **{f: sum(getattr(row, f) for row in group) for f in fields})
        for key, group in sorted(by_class.items(), key=lambda item: item[0] or 1 << 62)
    ]


def process(
    time_s: float,
    *,
    pid: int = 4711,
    ppid: int = 4000,
    name: str = "python3",
    command: Sequence[str] = ("python3", "examples/web.py"),
    threads: int = 4,
    scale: float = 1.0,
    ended: Exit | None = None,
    limit_bytes: int | None = None,
    warn_at_bytes: int | None = None,
    python: bool = True,
    failures: int = 0,
    notes: Sequence[str] = (),
    image: int = 1,
) -> Process:
    rng = random.Random(pid)
    rows: list[Thread] = []
    for number in range(threads):
        classes = [
            size_class(
                i, scale * rng.uniform(5, 900) / (1 + i / 6) ** 1.7, time_s, rng.uniform(0, 6), python=python
            )
            for i in _ACTIVE[: 16 - number % 3]
        ]
        alive = number < max(1, threads - 1)
        rows.append(
            Thread(
                tid=pid + number if alive else None,
                name=("MainThread" if number == 0 else f"worker-{number}") if alive else "ended threads",
                alive=alive,
                allocations=sum(c.allocations for c in classes),
                frees=sum(c.frees for c in classes),
                remote_frees=sum(c.remote_frees for c in classes),
                live_blocks=sum(c.live_blocks for c in classes),
                live_bytes=sum(c.live_bytes for c in classes),
                size_classes=classes,
            )
        )
    total = add([c for row in rows for c in row.size_classes])
    live = sum(c.live_bytes for c in total)
    allocations = sum(c.allocations for c in total)
    frees = sum(c.frees for c in total)
    peak = max(live, *(c.live_bytes_peak for c in total))
    events = [Event(time_s * 0.6, "warning", pid, live, warn_at_bytes, 4096)] if warn_at_bytes else []
    if failures:
        events += [Event(time_s * 0.8, "refused", pid, live, limit_bytes or 0, 64 * MiB)]
    python_blocks = sum(c.python_live_blocks for c in total)
    python_bytes = sum(c.python_live_bytes for c in total)
    return Process(
        pid=pid,
        ppid=ppid,
        image=image,
        name=name,
        command=list(command),
        allocator="glibc",
        start_time_s=START_S,
        time_s=time_s,
        exit=ended,
        live_bytes=live,
        live_bytes_peak=peak,
        live_bytes_peak_at_s=time_s * 0.7,
        live_bytes_peak_error_bound=64 * KiB,
        live_blocks=sum(c.live_blocks for c in total),
        requested_live_bytes=int(live * 0.9),
        mapped_bytes=96 * MiB,
        mapped_bytes_peak=128 * MiB,
        limit_bytes=limit_bytes,
        warn_at_bytes=warn_at_bytes,
        allocations=allocations,
        frees=frees,
        reallocations=allocations // 40,
        remote_frees=frees // 50,
        failures=failures,
        refused=failures,
        overflowed=0,
        last_failed_bytes=64 * MiB if failures else None,
        warnings=1 if warn_at_bytes else 0,
        lost=0,
        resident_bytes=None if ended else live + 110 * MiB,
        resident_bytes_peak=peak + 130 * MiB,
        minor_faults=34_567,
        major_faults=2,
        threads_started=threads + 3,
        threads_alive=threads - 1,
        temporary_ratio=frees / allocations if allocations else None,
        python=PythonHeap("3.12.1", 6 * MiB, 8 * MiB, python_blocks, python_bytes, "") if python else None,
        notes=list(notes),
        events=events,
        threads=rows,
        size_classes=total,
        exact=["allocations", "frees", "live_blocks"],
    )


class Machine:
    """A watcher over believable processes whose clock the test moves; it obeys new limits."""

    def __init__(self, processes: Sequence[dict[str, object]] = ({},), time_s: float = 0.0) -> None:
        self.processes = [dict(p) for p in processes]
        self.time_s = time_s
        self.ended_at_s: dict[int, float] = {}
        self.closed = False
        self.polls = 0

    def poll(self) -> list[Process]:
        self.polls += 1
        return [
            process(self.ended_at_s.get(int(str(p.get("pid", 4711))), self.time_s), **p)  # type: ignore[arg-type]
            for p in self.processes
        ]

    def end(self, pid: int, ended: Exit) -> None:
        self.ended_at_s[pid] = self.time_s
        self._of(pid)["ended"] = ended

    def set_limit(self, pid: int, limit_bytes: int | None) -> None:
        self._of(pid)["limit_bytes"] = limit_bytes

    def set_warn_at(self, pid: int, warn_at_bytes: int | None) -> None:
        self._of(pid)["warn_at_bytes"] = warn_at_bytes

    def close(self) -> None:
        self.closed = True

    def _of(self, pid: int) -> dict[str, object]:
        return next(p for p in self.processes if p.get("pid", 4711) == pid)


def server_and_workers(count: int = 3) -> list[dict[str, object]]:
    workers: list[dict[str, object]] = [
        {
            "pid": 4800 + i,
            "ppid": 4711,
            "name": "worker",
            "command": ["gunicorn: worker"],
            "scale": 0.4 + 0.2 * i,
            "threads": 3,
        }
        for i in range(count)
    ]
    return [
        {"name": "gunicorn", "command": ["gunicorn", "-w", str(count), "app:app"], "scale": 0.3},
        *workers,
    ]


def empty(pid: int = 1) -> Process:
    """A process that has just begun: nothing allocated, nothing known of the kernel's side."""
    return msgspec.structs.replace(
        process(0.0, pid=pid, python=False, threads=1),
        live_bytes=0,
        live_bytes_peak=0,
        live_bytes_peak_at_s=None,
        live_blocks=0,
        requested_live_bytes=0,
        mapped_bytes=0,
        mapped_bytes_peak=0,
        allocations=0,
        frees=0,
        reallocations=0,
        remote_frees=0,
        resident_bytes=None,
        resident_bytes_peak=None,
        minor_faults=None,
        major_faults=None,
        temporary_ratio=None,
        threads=[],
        size_classes=[],
        events=[],
    )

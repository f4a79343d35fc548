"""Traces made up for tests: programs whose life is known to the last byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heapsmith.trace import (
    End,
    Manifest,
    Operation,
    ProcessEnd,
    ProcessStart,
    ThreadRecord,
    TraceWriter,
)

Event = tuple[Operation, int, int, int, int]
"""Operation, thread, size in bytes, number of the object that dies (-1: none), base-2 logarithm of the alignment."""


def write_trace(
    path: Path,
    events: list[Event],
    *,
    step_ns: int = 1000,
    times_ns: list[int] | None = None,
    manifest: Manifest | None = None,
    batch: int = 1000,
    program: str = "made-up",
) -> Path:
    """Write events as a trace of one process; its main thread is 0."""
    manifest = manifest or Manifest(command=["made-up"], started_unix_ns=0, heapsmith="0", tick_ns=1)
    times = np.array(times_ns if times_ns is not None else np.arange(len(events)) * step_ns, np.int64)
    rows = np.array(events, np.int64).reshape(-1, 5)
    with TraceWriter(path, manifest) as writer:
        process = writer.add_process(
            ProcessStart(pid=100, ppid=1, name=program, command=[program], started_ns=0)
        )
        writer.write_threads(
            process,
            [ThreadRecord(index=int(i), tid=100 + int(i), name=f"t{i}") for i in np.unique(rows[:, 1])],
        )
        for first in range(0, len(rows), batch):
            part = rows[first : first + batch]
            writer.write_events(
                process,
                operation=part[:, 0].astype(np.uint8),
                thread=part[:, 1].astype(np.uint32),
                time_ns=times[first : first + batch],
                size_bytes=part[:, 2].astype(np.uint64),
                usable_bytes=part[:, 2].astype(np.uint64),
                died=part[:, 3],
                alignment=part[:, 4].astype(np.uint8),
            )
        writer.end_process(process, ProcessEnd(ended_ns=int(times[-1]), exit_code=0))
        writer.write_end(End(ended_ns=int(times[-1]), events=len(rows)))
    return path


def make_events(
    count: int,
    *,
    seed: int = 1,
    threads: int = 1,
    sizes: tuple[int, ...] = (24, 100, 1000, 4000),
    live: int = 500,
    reallocate: bool = True,
) -> list[Event]:
    """Make a program that allocates, frees and reallocates at random around a number of live blocks."""
    random = np.random.default_rng(seed)
    events: list[Event] = []
    alive: list[int] = []
    born = 0
    while len(events) < count:
        thread = int(random.integers(threads))
        size = int(random.choice(sizes))
        roll = random.random()
        if alive and (len(alive) > live or roll < 0.45):
            place = int(random.integers(len(alive)))
            alive[place], alive[-1] = alive[-1], alive[place]
            dead = alive.pop()
            if reallocate and roll < 0.1:
                events.append((Operation.REALLOCATE_MOVED, thread, size, dead, 0))
                alive.append(born)
                born += 1
            else:
                events.append((Operation.FREE, thread, 0, dead, 0))
            continue
        kind = Operation.ALLOCATE
        alignment = 0
        if roll > 0.95:
            kind, alignment = Operation.ALLOCATE_ALIGNED, 6
        elif roll > 0.9:
            kind = Operation.ALLOCATE_ZEROED
        events.append((kind, thread, size, -1, alignment))
        alive.append(born)
        born += 1
    return events

"""Traces made for tests: random ones that keep the rules, and small ones whose answers can be told by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heapsmith.trace import (
    BORN,
    DIED,
    NO_OBJECT,
    UNKNOWN_OBJECT,
    Drops,
    End,
    Manifest,
    Mark,
    ModuleRecord,
    Operation,
    OperationFlag,
    ProcessEnd,
    ProcessStart,
    ThreadRecord,
    TraceWriter,
)
from heapsmith.trace.layout import FRAME, MEMORY_SAMPLE, STACK

MICROSECOND = 1000


@dataclass
class MadeProcess:
    """A process whose events are written one at a time."""

    pid: int = 7
    name: str = "made"
    events: list[tuple[int, int, int, int, int, int, int, int]] = field(default_factory=list)
    born: int = 0
    now_ns: int = 0

    def allocate(
        self, size: int, stack: int = 1, *, thread: int = 0, operation: int = Operation.ALLOCATE, slack: int = 8,
        after_ns: int = MICROSECOND, died: int = NO_OBJECT,
    ) -> int:  # fmt: skip
        self.now_ns += after_ns
        self.events.append((operation, thread, self.now_ns, size, size + slack, 0, died, stack))
        self.born += 1
        return self.born - 1

    def free(
        self, number: int, *, thread: int = 0, after_ns: int = MICROSECOND, operation: int = Operation.FREE
    ) -> None:
        self.now_ns += after_ns
        self.events.append((operation, thread, self.now_ns, 0, 0, 0, number, 0))

    def columns(self) -> dict[str, np.ndarray]:
        names = ("operation", "thread", "time_ns", "size_bytes", "usable_bytes", "alignment", "died", "stack")
        dtypes = (np.uint8, np.uint32, np.int64, np.uint64, np.uint64, np.uint8, np.int64, np.uint32)
        rows = list(zip(*self.events, strict=True)) or [()] * len(names)
        return {name: np.array(row, dtype) for name, row, dtype in zip(names, rows, dtypes, strict=True)}


def write_made(
    path: Path,
    processes: Sequence[MadeProcess],
    places: Sequence[tuple[str, str, int]] = (("grow", "/srv/demo.py", 12), ("main", "/srv/demo.py", 40)),
    *,
    parents: Sequence[int] = (),
    batch: int = 1000,
    memory: Iterable[tuple[int, int, int, int]] = (),
    marks: Sequence[Mark] = (),
    drops: Sequence[Drops] = (),
    manifest: dict[str, Any] | None = None,
    end: bool = True,
    signal: int | None = None,
) -> Path:
    """Write a trace whose stacks are Python frames: stack i + 1 is places[i], called by stack parents[i] (0: nobody)."""
    told = Manifest(
        command=["python3", "demo.py"], started_unix_ns=1_700_000_000_000_000_000, heapsmith="0.1.0", tick_ns=MICROSECOND,
        stacks="all", **(manifest or {}),
    )  # fmt: skip
    with TraceWriter(path, told) as writer:
        strings: list[str] = []
        frames, stacks = np.zeros(len(places), FRAME), np.zeros(len(places), STACK)
        for place, (function, file, line) in enumerate(places):
            strings += [function, file]
            frames[place] = 2, 2 * place, 2 * place + 1, line
            stacks[place] = (parents[place] if parents else 0), place + 1
        writer.write_strings(strings)
        writer.write_modules([ModuleRecord(path="/bin/demo", build_id="ab12")])
        writer.write_frames(frames)
        writer.write_stacks(stacks)
        indices = [
            writer.add_process(
                ProcessStart(pid=made.pid, ppid=1, name=made.name, command=[made.name], started_ns=0)
            )
            for made in processes
        ]
        for index, made in zip(indices, processes, strict=True):
            threads = {event[1] for event in made.events} | {0}
            writer.write_threads(
                index,
                [
                    ThreadRecord(index=thread, tid=100 + thread, name=f"t{thread}")
                    for thread in sorted(threads)
                ],
            )
            columns = made.columns()
            for start in range(0, len(made.events), batch):
                part = slice(start, start + batch)
                writer.write_events(index, **{name: column[part] for name, column in columns.items()})
        rows = list(memory)
        if rows:
            writer.write_memory(indices[0], np.array(rows, MEMORY_SAMPLE))
        if marks:
            writer.write_marks(indices[0], marks)
        for drop in drops:
            writer.write_drops(indices[0], drop)
        for index, made in zip(indices, processes, strict=True):
            code = 0 if signal is None else None
            writer.end_process(index, ProcessEnd(ended_ns=made.now_ns, exit_code=code, signal=signal))
        if end:
            writer.write_end(End(ended_ns=max(p.now_ns for p in processes), events=writer.events))
    return path


def make_random(
    seed: int, count: int = 300, *, pid: int = 7, stacks: int = 2, threads: int = 3
) -> MadeProcess:
    """Make events that keep the rules: who dies was born and has not died, or is unknown."""
    random = np.random.default_rng(seed)
    made = MadeProcess(pid=pid)
    live: list[tuple[int, bool]] = []
    for _ in range(count):
        operation = Operation(int(random.choice([0, 0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9])))
        dying = NO_OBJECT
        if operation in DIED:
            wanted = operation is Operation.UNMAP
            fitting = [place for place, (_, mapped) in enumerate(live) if mapped == wanted]
            if fitting and random.random() < 0.95:
                # Often the newest, so that there are temporary ones.
                place = fitting[-1] if random.random() < 0.5 else int(random.choice(fitting))
                dying = live.pop(place)[0]
            else:
                dying = UNKNOWN_OBJECT
        thread, pause = int(random.integers(threads)), int(random.integers(0, 5)) * MICROSECOND
        python = (
            OperationFlag.PYTHON
            if operation not in (Operation.MAP, Operation.UNMAP) and random.random() < 0.3
            else 0
        )
        if operation in BORN:
            size = int(random.choice([0, 1, 24, 100, 5000, 1 << 20, 70000]))
            number = made.allocate(
                size, int(random.integers(0, stacks + 1)), thread=thread, operation=operation | python,
                slack=int(random.integers(0, 300)), after_ns=pause, died=dying,
            )  # fmt: skip
            live.append((number, operation is Operation.MAP))
        else:
            made.free(dying, thread=thread, after_ns=pause, operation=operation | python)
    return made

"""The shadow: what a heap would have held of a program that goes on running on its own allocator.

The recorder reads the program's rings as ever; what it writes is followed here, batch by batch, and simulated at once.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from heapsmith.errors import RunError
from heapsmith.lab.replay.plan import Part, choose_process, read_calls
from heapsmith.run.launched import SignalsPassedOn
from heapsmith.run.record import Recording, RecordResult, RecordWishes, exit_code_of
from heapsmith.spec import HeapSpec
from heapsmith.trace import Trace, open_trace
from heapsmith.tune.simulation import Walker, warm_up

_FOLLOW_EVERY_S: Final = 1.0
_PAGES: Final = 1 << 20
_PATIENCE_S: Final = 1.0
"""A simulator that is compiled already is there long before."""


class ShadowResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a heap would have held; bytes are resident ones.

    Args:
        heap: The heap's name.
        pid: The process with the most events; what others would have held is not in the figures.
        events: Of it, that were simulated.
        own_bytes_peak: Anonymous bytes of the real process, the largest sample; None: it was not looked at.
        own_bytes_mean: Their average over the samples.
        outside_bytes: Of those, what was there before the heap grew: data of libraries, stacks.
        shadow_bytes_peak: What the heap would have held at most.
        shadow_bytes_mean: At the same moments as the samples, on average.
        complete: False where the program outgrew the shadow, or events were dropped.
        exit_code: Of the program; 128 + n for signal n.
    """

    heap: str
    pid: int
    events: int
    own_bytes_peak: int | None
    own_bytes_mean: float | None
    outside_bytes: int | None
    shadow_bytes_peak: int
    shadow_bytes_mean: float
    complete: bool
    exit_code: int | None


class Shadow:
    """Follows a trace that is being written, and simulates a heap on it."""

    def __init__(self, spec: HeapSpec) -> None:
        self._spec = spec
        self._walkers: dict[int, Walker] = {}
        self._seen: dict[int, int] = {}

    def follow(self, path: Path) -> Trace:
        """Simulate what has been written since the last time."""
        trace = open_trace(path)
        for process in trace.processes:
            seen = self._seen.get(process.index, 0)
            if process.events == seen:
                continue
            walker = self._walkers.setdefault(process.index, Walker(self._spec, _PAGES))
            for batch, kinds in read_calls(
                trace, process.index, Part(), python_objects=False, first_event=seen
            ):
                walker.walk(batch, kinds)
            self._seen[process.index] = process.events
        return trace

    def walker(self, process: int) -> Walker:
        """The simulation of a process."""
        return self._walkers[process]


def run_in_shadow(
    command: Sequence[str],
    spec: HeapSpec,
    *,
    compiles: Callable[[], None] = lambda: None,
    on_look: Callable[[int], None] = lambda _: None,
) -> ShadowResult:
    """Run a program on its own allocator, and a heap in its shadow.

    Args:
        command: The program and its arguments.
        spec: The heap.
        compiles: Told, from another thread, when the simulator has to be compiled, at its first use on a machine.
        on_look: Told the bytes that the heap would hold, about once a second.

    Raises:
        RunError: The command cannot be run, or nothing of it could be recorded.
    """
    shadow = Shadow(spec)
    # Compiled before the program starts: it must not wait for us.
    telling = threading.Timer(_PATIENCE_S, compiles)
    telling.start()
    try:
        warm_up()
    finally:
        telling.cancel()
    with tempfile.TemporaryDirectory(prefix="heapsmith-shadow-") as folder:
        path = Path(folder, "shadow.heap")
        recording = Recording(command, path, RecordWishes(python_objects=False))
        next_s = time.monotonic() + _FOLLOW_EVERY_S

        def look(_: object) -> None:
            nonlocal next_s
            if time.monotonic() >= next_s:
                trace = shadow.follow(path)
                if trace.events:
                    on_look(shadow.walker(choose_process(trace).index).resident_bytes)
                next_s = time.monotonic() + _FOLLOW_EVERY_S

        with SignalsPassedOn(recording):
            result = recording.wait(look)
        trace = shadow.follow(path)
    if not trace.events:
        raise RunError(
            "nothing can be said of the heap",
            "no call of malloc was recorded",
            "is the program linked statically?",
            exit_code=exit_code_of(result.exit),
        )
    return _result(shadow, spec, trace, result)


def _result(shadow: Shadow, spec: HeapSpec, trace: Trace, result: RecordResult) -> ShadowResult:
    process = choose_process(trace)
    walker = shadow.walker(process.index)
    memory = process.memory[process.memory["anonymous_bytes"] > 0]
    times_ms, held = walker.course()
    own_peak = own_mean = outside = None
    mean = float(held.mean())
    if len(memory):
        own = memory["anonymous_bytes"].astype(float)
        at_samples = np.interp(memory["time_ns"] / 1e6, times_ms, held)
        own_peak, own_mean, mean = int(own.max()), float(own.mean()), float(at_samples.mean())
        outside = int(max(0.0, own[0] - at_samples[0]))
    end = result.exit
    code = None if end is None else 128 + end.signal if end.signal is not None else end.code
    return ShadowResult(
        heap=spec.name,
        pid=process.start.pid,
        events=process.events,
        own_bytes_peak=own_peak,
        own_bytes_mean=own_mean,
        outside_bytes=outside,
        shadow_bytes_peak=walker.resident_bytes_peak,
        shadow_bytes_mean=mean,
        complete=not walker.outgrown and process.dropped_events == 0,
        exit_code=code,
    )

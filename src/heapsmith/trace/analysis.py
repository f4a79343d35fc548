"""What happened in each process of a trace, in one pass over its events: pure functions, nothing is started or shown.

The pass itself is in `event_pass`, what it finds in `process_figures`; here several processes and files are gone through,
on any executor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from heapsmith.errors import TraceError
from heapsmith.trace.event_pass import EventPass, Progress, read_end_ns
from heapsmith.trace.process_figures import ProcessFigures
from heapsmith.trace.reader import Trace, open_trace

BINS: Final = 1000
"""Points of a time line."""
MOMENTS: Final = 120
"""Moments whose live blocks can be looked at."""
DOUBLINGS: Final = tuple(1 << power for power in range(4, 40))
"""Size classes where no others are given: one a doubling."""
_TASK_EVENTS: Final = 20_000_000


def analyse_process(
    trace: Trace,
    process: int,
    *,
    moments_ns: Sequence[int] = (),
    class_bytes: Sequence[int | None] = DOUBLINGS,
    bins: int = BINS,
    ending_stacks: NDArray[np.bool_] | None = None,
    on_events: Progress | None = None,
) -> ProcessFigures:
    """Go once through the events of a process.

    Args:
        trace: The open trace.
        process: Index of the process.
        moments_ns: Rising times since the start of the trace at which the live blocks are to be known by place.
        class_bytes: Largest usable bytes of each size class, rising; a None at the end is the open class.
        bins: Points of the time line.
        ending_stacks: For each stack of the trace whether it says that the interpreter takes itself down. What is live when
            the first of them allocates counts as live at exit: afterwards the interpreter frees what the program left.
        on_events: Called with the number of events gone through since the last call.

    Example:
        See `analyse`.
    """
    return EventPass(trace, trace.processes[process], moments_ns, class_bytes, bins, ending_stacks).run(
        on_events
    )


def choose_moments(trace: Trace, count: int = MOMENTS) -> list[int]:
    """Spread moments evenly over a trace, in ns since its start."""
    end_ns = max((read_end_ns(trace, process) for process in trace.processes), default=0)
    start_ns = min((process.start.started_ns for process in trace.processes), default=0)
    step = (end_ns - start_ns) / count
    return [] if step <= 0 else [round(start_ns + step * (index + 1)) + 1 for index in range(count)]


def analyse(
    traces: Sequence[Trace],
    *,
    executor: Executor | None = None,
    class_bytes: Sequence[int | None] = DOUBLINGS,
    moments: int = MOMENTS,
    ending_stacks: Sequence[NDArray[np.bool_]] = (),
    on_events: Progress | None = None,
) -> list[list[ProcessFigures]]:
    """Analyse all processes of some traces.

    Args:
        traces: The open traces.
        executor: Where the passes run, one for each file or (of large files) for each group of processes: any
            `concurrent.futures.Executor`, for example a process pool or a Dask client's `get_executor()`, whose workers
            see the same files. None: here.
        class_bytes: As in `analyse_process`.
        moments: How many moments of the whole trace are kept by place.
        ending_stacks: As in `analyse_process`, for each trace.
        on_events: Called with the number of events gone through since the last call.

    Returns:
        For each trace its processes, in their order.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from heapsmith.trace import Manifest, Operation, ProcessStart, TraceWriter
        >>> path = Path(tempfile.mkdtemp()) / "two.heap"
        >>> with TraceWriter(path, Manifest(command=["x"], started_unix_ns=0, heapsmith="0")) as writer:
        ...     process = writer.add_process(ProcessStart(pid=7, ppid=1, name="x", command=["x"], started_ns=0))
        ...     writer.write_events(
        ...         process,
        ...         operation=np.array([Operation.ALLOCATE, Operation.ALLOCATE, Operation.FREE], np.uint8),
        ...         thread=np.zeros(3, np.uint32),
        ...         time_ns=np.array([1000, 2000, 5000]),
        ...         size_bytes=np.array([100, 50, 0], np.uint64),
        ...         usable_bytes=np.array([104, 56, 0], np.uint64),
        ...         died=np.array([-1, -1, 0]),
        ...     )
        >>> [[figures]] = analyse([open_trace(path)])
        >>> figures.live_bytes_peak, figures.live_bytes_at_exit
        (150.0, 50.0)
    """
    ending: list[NDArray[np.bool_] | None] = [*ending_stacks] if ending_stacks else [None] * len(traces)
    if executor is None:
        return [
            [
                analyse_process(
                    trace,
                    process.index,
                    moments_ns=times,
                    class_bytes=class_bytes,
                    ending_stacks=ending[place],
                    on_events=on_events,
                )
                for process in trace.processes
            ]
            for place, (trace, times) in enumerate(
                (trace, choose_moments(trace, moments)) for trace in traces
            )
        ]
    futures: list[tuple[int, list[int], Any]] = []
    for place, trace in enumerate(traces):
        times = choose_moments(trace, moments)
        for group in _groups(trace):
            task = executor.submit(
                _analyse_group, str(trace.path), group, times, list(class_bytes), ending[place]
            )
            futures.append((place, group, task))
    results: list[list[ProcessFigures]] = [[] for _ in traces]
    for place, _, future in futures:
        found: list[ProcessFigures] = future.result()
        results[place] += found
        if on_events is not None:
            on_events(sum(figures.events for figures in found))
    return results


def _groups(trace: Trace) -> Iterator[list[int]]:
    group: list[int] = []
    events = 0
    for process in trace.processes:
        group.append(process.index)
        events += process.events
        if events >= _TASK_EVENTS:
            yield group
            group, events = [], 0
    if group:
        yield group


def _analyse_group(
    path: str,
    group: list[int],
    times: list[int],
    class_bytes: list[int | None],
    ending: NDArray[np.bool_] | None,
) -> list[ProcessFigures]:
    trace = open_trace(path)
    return [
        analyse_process(trace, index, moments_ns=times, class_bytes=class_bytes, ending_stacks=ending)
        for index in group
    ]


def measure_speed(trace: Trace) -> float:
    """Analyse a trace and answer the events gone through per second."""
    began = time.perf_counter()
    analyse([trace])
    return trace.events / (time.perf_counter() - began)


def check_readable(traces: Sequence[Trace]) -> None:
    """Refuse a trace that holds nothing to report.

    Raises:
        TraceError: No process of it is readable.
    """
    for trace in traces:
        if not trace.processes:
            reason = trace.damage.reason if trace.damage else "it holds no process"
            raise TraceError(f"{trace.path} tells nothing", reason, "record again")

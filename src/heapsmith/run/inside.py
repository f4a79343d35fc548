"""Watch one run of a program from outside and from inside at once: what its heap held, beside what was resident."""

from __future__ import annotations

import contextlib

import msgspec

from heapsmith.native import library
from heapsmith.run.directory import create_run_directory
from heapsmith.run.launch import WATCH_LIBRARY
from heapsmith.run.launched import PRELOAD_VARIABLE
from heapsmith.run.outside import Subject, Watched, watch
from heapsmith.run.watch import Watcher
from heapsmith.wire.region import RUN_VARIABLE


def watch_inside(subject: Subject) -> Watched:
    """Run a program once with the watch preloaded in front of its allocator; CPython's objects stay uncounted.

    Args:
        subject: What to run.

    Returns:
        What was seen from outside, and the high-water mark and allocations that its regions tell; None where nothing
        could be preloaded.

    Example:
        >>> import os
        >>> seen = watch_inside(Subject(command=("true",), directory="/", environment=dict(os.environ)))
        >>> seen.failed, seen.allocations is not None
        (None, True)
    """
    directory = create_run_directory()
    try:
        directory.write_launch_block(python_objects=False, limit_bytes=0, warn_at_bytes=0)
        behind = subject.environment.get(PRELOAD_VARIABLE)
        watching = str(library(WATCH_LIBRARY))
        environment = subject.environment | {
            RUN_VARIABLE: str(directory.path),
            PRELOAD_VARIABLE: f"{watching}:{behind}" if behind else watching,
        }
        seen = watch(msgspec.structs.replace(subject, environment=environment))
        with contextlib.closing(Watcher(directory.path)) as watcher:
            processes = [process for process in watcher.poll() if process.exact]
    finally:
        directory.remove()
    if not processes:
        return seen
    return msgspec.structs.replace(
        seen,
        live_bytes_peak=max(process.live_bytes_peak for process in processes),
        allocations=sum(process.allocations for process in processes),
    )

"""``heapsmith track``: requested bytes against a threshold, a line for every call, as Heap Tracker does it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from heapsmith.run.tracking import Level, build_flags, run_tracked
from heapsmith.units import parse_bytes

track = App(
    name="track",
    help="Count requested bytes against a threshold, with a line for every call.\n\n"
    "Example: heapsmith track flags",
)


@track.default
def _run(
    *command: Annotated[str, Parameter(help="The program and its arguments, after `--`.")],
    threshold: Annotated[str | None, Parameter(help="Warn above this; 250KiB if left out.")] = None,
    log: Annotated[Level, Parameter(help="Which calls get a line.")] = "warnings",
    output: Annotated[Path | None, Parameter(help="Where the lines go; standard error if left out.")] = None,
) -> int:
    """Run a program with its requested bytes counted; nothing of it changes.

    Example: heapsmith track --log all --threshold 1MiB -- ls
    """
    threshold_bytes = None if threshold is None else parse_bytes(threshold)
    return run_tracked(command, threshold_bytes=threshold_bytes, level=log, log=output)


@track.command
def flags(
    *,
    cpp: Annotated[bool, Parameter(help="For a C++ program: new and delete as well.", negative="")] = False,
) -> None:
    """Print what to give to the compiler where nothing can be preloaded (static programs, devices).

    Example: heapsmith track flags
    """
    sys.stdout.write(shlex.join(build_flags(cpp=cpp)) + "\n")

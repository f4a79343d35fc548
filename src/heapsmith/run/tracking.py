"""Heap Tracker's way of counting: requested bytes, a threshold, a line for every call; preloaded or linked in."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from heapsmith.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, RunError
from heapsmith.native import SOURCES, library
from heapsmith.run.program import find_program, judge_program

SOURCE: Final = SOURCES / "track" / "heap_track.c"
"""What a program compiles in where nothing can be preloaded."""

Level = Literal["none", "warnings", "all"]
_WRAPPED: Final = re.compile(r"^(?:\w[\w* ]* )?(?:TRACKED|NEW|DELETE)\((\w+)[,)]", re.MULTILINE)


def wrapped_functions(*, cpp: bool = False) -> list[str]:
    """The functions that the linker has to replace: those that the source defines.

    Args:
        cpp: Those of C++ as well.

    Example:
        >>> wrapped_functions()[:3]
        ['malloc', 'calloc', 'realloc']
    """
    names = [name for name in _WRAPPED.findall(SOURCE.read_text()) if name != "name"]
    return [name for name in names if cpp or not name.startswith("_Z")]


def build_flags(*, cpp: bool = False) -> list[str]:
    """The words for the compiler that link Heap Tracker into a program.

    Example:
        >>> "-Wl,--wrap=aligned_alloc" in build_flags()
        True
    """
    wraps = [f"-Wl,--wrap={name}" for name in wrapped_functions(cpp=cpp)]
    # The source is C also for a C++ compiler.
    source = ["-DHEAP_TRACK_CPP", "-x", "c", str(SOURCE), "-x", "none"] if cpp else [str(SOURCE)]
    return [f"-I{SOURCE.parent}", *source, *wraps]


def run_tracked(
    command: Sequence[str],
    *,
    threshold_bytes: int | None = None,
    level: Level = "warnings",
    log: Path | None = None,
) -> int:
    """Run a program with Heap Tracker preloaded and wait for it.

    Args:
        command: The program and its arguments.
        threshold_bytes: Above this the lines warn; None is Heap Tracker's own 250 KiB.
        level: Which calls get a line.
        log: Where the lines go; None is standard error.

    Returns:
        Its exit code, 128 + N for signal N.

    Raises:
        RunError: The command is not there, cannot be executed, or nothing can be preloaded into it.
    """
    if not command:
        raise RunError("there is no command to run", hint="heapsmith track -- COMMAND")
    program = find_program(command[0])
    if program is None:
        raise RunError(f"{command[0] or '(an empty word)'}: command not found", exit_code=EXIT_NOT_FOUND)
    problem = judge_program(program).problem
    if problem:
        raise RunError(
            f"{command[0]} cannot be tracked from outside", problem, "link it with `heapsmith track flags`"
        )
    environment = os.environ | {"HEAP_TRACK_LOG": level}
    if threshold_bytes is not None:
        environment["HEAP_TRACK_THRESHOLD"] = str(threshold_bytes)
    if log is not None:
        try:
            log.write_text("")
        except OSError as error:
            raise RunError(f"{log} cannot be written", error.strerror or str(error)) from error
        environment["HEAP_TRACK_FILE"] = str(log.absolute())
    own = str(library("libheapsmith_track.so"))
    before = environment.get("LD_PRELOAD")
    environment["LD_PRELOAD"] = f"{own}:{before}" if before else own
    try:
        code = subprocess.call(list(command), env=environment)
    except OSError as error:
        raise RunError(
            f"{command[0]} cannot be executed", error.strerror or str(error), exit_code=EXIT_NOT_EXECUTABLE
        ) from error
    return code if code >= 0 else 128 - code

"""``heapsmith record``: every allocation event of a program, in a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from rich.console import Console

from heapsmith.errors import RunError
from heapsmith.run.attach import Interrupted
from heapsmith.run.attach import attach as attach_to
from heapsmith.run.launched import SignalsPassedOn
from heapsmith.run.record import Recording, RecordWishes, exit_code_of
from heapsmith.run.threshold import Threshold
from heapsmith.show.recorded import render_record_summary
from heapsmith.trace import ModuleRecord
from heapsmith.units import parse_bytes
from heapsmith.wire.recording import OnFull, StackMode

_SAMPLE_EVERY: Final = "512KiB"
_SILENT_S: Final = 1.0
_STACKS: Final = {"none": StackMode.NONE, "sampled": StackMode.SAMPLED, "all": StackMode.ALL}


def record(
    *command: Annotated[str, Parameter(help="The program and its arguments, after `--`.")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The trace file (FILE.heap).")],
    stacks: Annotated[
        Literal["none", "sampled", "all"],
        Parameter(
            help="`none`: every event, without the places; `sampled`: one allocation in so many bytes, with its stack; "
            "`all`: every event with its stack."
        ),
    ] = "none",
    sample_every: Annotated[
        str | None,
        Parameter(help="With `--stacks sampled`: bytes between two samples, on average; 512KiB if left out."),
    ] = None,
    on_full: Annotated[
        Literal["wait", "drop"],
        Parameter(
            help="What a thread does that is ahead of the recorder: wait for it, or drop events and count them."
        ),
    ] = "wait",
    dump_above: Annotated[
        str | None,
        Parameter(
            help="Write a report (FILE.heap.html) once live bytes have crossed this, before anybody kills the program."
        ),
    ] = None,
    attach: Annotated[
        int | None, Parameter(help="Record this running process instead, until it ends or Ctrl-C; needs gdb.")
    ] = None,
    force: Annotated[bool, Parameter(negative="", help="Replace the file if it is there.")] = False,
    python_objects: Annotated[
        bool, Parameter(help="Record CPython's own objects, which malloc never sees.")
    ] = True,
    names: Annotated[
        bool,
        Parameter(
            help="Write the names of native frames into the file, for other machines; it takes seconds."
        ),
    ] = True,
) -> int:
    """Record every allocation event of a program and of all that it starts.

    Its output, signals and exit code stay its own; the summary goes to standard error.

    Example: heapsmith record -o /tmp/a.heap --force -- python3 -c "print(sum(range(10**6)))"
    """
    if sample_every is not None and stacks != "sampled":
        raise RunError(f"--sample-every does nothing with --stacks {stacks}", hint="add --stacks sampled")
    every_bytes = parse_bytes(sample_every or _SAMPLE_EVERY)
    if every_bytes == 0:
        raise RunError("--sample-every 0 makes no sense", hint="for every allocation take --stacks all")
    wishes = RecordWishes(
        stacks=_STACKS[stacks],
        sample_every_bytes=every_bytes,
        on_full=OnFull.WAIT if on_full == "wait" else OnFull.DROP,
        python_objects=python_objects,
        names_s=RecordWishes.names_s if names else 0.0,
    )
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    threshold = Threshold(parse_bytes(dump_above), output, force=force) if dump_above else None
    if attach is not None:
        if command:
            raise RunError("--attach takes no command", hint="leave out what follows `--`")
        with Interrupted() as interrupted:
            result = attach_to(attach, output, wishes, force=force, is_over=lambda: interrupted.times > 0)
    else:
        recording = Recording(command, output, wishes, force=force)
        recording.recorder.on_module = _NamingProgress(console)
        with SignalsPassedOn(recording):
            result = recording.wait(threshold.look if threshold else None)
    for note in result.notes:
        console.print(f"heapsmith: {note}")
    if threshold is not None and threshold.report is not None:
        console.print(f"heapsmith: live bytes crossed {dump_above}: {threshold.wait()}")
    console.print(f"heapsmith: {render_record_summary(result, output)}")
    return exit_code_of(result.exit)


class _NamingProgress:
    """Says what is looked up when it takes longer than a person waits without asking."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s: float | None = None

    def __call__(self, module: ModuleRecord, done: int, total: int) -> None:
        now_s = time.monotonic()
        if self._next_s is None:
            self._next_s = now_s + _SILENT_S
        elif now_s >= self._next_s:
            self._next_s = now_s + _SILENT_S
            self._console.print(f"heapsmith: looking up names: {module.path} ({done} of {total} files done)")

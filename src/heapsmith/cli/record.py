"""``heapsmith record``: every allocation event of a program, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from rich.console import Console

from heapsmith.errors import RunError
from heapsmith.run.launched import SignalsPassedOn
from heapsmith.run.record import Recording, RecordWishes, exit_code_of
from heapsmith.show.recorded import render_record_summary
from heapsmith.units import parse_bytes
from heapsmith.wire.recording import OnFull, StackMode

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
        str, Parameter(help="With `--stacks sampled`: bytes between two samples, on average.")
    ] = "512KiB",
    on_full: Annotated[
        Literal["wait", "drop"],
        Parameter(
            help="What a thread does that is ahead of the recorder: wait for it, or drop events and count them."
        ),
    ] = "wait",
    force: Annotated[bool, Parameter(negative="", help="Replace the file if it is there.")] = False,
    python_objects: Annotated[
        bool, Parameter(help="Record CPython's own objects, which malloc never sees.")
    ] = True,
) -> int:
    """Record every allocation event of a program and of all that it starts.

    Its output, signals and exit code stay its own; the summary goes to standard error.

    Example: heapsmith record -o /tmp/a.heap --force -- python3 -c "print(sum(range(10**6)))"
    """
    every_bytes = parse_bytes(sample_every)
    if every_bytes == 0:
        raise RunError("--sample-every 0 makes no sense", hint="for every allocation take --stacks all")
    wishes = RecordWishes(
        stacks=_STACKS[stacks],
        sample_every_bytes=every_bytes,
        on_full=OnFull.WAIT if on_full == "wait" else OnFull.DROP,
        python_objects=python_objects,
    )
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    recording = Recording(command, output, wishes, force=force)
    with SignalsPassedOn(recording):
        result = recording.wait()
    for note in result.notes:
        console.print(f"heapsmith: {note}")
    console.print(f"heapsmith: {render_record_summary(result, output)}")
    return exit_code_of(result.exit)

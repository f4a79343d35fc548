"""``heapsmith osmem``: the teaching allocator, its checker, its traces, its pictures and its costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from heapsmith.errors import EXIT_FAILED, HeapsmithError
from heapsmith.osmem.blocks import PREALLOCATION_BYTES, Layout
from heapsmith.osmem.checker import Verdict, check_library, choose_scenarios
from heapsmith.osmem.libraries import build_library, built_library, linking_flags
from heapsmith.osmem.model import Coalesce, Fit, Model
from heapsmith.osmem.scenarios import random_scenario
from heapsmith.osmem.script import Script, parse_script
from heapsmith.osmem.study import STUDIED, random_workload
from heapsmith.osmem.study import study as run_study
from heapsmith.osmem.tracing import On, read_script_text, trace_script
from heapsmith.show.osmem import text
from heapsmith.show.osmem.drawing import HeapDrawing
from heapsmith.show.osmem.study_view import print_study, save_study, study_document
from heapsmith.units import parse_bytes

osmem = App(
    name="osmem",
    help="The teaching allocator: build it, trace it, check anybody's, see its heap, study its policies.\n\n"
    "Example: heapsmith osmem check",
)

LayoutOption = Annotated[Layout, Parameter(help="Header layout: v1 (24 bytes) or v2 (32 bytes).")]
ScriptArgument = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="A file of calls like `p = malloc 1000`, one a line; - is standard input.",
    ),
]
JsonOption = Annotated[bool, Parameter(negative="", help="Print one JSON document and nothing else.")]


@osmem.command
def build(
    *,
    output: Annotated[
        str, Parameter(alias="-o", help="The library to write, or a directory for it.")
    ] = "libosmem.so",
    layout: LayoutOption = "v1",
    option: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Compile from source with this compiler option (may be repeated), e.g. --option=-g.",
        ),
    ] = None,
) -> None:
    """Write libosmem.so, ready to link, with osmem.h beside it.

    Example: heapsmith osmem build -o libosmem.so --layout v2
    """
    # Path would forget the slash, and the directory that is not there would become a file of its name.
    target = Path(output, "libosmem.so") if output.endswith("/") else Path(output)
    library = build_library(target, layout, compiler_options=option or [])
    text.print_built(library, layout, linking_flags(library))


@osmem.command
def trace(
    script: ScriptArgument,
    *,
    on: Annotated[
        On, Parameter(help="Run it on the native library, on the model, or on both and compare.")
    ] = "both",
    layout: LayoutOption = "v1",
    lib: Annotated[Path | None, Parameter(help="Run it on this libosmem.so instead of ours.")] = None,
    json: JsonOption = False,
) -> int:
    """Print the calls and system calls of a script; exit 1 if library and model disagree.

    Example: echo "p = malloc 1000" | heapsmith osmem trace -
    """
    tracing = trace_script(_read_script(script), layout, on, lib)
    if json:
        text.print_json(text.trace_document(tracing))
    else:
        text.print_trace(tracing)
    return 0 if tracing.agree else EXIT_FAILED


@osmem.command
def check(
    *names: Annotated[str, Parameter(help="Scenarios, by name or pattern (realloc*); all when left out.")],
    lib: Annotated[Path | None, Parameter(help="The libosmem.so to check; ours when left out.")] = None,
    layout: LayoutOption = "v1",
    verbose: Annotated[bool, Parameter(alias="-v", negative="", help="Show where the traces part.")] = False,
    random: Annotated[
        int, Parameter(help="Instead of the scenarios: so many random programs of 120 calls each.")
    ] = 0,
    seed: Annotated[int, Parameter(help="Which random programs.")] = 0,
    list_: Annotated[
        bool, Parameter(name="--list", negative="", help="Show the scenarios and their rules.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Hold a libosmem.so against the model, rule by rule; exit 1 if a scenario fails.

    Example: heapsmith osmem check 'realloc*' -v
    """
    if list_:
        text.print_scenarios(choose_scenarios(names))
        return 0
    library = lib or built_library(layout)
    if random < 0:
        raise HeapsmithError(f"cannot run {random} programs", hint="for example: --random 1000")
    if names and random:
        raise HeapsmithError("check runs either named scenarios or random programs", "both were asked for")
    scenarios = [random_scenario(seed + number) for number in range(random)] or choose_scenarios(names)
    verdicts: list[Verdict] = []
    with text.progress("scenarios", len(scenarios)) as on_progress:
        for verdict in check_library(library, layout, scenarios):
            verdicts.append(verdict)
            on_progress(len(verdicts), len(scenarios))
            if not json and not (random and verdict.passed):
                text.print_verdict(verdict, verbose=verbose)
    if json:
        text.print_json(text.check_document(verdicts, library, layout))
    else:
        text.print_total(verdicts)
    return 0 if all(verdict.passed for verdict in verdicts) else EXIT_FAILED


@osmem.command
def draw(
    script: ScriptArgument,
    *,
    output: Annotated[
        Path, Parameter(alias="-o", help="A player (.html), a drawing (.svg) or pixels (.png).")
    ],
    layout: LayoutOption = "v1",
    fit: Annotated[Fit, Parameter(help="Which free block is taken.")] = "best",
    coalesce: Annotated[Coalesce, Parameter(help="When free neighbours are joined.")] = "before-search",
    split: Annotated[bool, Parameter(help="Whether blocks that are too large are cut.")] = True,
    preallocation: Annotated[
        str, Parameter(help="How much heap the first request gets, e.g. 4KiB; 0: what it needs.")
    ] = f"{PREALLOCATION_BYTES}",
    steps: Annotated[str | None, Parameter(help="Draw only these steps, e.g. 3-9.")] = None,
) -> None:
    """Draw the heap after each step of a script: what was split, merged, moved and grown, and why.

    Example: echo "p = malloc 1000" | heapsmith osmem draw - -o heap.html
    """
    model = Model(
        layout, fit=fit, coalesce=coalesce, split=split, preallocation_bytes=parse_bytes(preallocation)
    )
    HeapDrawing(_read_script(script), model, _parse_steps(steps)).save(output)
    text.print_line(str(output))


@osmem.command
def study(
    script: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="A script; - is standard input.")
    ] = None,
    *,
    random: Annotated[int | None, Parameter(help="Instead of a script: so many random calls.")] = None,
    seed: Annotated[int, Parameter(help="Which random calls.")] = 0,
    layout: LayoutOption = "v1",
    output: Annotated[
        Path | None, Parameter(alias="-o", help="Draw the comparison: .svg, .png or .html.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare policies on one program: system calls, peak heap, fragmentation, search steps.

    Example: heapsmith osmem study --random 1000
    """
    if (script is None) == (random is None):
        raise HeapsmithError(
            "study needs one program", "give a SCRIPT or --random N, not both and not neither"
        )
    if random is not None:
        if random < 1:
            raise HeapsmithError(f"cannot study {random} calls", hint="for example: --random 1000")
        program = parse_script(random_workload(random, seed), f"{random:,} random calls (seed {seed})")
    else:
        program = _read_script(script or "")
    with text.progress("policies", len(STUDIED)) as on_progress:
        outcomes = run_study(program, layout, on_progress=on_progress)
    title = f"{program.source}, layout {layout}"
    if json:
        text.print_json(study_document(outcomes, program.source, layout))
    else:
        print_study(outcomes, title)
    if output is not None:
        save_study(outcomes, title, output)


def _read_script(path: str) -> Script:
    source = "<stdin>" if path == "-" else path
    return parse_script(read_script_text(path, sys.stdin.read() if path == "-" else None), source)


def _parse_steps(steps: str | None) -> tuple[int, int] | None:
    if steps is None:
        return None
    first, dash, last = steps.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise HeapsmithError(f"{steps!r} is no range of steps", hint="write 3-9, or 4")
    return int(first), int(last if dash else first)

"""``heapsmith leaks``: what was still live at exit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from heapsmith.cli.trace_options import TraceOptions, check_output, refuse_to_judge
from heapsmith.errors import EXIT_FAILED
from heapsmith.outputs import write_output
from heapsmith.show.leaks import build_leaks_document, render_leaks, render_leaks_list
from heapsmith.show.terminal import encode_json, encode_text, print_json, print_text
from heapsmith.trace.leaks import find_left
from heapsmith.units import parse_bytes


def leaks(
    *files: Annotated[str, Parameter(help="Traces: files, folders of them or patterns.")],
    fail_above: Annotated[
        str | None, Parameter(help="Exit with 1 if more bytes than this are left, known caches not counted.")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        Parameter(
            help="Regular expression: do not count stacks with a frame that matches; repeat it.", negative=""
        ),
    ] = None,
    format: Annotated[
        Literal["text", "json", "leaks.txt"],
        Parameter(help="leaks.txt: metamalloc's list, one line for each size class."),
    ] = "text",
    json: Annotated[bool, Parameter(help="The same as --format json.", negative="")] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="Write it to this file.")] = None,
    force: Annotated[bool, Parameter(help="Replace an output that exists.", negative="")] = False,
    options: TraceOptions | None = None,
) -> int:
    """List what was still live at exit by place, known one-time caches apart.

    Example: heapsmith leaks /tmp/a.heap --fail-above 1MiB
    """
    limit = None if fail_above is None else parse_bytes(fail_above)
    check_output(output, force=force)
    chosen = options or TraceOptions()
    chosen.ignored = ignore or []
    _, report = chosen.read(files)
    left = find_left(report, chosen.ignored)
    failed = limit is not None and left.remaining_bytes > limit
    if limit is not None and not failed:
        refuse_to_judge([report])
    if json or format == "json":
        document = build_leaks_document(report, left, limit)
        if output is None:
            print_json(document)
        else:
            write_output(output, encode_json(document))
    elif format == "leaks.txt":
        text = render_leaks_list(report)
        if output is None:
            sys.stdout.write(text)
        else:
            write_output(output, text.encode())
    elif output is None:
        print_text(render_leaks(report, left, limit))
    else:
        write_output(output, encode_text(render_leaks(report, left, limit)))
    return EXIT_FAILED if failed else 0

"""``heapsmith diff``: what grew and what shrank between two recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from heapsmith.cli.trace_options import TraceOptions, check_output, refuse_to_judge
from heapsmith.errors import EXIT_FAILED
from heapsmith.outputs import write_output
from heapsmith.show.terminal import encode_json, encode_text, print_json, print_text
from heapsmith.show.trace_difference import (
    build_difference_document,
    render_difference,
    render_difference_page,
)
from heapsmith.trace.difference import compare_reports
from heapsmith.units import parse_bytes


def diff(
    old: Annotated[str, Parameter(help="The trace before: a file, a folder or a pattern.")],
    new: Annotated[str, Parameter(help="The trace after.")],
    *,
    fail_above: Annotated[
        str | None, Parameter(help="Exit with 1 if the peak or what is live at the end grew by more bytes.")
    ] = None,
    format: Annotated[
        Literal["text", "html", "json"] | None,
        Parameter(help="text, unless --output ends in .html or .json."),
    ] = None,
    json: Annotated[bool, Parameter(help="The same as --format json.", negative="")] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="Write it to this file.")] = None,
    force: Annotated[bool, Parameter(help="Replace an output that exists.", negative="")] = False,
    options: TraceOptions | None = None,
) -> int:
    """Tell what grew and what shrank, by place and by size, in bytes and counts.

    Example: heapsmith diff /tmp/a.heap /tmp/a.heap --fail-above 1MiB
    """
    limit = None if fail_above is None else parse_bytes(fail_above)
    endings = {".html": "html", ".json": "json"}
    chosen = "json" if json else format or (endings.get(output.suffix, "text") if output else "text")
    if chosen == "html" and output is None:
        output = Path(f"{Path(old).stem}-{Path(new).stem}.html")
    check_output(output, force=force)
    reading = options or TraceOptions()
    reports = reading.read([old])[1], reading.read([new])[1]
    difference = compare_reports(*reports)
    failed = limit is not None and difference.growth_bytes > limit
    if limit is not None and not failed:
        refuse_to_judge(reports)
    if chosen == "json":
        document = build_difference_document(difference, limit)
        if output is None:
            print_json(document)
        else:
            write_output(output, encode_json(document))
    elif chosen == "html":
        assert output is not None
        write_output(output, render_difference_page(difference).encode())
    elif output is None:
        print_text(render_difference(difference, limit))
    else:
        write_output(output, encode_text(render_difference(difference, limit)))
    return EXIT_FAILED if failed else 0

"""``heapsmith report``: what happened in a recorded run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from heapsmith.cli.trace_options import TraceOptions, check_output
from heapsmith.errors import HeapsmithError
from heapsmith.outputs import write_output
from heapsmith.show.terminal import print_json, print_text
from heapsmith.trace.inputs import find_traces, split_inputs

Format = Literal["html", "text", "json", "pprof", "speedscope", "folded", "parquet"]
_ENDINGS: Final[dict[str, Format]] = {
    ".html": "html", ".htm": "html", ".txt": "text", ".json": "json", ".pb.gz": "pprof", ".pprof": "pprof",
    ".speedscope.json": "speedscope", ".folded": "folded", ".collapsed": "folded", ".parquet": "parquet",
}  # fmt: skip
_MEASURES: Final = {
    "peak": "live_bytes_at_peak",
    "leaks": "live_bytes_at_exit",
    "allocated": "allocated_bytes",
    "temporary": "temporary_bytes",
}


def report(
    *files: Annotated[
        str,
        Parameter(help="Traces, or Parquet files that this verb wrote (URLs too): files, folders, patterns."),
    ],
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            help="Where to write it; its ending tells the format if --format does not.",
        ),
    ] = None,
    format: Annotated[Format | None, Parameter(help="text if neither this nor --output tells.")] = None,
    measure: Annotated[
        Literal["peak", "leaks", "allocated", "temporary"] | None,
        Parameter(help="What folded stacks count; peak if left out."),
    ] = None,
    json: Annotated[bool, Parameter(help="The same as --format json.", negative="")] = False,
    force: Annotated[bool, Parameter(help="Replace an output that exists.", negative="")] = False,
    options: TraceOptions | None = None,
) -> int:
    """Tell what happened: the peak and who held it, what stays, lifetimes, sizes, threads, fragmentation, where.

    Without --output, text, JSON and folded stacks go to standard output, the others to a file beside the trace.

    Example: heapsmith report /tmp/a.heap -o /tmp/a.html --force
    """
    chosen: Format = "json" if json else format or _format_of(output)
    if measure is not None and chosen != "folded":
        raise HeapsmithError(f"--measure does nothing with --format {chosen}", hint="add --format folded")
    of_traces, of_tables = split_inputs(files)
    first = [Path(name.rstrip("/*").rpartition("/")[2]) for name in of_tables]
    if of_traces or not of_tables:
        first = find_traces(of_traces)
    if output is None and chosen in {"html", "pprof", "speedscope", "parquet"}:
        ending = {"html": ".html", "pprof": ".pb.gz", "speedscope": ".speedscope.json", "parquet": ".parquet"}
        output = first[0].with_suffix(ending[chosen])
    check_output(output, force=force)
    traces, made = (options or TraceOptions()).read(files)
    data: bytes | None = None
    if chosen == "html":
        from heapsmith.show.report_page import render_report_page

        data = render_report_page(made).encode()
    elif chosen == "json":
        from heapsmith.show.report_document import build_report_document
        from heapsmith.show.terminal import encode_json

        document = build_report_document(made)
        if output is None:
            print_json(document)
        else:
            data = encode_json(document)
    elif chosen == "text":
        from heapsmith.show.report_text import render_report
        from heapsmith.show.terminal import encode_text

        if output is None:
            print_text(render_report(made))
        else:
            data = encode_text(render_report(made))
    elif chosen == "parquet":
        from heapsmith.trace.parquet import write_tables

        assert output is not None
        for path in write_tables(traces, made, output, force=force):
            _say(path)
        return 0
    else:
        from heapsmith.show.profiles import render_folded, render_pprof, render_speedscope

        if chosen == "pprof":
            data = render_pprof(made)
        elif chosen == "speedscope":
            data = render_speedscope(made)
        else:
            text = render_folded(made, _MEASURES[measure or "peak"])
            if output is None:
                sys.stdout.write(text)
            else:
                data = text.encode()
    if data is not None and output is not None:
        write_output(output, data)
        _say(output)
    return 0


def _format_of(output: Path | None) -> Format:
    if output is None:
        return "text"
    name = output.name.lower()
    ends = sorted((ending for ending in _ENDINGS if name.endswith(ending)), key=len)
    if ends:
        return _ENDINGS[ends[-1]]
    if output.suffix:
        known = ", ".join(sorted(_ENDINGS))
        raise HeapsmithError(f"{output} does not tell a format", f"known endings are {known}", "add --format")
    return "html"


def _say(path: Path) -> None:
    print(f"heapsmith: wrote {path}", file=sys.stderr)  # noqa: T201 (a diagnostic, not the result)

"""The options of every verb that reads traces: where names come from, what is kept on purpose, who does the work."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heapsmith.errors import HeapsmithError
from heapsmith.lab.executors import open_executor
from heapsmith.show.trials_progress import TrialsProgress
from heapsmith.symbols import FrameNames
from heapsmith.trace import Trace, open_trace
from heapsmith.trace.caches import CacheRules, read_rules
from heapsmith.trace.from_parquet import convert_tables, find_tables
from heapsmith.trace.inputs import find_traces, split_inputs
from heapsmith.trace.report import Report, build_report
from heapsmith.wire.classes import CLASS_BYTES

_SECONDS_AN_EVENT = 6e-8


@Parameter(name="*")
@dataclass(kw_only=True)
class TraceOptions:
    """How traces are read."""

    symbols: Annotated[
        list[Path] | None,
        Parameter(
            help="Folder with programs, libraries or debug files (.build-id), for traces of other machines; repeat it.",
            negative="",
        ),
    ] = None
    rules: Annotated[
        list[Path] | None,
        Parameter(help="TOML file with further known one-time caches; repeat it.", negative=""),
    ] = None
    executor: Annotated[
        str | None, Parameter(help="dask://HOST:PORT analyses several files on a cluster that sees them.")
    ] = None
    ignored: Annotated[list[str], Parameter(show=False, parse=False)] = field(default_factory=list[str])

    def read(self, names: Sequence[str], *, moments: int = 120) -> tuple[list[Trace], Report]:
        """Open traces and make their report, with progress on standard error."""
        rules = CacheRules(read_rules(self.rules or []), self.ignored)
        for folder in self.symbols or []:
            if not folder.is_dir():
                raise HeapsmithError(
                    f"--symbols {folder} is no folder", hint="give the folder with the files"
                )
        of_traces, of_tables = split_inputs(names)
        paths = find_traces(of_traces) if of_traces or not of_tables else []
        bases = list(dict.fromkeys(base for name in of_tables for base in find_tables(name)))
        done = 0
        with (
            tempfile.TemporaryDirectory(prefix="heapsmith-") as folder,
            open_executor(self.executor) as workers,
            TrialsProgress(1, "reading events", _SECONDS_AN_EVENT) as progress,
        ):
            shown = [str(path) for path in paths]
            for base in bases:
                progress.begin(1, f"reading {base}.events.parquet", 0.0)
                converted = convert_tables(base, Path(folder), progress.advance)
                paths += converted
                shown += [f"{base}.parquet"] * len(converted)
            traces = [open_trace(path) for path in paths]
            total = max(1, sum(trace.events for trace in traces))
            progress.begin(total, "reading events", _SECONDS_AN_EVENT)

            def count(events: int) -> None:
                nonlocal done
                if not done:  # what took its time until now were names, and compiling at the first use
                    progress.begin(total, "reading events", _SECONDS_AN_EVENT)
                done += events
                progress.advance(done)

            report = build_report(
                traces,
                FrameNames(self.symbols or []),
                rules,
                executor=workers.executor,
                class_bytes=CLASS_BYTES,
                moments=moments,
                on_events=count,
            )
            report.paths = shown
        return traces, report


def refuse_to_judge(reports: Sequence[Report]) -> None:
    """Refuse to say that a threshold was kept by recordings whose end is not there.

    Raises:
        HeapsmithError: One of them is damaged, or its recorder was stopped.
    """
    for report in reports:
        for path, damage, complete in zip(report.paths, report.damages, report.complete, strict=True):
            if damage is not None or not complete:
                raise HeapsmithError(
                    "whether the threshold was kept cannot be told",
                    f"{path} is damaged" if damage is not None else f"{path} has no end",
                    "record again",
                )


def check_output(path: Path | None, *, force: bool) -> None:
    """Refuse an output that cannot be written, before the work is done.

    Raises:
        HeapsmithError: It exists, or its folder does not.
    """
    if path is None:
        return
    if path.exists() and not path.is_dir() and not force and path.is_file():
        raise HeapsmithError(f"{path} exists", "nothing is replaced unasked", "--force replaces it")
    if not path.absolute().parent.is_dir():
        raise HeapsmithError(f"cannot write {path}", "its folder does not exist", "make the folder first")

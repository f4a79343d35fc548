"""The options of every verb that runs a program over and over: how it serves, when it counts as failed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heapsmith.errors import HeapsmithError
from heapsmith.lab.trials import Workload, check_metric
from heapsmith.run.outside import Service, signal_number
from heapsmith.units import parse_seconds


@Parameter(name="*")
@dataclass(kw_only=True)
class WorkloadOptions:
    """How the program is run in each trial."""

    ready: Annotated[
        str | None,
        Parameter(
            help="COMMAND is a server: it is ready when this port answers, or this pattern is in its output"
        ),
    ] = None
    load: Annotated[str | None, Parameter(help="shell command that puts load on the ready server")] = None
    settle: Annotated[
        str | None, Parameter(help="quiet time after the load, before what stays resident is measured (2s)")
    ] = None
    stop_signal: Annotated[str, Parameter(help="signal that stops the server politely")] = "TERM"
    metric: Annotated[
        str | None,
        Parameter(help="pattern with one group: a number in the output of the load (or of COMMAND)"),
    ] = None
    metric_less: Annotated[bool, Parameter(help="a smaller metric is the better one", negative="")] = False
    timeout: Annotated[str | None, Parameter(help="end a trial that takes longer; it counts as hung")] = (
        "10min"
    )
    same_output: Annotated[
        bool, Parameter(help="standard output has to stay what it is today", negative="")
    ] = False
    expect_exit: Annotated[int, Parameter(help="exit code of a run that went well")] = 0

    def workload(self, command: tuple[str, ...]) -> Workload:
        """Check the options and make the workload of them."""
        if not command:
            raise HeapsmithError("no command to run", hint="put it at the end, after `--`")
        service = None
        settle_s, stop_signal = parse_seconds(self.settle or "2s"), signal_number(self.stop_signal)
        if self.ready is not None:
            service = Service(
                ready=self.ready,
                load=self.load,
                settle_s=settle_s,
                stop_signal=stop_signal,
            )
        elif self.load is not None:
            raise HeapsmithError("--load needs --ready", "the load may start only when the server is ready")
        elif self.settle is not None:
            raise HeapsmithError("--settle needs --ready", "it is the quiet time of a server after its load")
        if self.metric is not None:
            check_metric(self.metric)
        return Workload(
            command=command,
            directory=str(Path.cwd()),
            environment=dict(os.environ),
            service=service,
            timeout_s=None if self.timeout is None else parse_seconds(self.timeout),
            same_output=self.same_output,
            metric=self.metric,
            metric_less_is_better=self.metric_less,
            exit_code=self.expect_exit,
        )

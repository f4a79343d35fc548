"""``heapsmith doctor``: what works on this machine, and what to do about what does not."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from heapsmith.errors import EXIT_FAILED
from heapsmith.lab.doctor import Finding, Verdict, examine
from heapsmith.show.doctor import render_finding


def doctor(*, json: Annotated[bool, Parameter(help="One JSON document on standard output.")] = False) -> int:
    """Try what heapsmith needs and say what works here.

    The exit code is 1 when the main job, watching and limiting a program, does not work.

    Example: heapsmith doctor
    """
    findings = list[Finding]()
    console = Console(stderr=json)
    for finding in examine():
        findings.append(finding)
        console.print(render_finding(finding))
    if json:
        print(msgspec.json.encode(findings).decode())  # noqa: T201
    failed = any(finding.is_essential and finding.verdict is Verdict.FAILS for finding in findings)
    return EXIT_FAILED if failed else 0

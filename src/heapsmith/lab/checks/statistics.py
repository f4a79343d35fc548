"""The promises of the statistics call, on any allocator: each in a process of its own, its verdict from how it ended."""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Literal

import msgspec

from heapsmith.errors import CheckError
from heapsmith.native import library
from heapsmith.peers.candidate import Candidate

STATISTICS_CHECKS_SCHEMA: Final = "heapsmith.check-stats/1"
_PROGRAM: Final = "heapsmith_statistics_checks"
_WATCH: Final = "libheapsmith_watch.so"
_TIMEOUT_S: Final = 120
_BROKEN: Final = 1
_UNSUPPORTED: Final = 77

Verdict = Literal["pass", "fail", "unsupported"]


class StatisticsCheck(msgspec.Struct, frozen=True):
    """A promise of the statistics call."""

    name: str
    promise: str


class StatisticsVerdict(msgspec.Struct, frozen=True):
    """What became of a promise on one allocator."""

    name: str
    verdict: Verdict
    detail: str


@cache
def list_statistics_checks() -> tuple[StatisticsCheck, ...]:
    """Return every check there is, in the order in which they run.

    Example:
        >>> list_statistics_checks()[0].name
        'big-block'
    """
    listed = subprocess.run([library(_PROGRAM), "--list"], capture_output=True, text=True, check=True).stdout
    return tuple(StatisticsCheck(*line.split("\t", 1)) for line in listed.splitlines())


def select_statistics_checks(names: Sequence[str]) -> list[StatisticsCheck]:
    """Choose checks by name; none is all.

    Raises:
        CheckError: A name that no check has.
    """
    known = {check.name: check for check in list_statistics_checks()}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            raise CheckError(f"there is no check {name!r} of the statistics call", hint=hint)
    return [check for name, check in known.items() if not names or name in names]


def run_statistics_checks(
    allocator: Candidate,
    checks: Sequence[StatisticsCheck] | None = None,
    on_verdict: Callable[[StatisticsVerdict], None] = lambda _: None,
) -> list[StatisticsVerdict]:
    """Run checks on an allocator, watched.

    Args:
        allocator: What answers malloc; heapsmith counts in front of it.
        checks: Which; all if left out.
        on_verdict: Called after each: progress for people.

    Example:
        >>> from heapsmith.peers.candidate import read_candidate
        >>> chosen = select_statistics_checks(["null"])
        >>> run_statistics_checks(read_candidate("glibc"), chosen)[0].verdict
        'pass'
    """
    environment = allocator.environment(os.environ)
    behind = environment.get("LD_PRELOAD")
    environment["LD_PRELOAD"] = f"{library(_WATCH)}:{behind}" if behind else str(library(_WATCH))
    verdicts = list[StatisticsVerdict]()
    for check in list_statistics_checks() if checks is None else checks:
        verdict = _run(check, environment)
        on_verdict(verdict)
        verdicts.append(verdict)
    return verdicts


def _run(check: StatisticsCheck, environment: dict[str, str]) -> StatisticsVerdict:
    try:
        child = subprocess.run(
            [library(_PROGRAM), check.name],
            env=environment,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return StatisticsVerdict(check.name, "fail", f"not done after {_TIMEOUT_S} s")
    said = child.stdout.decode(errors="replace").strip()
    if b"cannot be preloaded" in child.stderr:
        return StatisticsVerdict(check.name, "unsupported", "the library cannot be preloaded")
    if child.returncode == 0:
        return StatisticsVerdict(check.name, "pass", "")
    if child.returncode == _UNSUPPORTED:
        return StatisticsVerdict(check.name, "unsupported", said)
    if child.returncode == _BROKEN:
        return StatisticsVerdict(check.name, "fail", said or "broken")
    if child.returncode < 0:
        return StatisticsVerdict(check.name, "fail", f"ended by {signal.Signals(-child.returncode).name}")
    return StatisticsVerdict(check.name, "fail", f"ended with exit code {child.returncode}")

"""Running the compiled checks: each in a child process, its verdict from how it ended."""

from __future__ import annotations

import difflib
import fnmatch
import signal
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Literal

import msgspec

from heapsmith.errors import CheckError
from heapsmith.lab.subjects import Subject
from heapsmith.native import library

CHECKS_SCHEMA: Final = "heapsmith.check/1"
TIMEOUT_S: Final = 120
_UNSUPPORTED: Final = 77
_BROKEN: Final = 1

Verdict = Literal["pass", "fail", "unsupported"]
Kind = Literal["contract", "hardening"]


class Check(msgspec.Struct, frozen=True):
    """A promise and its kind: what every allocator owes, or what a hardened one must catch."""

    name: str
    kind: Kind
    promise: str


class CheckResult(msgspec.Struct, frozen=True):
    """What became of a promise on one allocator."""

    name: str
    kind: Kind
    verdict: Verdict
    detail: str


@cache
def list_checks() -> list[Check]:
    """Return every check there is, in the order in which they run.

    Example:
        >>> list_checks()[0].name
        'alignment'
    """
    output = subprocess.run([library("checks"), "--list"], capture_output=True, text=True, check=True).stdout
    rows = (line.split("\t", 2) for line in output.splitlines())
    return [
        msgspec.convert({"name": name, "kind": kind, "promise": promise}, Check)
        for name, kind, promise in rows
    ]


def select_checks(names: Sequence[str], *, hardening: bool) -> list[Check]:
    """Choose checks by name or pattern.

    Args:
        names: Names or patterns (``fork*``); empty for all of the contract.
        hardening: Without names, also what a hardened allocator must catch.

    Raises:
        CheckError: A name that no check has.

    Example:
        >>> [check.name for check in select_checks(["real*-growth"], hardening=False)]
        ['realloc-growth']
    """
    known = list_checks()
    if not names:
        return [check for check in known if hardening or check.kind == "contract"]
    for name in names:
        if not any(fnmatch.fnmatch(check.name, name) for check in known):
            near = difflib.get_close_matches(name, [check.name for check in known], n=1)
            raise CheckError(
                f"there is no check {name!r}",
                hint=f"did you mean `{near[0]}`?" if near else "see `heapsmith check --list`",
            )
    # A pattern means the contract; what a hardened allocator must catch is asked for by name, or all of it.
    of_contract = [check for check in known if hardening or check.kind == "contract"]
    return [
        check
        for check in known
        if check.name in names
        or (check in of_contract and any(fnmatch.fnmatch(check.name, name) for name in names))
    ]


def run_check(check: Check, subject: Subject) -> CheckResult:
    """Run one check on an allocator, in a process of its own."""
    try:
        child = subprocess.run(
            [library("checks"), check.name],
            env=subject.environment(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return CheckResult(check.name, check.kind, "fail", f"not done after {TIMEOUT_S} s")
    said = child.stdout.decode(errors="replace").strip()
    if b"cannot be preloaded" in child.stderr:
        return CheckResult(check.name, check.kind, "unsupported", "the library cannot be preloaded")
    if child.returncode == _UNSUPPORTED:
        return CheckResult(check.name, check.kind, "unsupported", said)
    if check.kind == "hardening":
        return _judge_hardening(check, child.returncode, said, child.stderr.decode(errors="replace"))
    if child.returncode == 0:
        return CheckResult(check.name, check.kind, "pass", "")
    if child.returncode == _BROKEN:
        return CheckResult(check.name, check.kind, "fail", said or "broken")
    return CheckResult(check.name, check.kind, "fail", _ending(child.returncode))


def _judge_hardening(check: Check, code: int, said: str, complaint: str) -> CheckResult:
    if code == _BROKEN or code == 0:
        return CheckResult(check.name, check.kind, "fail", said or "not caught")
    last = complaint.strip().splitlines()
    return CheckResult(check.name, check.kind, "pass", last[-1] if last else _ending(code))


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def run_checks(
    checks: Sequence[Check], subject: Subject, on_result: Callable[[CheckResult], None] = lambda _: None
) -> list[CheckResult]:
    """Run checks one after another.

    Args:
        checks: Which.
        subject: On what.
        on_result: Called after each: progress for people.
    """
    results = list[CheckResult]()
    for check in checks:
        result = run_check(check, subject)
        on_result(result)
        results.append(result)
    return results

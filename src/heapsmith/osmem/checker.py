"""Holding any libosmem.so against the model: one scenario, one process, one verdict."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Final

from heapsmith.errors import CheckError
from heapsmith.osmem.blocks import ALIGNMENT_BYTES, HEADER_BYTES, Layout, Step
from heapsmith.osmem.driver import NativeRun, calls_of, run_native
from heapsmith.osmem.libraries import require_layout
from heapsmith.osmem.model import Model
from heapsmith.osmem.scenarios import SCENARIOS, Scenario
from heapsmith.osmem.script import Played, Script, parse_script, play
from heapsmith.osmem.trace_text import format_trace, signal_name

ALLOWED: Final = frozenset({"brk", "mmap", "munmap"})
"""The system calls that the allocator is made of; any other is an offence."""
TIME_LIMIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a library fared in a scenario.

    Attributes:
        scenario: Which.
        offences: What is wrong, in words; the first says it best; empty when it passed.
        expected: The model's trace.
        actual: The library's.
    """

    scenario: Scenario
    offences: tuple[str, ...]
    expected: tuple[str, ...]
    actual: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.offences

    @property
    def points(self) -> int:
        """What it earned."""
        return self.scenario.points if self.passed else 0

    def diff(self) -> list[str]:
        """Return the unified diff from the model's trace to the library's."""
        name = self.scenario.name
        return list(
            difflib.unified_diff(self.expected, self.actual, f"{name}.model", f"{name}.library", lineterm="")
        )


def choose_scenarios(names: Sequence[str]) -> list[Scenario]:
    """Find scenarios by name or pattern (``realloc*``); all of them when none is named.

    Raises:
        CheckError: A name matches none.

    Example:
        >>> [scenario.name for scenario in choose_scenarios(["free*"])]
        ['free-null', 'free-never-shrinks-the-heap', 'free-unmaps']
    """
    known = [scenario.name for scenario in SCENARIOS]
    for name in names:
        if not fnmatch.filter(known, name):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "heapsmith osmem check --list shows them"
            raise CheckError(f"there is no scenario {name!r}", hint=hint)
    if not names:
        return list(SCENARIOS)
    return [scenario for scenario in SCENARIOS if any(fnmatch.fnmatch(scenario.name, name) for name in names)]


def check_library(
    library_path: Path,
    layout: Layout = "v1",
    scenarios: Sequence[Scenario] = tuple(SCENARIOS),
    *,
    time_limit_s: float = TIME_LIMIT_S,
) -> Iterator[Verdict]:
    """Run scenarios against a library, each in a process of its own.

    Args:
        library_path: Any shared object with the four functions.
        layout: The headers that it should have.
        scenarios: Which; see `choose_scenarios` and `random_scenario`.
        time_limit_s: For each scenario.

    Yields:
        One verdict per scenario, in their order, as they come.

    Raises:
        CheckError: The file is no usable library, or has the other layout.
    """
    require_layout(library_path, layout)
    workers = ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0))))
    try:
        yield from workers.map(
            run_scenario, scenarios, repeat(library_path), repeat(layout), repeat(time_limit_s)
        )
    finally:
        workers.shutdown(cancel_futures=True)


def run_scenario(scenario: Scenario, library_path: Path, layout: Layout, time_limit_s: float) -> Verdict:
    """Run one scenario on model and library and compare."""
    script = parse_script(scenario.script(HEADER_BYTES[layout]), scenario.name)
    played = play(script, Model(layout))
    expected = format_trace([one.step for one in played])
    run = run_native(library_path, calls_of(played), time_limit_s=time_limit_s)
    actual = format_trace(run.steps, heap_start=run.heap_start, return_code=run.return_code)
    offences = list(find_offences(script, played, run))
    if not offences and actual != expected:
        offences.append(_first_difference(expected, actual))
    return Verdict(scenario, tuple(offences), tuple(expected), tuple(actual))


def find_offences(script: Script, played: Sequence[Played], run: NativeRun) -> Iterator[str]:
    """Name all that is wrong with a run apart from its trace: its end, its memory, its system calls."""

    def where(index: int) -> str:
        operation = script.operations[min(index, len(script.operations) - 1)]
        return f"line {operation.line}, {operation.text}"

    last = max(0, len(run.steps) - 1)
    match run.ending:
        case "out of time":
            yield f"out of time in {where(last)}"
        case "killed" if run.in_payload:
            yield f"{signal_name(-(run.return_code or 0))} when the memory of {where(last)} was used"
        case "killed":
            yield f"{signal_name(-(run.return_code or 0))} in {where(last)}{_last_words(run)}"
        case "exited":
            yield f"exited with status {run.return_code} in {where(last)}{_last_words(run)}"
        case "finished":
            pass
    for index, step in enumerate(run.steps):
        for call in step.system_calls:
            if call.name not in ALLOWED:
                yield f"forbidden system call {call.name} in {where(index)}"
    for index, step in enumerate(run.steps):
        if step.pointer % ALIGNMENT_BYTES:
            yield f"misaligned: {where(index)} answers an address that is no multiple of {ALIGNMENT_BYTES}"
    yield from _overlaps(script, played, run.steps)
    for index, findings in sorted(run.findings.items()):
        for finding in findings:
            yield f"{finding} ({where(index)})"
    if run.dropped_count:
        yield f"{run.dropped_count} more system calls than could be recorded"


def _last_words(run: NativeRun) -> str:
    lines = [line.strip() for line in run.messages.splitlines() if line.strip()]
    return f": it said {lines[-1][-200:]!r}" if lines else ""


def _overlaps(script: Script, played: Sequence[Played], steps: Sequence[Step]) -> Iterator[str]:
    """Find results that lie in memory which another live result has."""
    live: dict[int, tuple[int, int]] = {}  # by operation: beginning and end
    for index, (one, step) in enumerate(zip(played, steps, strict=False)):
        numbers = one.operation.numbers
        if step.function == "os_free" or (
            step.function == "os_realloc" and (step.pointer or not numbers[-1])
        ):
            live.pop(one.source, None)
        if not step.pointer:
            continue
        size = numbers[0] * numbers[1] if step.function == "os_calloc" else numbers[-1]
        for other, (start, end) in live.items():
            if step.pointer < end and start < step.pointer + size:
                operation, owner = script.operations[index], script.operations[other]
                where = f"line {operation.line}, {operation.text}"
                yield f"overlap: {where}, answers memory that line {owner.line} still has"
                break
        live[index] = (step.pointer, step.pointer + size)


def _first_difference(expected: Sequence[str], actual: Sequence[str]) -> str:
    """Say in one line where two traces part."""
    for wanted, got in zip(expected, actual, strict=False):
        if wanted != got:
            wanted_call, got_call = wanted.split("=")[0].split(), got.split("=")[0].split()
            if wanted_call == got_call:
                return f"{' '.join(got_call)} answers {got.split('= ')[-1]}, not {wanted.split('= ')[-1]}"
            return f"{' '.join(got.split())} where {' '.join(wanted.split())} was expected"
    longer = expected if len(expected) > len(actual) else actual
    extra = longer[min(len(expected), len(actual))]
    return f"{'missing' if longer is expected else 'too much'}: {' '.join(extra.split())}"

"""The suites of local heaps, run small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from heapsmith.errors import CheckError
from heapsmith.lab import local_suites
from heapsmith.lab.bench import Case
from heapsmith.lab.local_suites import LOCAL_SUITES, LocalSuite, Variant, run_local_suite
from heapsmith.show.local_suites import render_local_suite
from watched import needs


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heapsmith", "bench", *words], capture_output=True, text=True, check=False
    )


def test_numpy_is_measured_with_and_without_its_heap() -> None:
    done = bench("numpy", "temporaries-800", "--runs", "1", "--json")
    assert done.returncode == 0, done.stderr
    (suite,) = json.loads(done.stdout)["suites"]
    found = {case["allocator"]: case for case in suite["cases"]}
    assert {"malloc", "numpy_heap", "numpy_heap, huge pages", "default", "out= reused"} == set(found)
    assert all(case["failed"] is None and case["time_s"]["median"] > 0 for case in found.values())
    # What the heap is for: pages are not given back and faulted in again.
    assert found["numpy_heap"]["page_faults"]["median"] < found["malloc"]["page_faults"]["median"] / 4


def test_local_heaps_are_measured_beside_those_of_others() -> None:
    needs("c++")
    suite = run_local_suite("local-heaps", ["requests"], rounds=1)
    names = {case.name for case in suite.cases}
    assert names == {"requests", "requests, first pass"}
    assert [case.failed for case in suite.cases] == [None] * len(suite.cases)
    assert {"malloc", "LocalHeap", "Arena", "pmr monotonic", "floor"} <= {
        case.allocator for case in suite.cases
    }


@pytest.mark.parametrize(
    "words",
    [["numpy", "no-such"], ["python", "rows", "--runs", "0"], ["local-heaps", "--allocator", "no-such"]],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str]) -> None:
    done = bench(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_what_is_missing_is_said_and_what_crashes_is_shown_with_its_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        'row = \'{"time_s": %s, "page_faults": 1, "resident_bytes_peak": 9, "resident_after_bytes": 9}\'\n'
        "if sys.argv[2] == 'crash': os.abort()\n"
        "if sys.argv[2] == 'fail': sys.exit('no luck')\n"
        "import time\n"
        "print(row % (1 if sys.argv[2] == 'steady' else time.time() % 1 + 0.01))\n"
    )
    variants = [Variant(name, (name,)) for name in ("steady", "crash", "fail", "noisy")]
    suite = LocalSuite(
        "made-up", "steady", {"work": ""}, lambda *_: variants, lambda _: [sys.executable, str(program)]
    )
    monkeypatch.setitem(LOCAL_SUITES, "made-up", suite)  # pyright: ignore[reportArgumentType]
    measured = run_local_suite("made-up", (), rounds=2)
    found = {case.allocator: case for case in measured.cases}
    assert found["crash"].failed == "ended by SIGABRT"
    assert found["fail"].failed == "ended with 1: no luck"
    assert found["steady"].time_ratio.ratio == 1
    assert found["noisy"].time_ratio.ratio is not None
    assert render_local_suite(measured, "steady").row_count == 4

    def no_mimalloc(name: str) -> object:
        raise CheckError(f"{name} is not installed")

    said = list[str]()
    monkeypatch.setattr(local_suites, "resolve_subject", no_mimalloc)
    without = LOCAL_SUITES["local-heaps"].variants((), said.append)
    assert [line for line in said if "mimalloc is not installed" in line]
    assert "mimalloc heap" not in {variant.name for variant in without}


def test_a_machine_too_noisy_to_tell_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    counter = tmp_path / "count"
    program.write_text(
        "import pathlib\n"
        f"counter = pathlib.Path({str(counter)!r})\n"
        "number = int(counter.read_text()) + 1 if counter.exists() else 1\n"
        "counter.write_text(str(number))\n"
        'print(\'{"time_s": %d, "page_faults": 1, "resident_bytes_peak": 9, "resident_after_bytes": 9}\' % number)\n'
    )
    variants = [Variant("only")]
    suite = LocalSuite(
        "made-up", "only", {"work": ""}, lambda *_: variants, lambda _: [sys.executable, str(program)]
    )
    monkeypatch.setitem(LOCAL_SUITES, "made-up", suite)  # pyright: ignore[reportArgumentType]
    said = list[str]()
    cases = list[Case]()
    run_local_suite("made-up", (), rounds=7, say=said.append, on_case=cases.extend)
    assert len(cases) == 1
    assert len(said) == 1
    assert "too noisy to tell" in said[0]

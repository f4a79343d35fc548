"""The suites `local-heaps`, `numpy` and `python`: the same work on different sources of memory, interleaved.

Each run is a process of its own that tells what its work took; every variant takes part in every round, in an order that
rotates. Every workload has one thread, and its time is processor time. Ratios are those of a suite's baseline in the same
rounds.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from heapsmith.errors import CheckError
from heapsmith.forge import render_header
from heapsmith.lab.bench import Case, Measured, Suite, compute_case
from heapsmith.lab.subjects import known_subjects, resolve_subject
from heapsmith.spec import load_spec

_WORKLOADS: Final = Path(__file__).resolve().parent / "workloads"
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]
_TIMEOUT_S: Final = 300.0
_NOISE_RATIO: Final = 1.5
"""A baseline whose own interval is wider than this cannot be compared with."""
_FIELD: Final = ("jemalloc", "mimalloc", "tcmalloc", "tbbmalloc")


@dataclass(frozen=True)
class Variant:
    """One way of serving a workload's memory.

    Args:
        name: As it stands in the table.
        arguments: What the workload's program is given after the workload's name.
        environment: What is set for it.
        workloads: Beginnings of the names it takes part in; empty for all.
    """

    name: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    workloads: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocalSuite:
    """Workloads, the variants they run on, and how the program is started.

    Args:
        name: On the command line.
        baseline: In words: what ratios are against. It is the first variant.
        workloads: What each does, by name.
        variants: Makes the variants of this machine, given further allocators, and says what is left out.
        prepared: Makes the command to which a workload and a variant's arguments are added.
    """

    name: str
    baseline: str
    workloads: Mapping[str, str]
    variants: Callable[[Sequence[str], Callable[[str], None]], list[Variant]]
    prepared: Callable[[Path], list[str]]


def _local_heap_variants(allocators: Sequence[str], say: Callable[[str], None]) -> list[Variant]:
    variants = [
        Variant("malloc", ("malloc",)),
        Variant("LocalHeap", ("heapsmith LocalHeap",)),
        Variant("LocalHeap, sized", ("heapsmith LocalHeap, sized",)),
        Variant("Arena", ("heapsmith Arena",)),
        Variant("pmr monotonic", ("pmr monotonic",)),
        Variant("pmr pool", ("pmr unsynchronized pool",)),
        Variant("floor", ("floor",)),
    ]
    try:
        library = resolve_subject("mimalloc").library
    except CheckError as error:
        say(f"mimalloc's heaps are left out: {error}")
    else:
        environment = {"HEAPSMITH_BENCH_MIMALLOC": str(library)}
        variants.insert(4, Variant("mimalloc heap", ("mimalloc heap",), environment))
    variants += [Variant(f"malloc: {name}", ("malloc",), _preload(name)) for name in allocators]
    return variants


def _compiled_local_heaps(folder: Path) -> list[str]:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        raise CheckError(
            "local heaps cannot be measured", "there is no C++ compiler", "install g++ or clang++"
        )
    (folder / "heap.h").write_text(render_header(load_spec("default")))
    program = folder / "local_heaps"
    words = [
        compiler,
        "-O2",
        "-std=c++20",
        f"-I{folder}",
        str(_WORKLOADS / "local_heaps.cc"),
        "-o",
        str(program),
    ]
    done = subprocess.run([*words, "-ldl"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(
            "the workloads of local heaps cannot be compiled", (done.stderr.splitlines() or [""])[0]
        )
    return [str(program)]


_MALLOC_KEEPS: Final = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}


def _numpy_variants(allocators: Sequence[str], say: Callable[[str], None]) -> list[Variant]:
    del say
    return [
        Variant("malloc", ("malloc",)),
        Variant("numpy_heap", ("numpy_heap",)),
        Variant("numpy_heap, huge pages", ("numpy_heap-huge",)),
        *(Variant(name, ("malloc",), _preload(name)) for name in allocators or ("default",)),
        Variant("out= reused", ("reused",), workloads=("temporaries",)),
        # Pandas' hash tables come from malloc, whoever serves NumPy: told to keep them, it does.
        Variant("numpy_heap, malloc keeps", ("numpy_heap",), _MALLOC_KEEPS, ("group-by",)),
    ]


def _python_variants(allocators: Sequence[str], say: Callable[[str], None]) -> list[Variant]:
    installed = known_subjects()
    if not allocators:
        for name in _FIELD:
            if name not in installed:
                say(f"{name} is left out: it is not installed")
        allocators = ["default", "system", *(name for name in _FIELD if name in installed)]
    through_malloc = {"PYTHONMALLOC": "malloc"}
    return [Variant("pymalloc"), *(Variant(name, (), _preload(name) | through_malloc) for name in allocators)]


def _preload(allocator: str) -> dict[str, str]:
    library = resolve_subject(allocator).library
    return {"LD_PRELOAD": str(library)} if library else {}


def _script(name: str) -> Callable[[Path], list[str]]:
    return lambda _: [sys.executable, str(_WORKLOADS / name)]


_TEMPORARIES: Final = {
    f"temporaries-{kilobytes}": f"`a*b + c*b - a` on arrays of {kilobytes * 1000:,} bytes"
    for kilobytes in (100, 800, 8_000, 64_000, 256_000)
}
LOCAL_SUITES: Final = {
    suite.name: suite
    for suite in (
        LocalSuite(
            "local-heaps",
            "malloc",
            {
                "local": "37 sizes from 7 to 2048 bytes, 37,000 blocks at a time, pass after pass in one heap",
                "requests": "a heap for each request: 200 to 2000 blocks of 16 bytes to 1 KiB",
                "structure": "a heap for a search tree of 50,000 nodes with texts",
            },
            _local_heap_variants,
            _compiled_local_heaps,
        ),
        LocalSuite(
            "numpy",
            "the system's malloc",
            {
                **_TEMPORARIES,
                "images": "frames of 1280 x 720: floats, grey, blurred, edges, bytes",
                "group-by": "a million rows grouped, joined, filtered and sorted with pandas",
            },
            _numpy_variants,
            _script("numpy_programs.py"),
        ),
        LocalSuite(
            "python",
            "pymalloc",
            {
                "rows": "JSON rows made, written, read back and indexed",
                "objects": "small objects made deep in a recursion, dropped by the hundred",
            },
            _python_variants,
            _script("python_objects.py"),
        ),
    )
}


def run_local_suite(
    name: str,
    workloads: Sequence[str],
    *,
    rounds: int,
    allocators: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
    on_run: Callable[[str, int, int], None] = lambda _what, _number, _count: None,
    on_case: Callable[[Sequence[Case]], None] = lambda _: None,
) -> Suite:
    """Measure a suite.

    Args:
        name: One of `LOCAL_SUITES`.
        workloads: Only these; all if empty.
        rounds: How often each workload runs on each variant.
        allocators: Allocators to take part beside the suite's own variants.
        say: Told in one line what is left out, and what is too noisy to tell.
        on_run: Told before each run: the workload, its number, and how many there are.
        on_case: Called with the finished cases of each workload.

    Raises:
        CheckError: There is no such workload or allocator, or the suite lacks something that it needs.
    """
    suite = LOCAL_SUITES[name]
    for wanted in workloads:
        if wanted not in suite.workloads:
            near = difflib.get_close_matches(wanted, suite.workloads, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(suite.workloads)}"
            raise CheckError(f"there is no workload {wanted!r} in {name}", hint=hint)
    chosen = [workload for workload in suite.workloads if not workloads or workload in workloads]
    if "group-by" in chosen and importlib.util.find_spec("pandas") is None:
        say("group-by is left out: pandas is not installed")
        chosen.remove("group-by")
    variants = suite.variants(allocators, say)
    cases = list[Case]()
    with _prepared(suite) as command:
        for workload in chosen:
            of_workload = _measure(command, workload, variants, rounds, on_run)
            for noisy in _too_noisy(of_workload, variants[0].name):
                say(noisy)
            on_case(of_workload)
            cases += of_workload
    return Suite(name, cases)


@contextmanager
def _prepared(suite: LocalSuite) -> Generator[list[str]]:
    with TemporaryDirectory(prefix="heapsmith-bench-") as folder:
        yield suite.prepared(Path(folder))


def _measure(
    command: Sequence[str],
    workload: str,
    variants: Sequence[Variant],
    rounds: int,
    on_run: Callable[[str, int, int], None],
) -> list[Case]:
    field_ = [v for v in variants if not v.workloads or workload.startswith(v.workloads)]
    runs = {variant.name: list[dict[str, Measured]]() for variant in field_}
    for number in range(rounds):
        for place in range(len(field_)):
            variant = field_[(number + place) % len(field_)]
            on_run(f"{workload}: {variant.name}", number * len(field_) + place + 1, rounds * len(field_))
            runs[variant.name].append(_run(command, workload, variant))
    baseline = runs[field_[0].name]
    parts = list(dict.fromkeys(part for of in runs.values() for run in of for part in run if part)) or [
        workload
    ]
    return [
        compute_case(part, variant.name, [r.get(part, r.get("", _NOTHING)) for r in runs[variant.name]],
              [r.get(part, r.get("", _NOTHING)) for r in baseline])
        for part in parts
        for variant in field_
    ]  # fmt: skip


_NOTHING: Final = Measured(failed="told nothing")


def _run(command: Sequence[str], workload: str, variant: Variant) -> dict[str, Measured]:
    """Run once; figures by case, or why there are none under the empty name."""
    kept = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "PYTHONMALLOC")}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), kept.get("PYTHONPATH"))))
    # One thread each: two cores shared by several would measure the scheduler.
    kept |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    is_program = len(command) == 1
    words = (*variant.arguments, workload) if is_program else (workload, *variant.arguments)
    try:
        child = subprocess.run(
            [*command, *words],
            env=kept | dict(variant.environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"": Measured(failed=f"not done after {_TIMEOUT_S:.0f} s")}
    if child.returncode < 0:
        return {"": Measured(failed=f"ended by {signal.Signals(-child.returncode).name}")}
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or [""])[-1]
        return {"": Measured(failed=f"ended with {child.returncode}: {last}"[:100])}
    row = msgspec.json.decode(child.stdout, type=dict[str, float])
    later = Measured(
        time_s=row["time_s"],
        resident_bytes_peak=int(row["resident_bytes_peak"]),
        resident_after_bytes=int(row["resident_after_bytes"]),
        page_faults=int(row["page_faults"]),
    )
    if "first_s" not in row:
        return {workload: later}
    return {workload: later, f"{workload}, first pass": msgspec.structs.replace(later, time_s=row["first_s"])}


def _too_noisy(cases: Sequence[Case], baseline: str) -> list[str]:
    """Say of which cases nothing can be told, because the baseline does not agree with itself."""
    found = list[str]()
    for case in cases:
        low, high = case.time_s.low, case.time_s.high
        if case.allocator == baseline and low and high and high / low > _NOISE_RATIO:
            found.append(
                f"{case.name}: this machine is too noisy to tell: {baseline} alone takes {low:.3g} to {high:.3g} s"
            )
    return found

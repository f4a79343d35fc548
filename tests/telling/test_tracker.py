"""Heap Tracker, counted right: preloaded, and linked in; each defect of the original is a test."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from heapsmith.native import LIBRARIES
from heapsmith.run.tracking import SOURCE, build_flags, wrapped_functions

from .conftest import PROGRAMS, Build

DEMO = Path(__file__).parents[2] / "examples" / "heap_tracker" / "main.c"
LINK = (f"-I{SOURCE.parent}", f"-L{LIBRARIES}", "-lheapsmith_track", f"-Wl,-rpath,{LIBRARIES}")
LOUD = os.environ | {"HEAP_TRACK_LOG": "all"}
Ways = Sequence[tuple[str, tuple[str, ...], str]]
WAYS: Ways = (
    ("linked with the library", LINK, "gcc"),
    ("wrapped", tuple(build_flags()), "gcc"),
    ("wrapped and static", ("-static", *build_flags()), "gcc"),
    ("wrapped, static, with musl", ("-static", *build_flags()), "musl-gcc"),
)
every_way = pytest.mark.parametrize(
    ("flags", "compiler"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS]
)


@every_way
@pytest.mark.parametrize("how", ["malloc", "realloc"])
def test_the_demo_prints_what_heap_tracker_prints(
    build: Build, how: str, flags: tuple[str, ...], compiler: str
) -> None:
    program = build(DEMO, *flags, compiler=compiler)
    done = subprocess.run([program, how], env=LOUD, capture_output=True, text=True, timeout=30)
    output, log = done.stdout.splitlines(), done.stderr.splitlines()
    assert output[0] == "Starting Heap Tracker test application..."
    assert re.fullmatch(
        rf"consumeHeap_{how} --> Heap status: max available\(256000 bytes\), allocated \(\d+ bytes\)",
        output[1],
    )
    end = re.fullmatch(
        rf"consumeHeap_{how} --> Currently available heap up to given heap_threshold: (\d+)Kb \((\d+) bytes\)",
        output[2],
    )
    assert end
    if "-static" not in flags or compiler == "musl-gcc":  # glibc's own start allocates in a static program
        assert end.groups() == ("251", "257024")
    call = {"malloc": r"malloc\(1024\)=0x[0-9a-f]+", "realloc": r"_realloc\(0,0,1024\)=0x[0-9a-f]+"}[how]
    assert any(
        re.fullmatch(
            rf"Heap-Tracker lib: {call}\.\.\. SUCCESS: heap_allocated \(\d+ bytes\) - "
            r"delta with heap_threshold\(\d+ bytes\)",
            line,
        )
        for line in log
    )
    assert any(
        "WARNING: heap_allocated (257024 bytes) is above heap_threshold (256000 bytes)" in line
        for line in log
    ) or ("-static" in flags)


@every_way
def test_each_defect_of_the_original_is_gone(build: Build, flags: tuple[str, ...], compiler: str) -> None:
    program = build(PROGRAMS / "tracked.c", *flags, compiler=compiler)
    done = subprocess.run([program], env=LOUD, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "all of it holds\n"), done.stderr[-500:]
    failed = [line for line in done.stderr.splitlines() if f"({1 << 60})=0.." in line]
    assert failed and all("FAILED" in line and "SUCCESS" not in line for line in failed)


def test_a_program_is_tracked_without_being_touched(
    heapsmith: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = heapsmith("track", "--log", "all", "--threshold", "1KiB", "--", "sort", "/etc/passwd")
    assert done.returncode == 0 and "root:" in done.stdout
    assert "Heap-Tracker lib: malloc(" in done.stderr
    assert "is above heap_threshold (1024 bytes)" in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), ["WARNING"]),
        (("-DDEBUG_LOGS_ON=1",), ["SUCCESS", "WARNING", "SUCCESS", "SUCCESS"]),
        (("-DDEBUG_LOGS_ON=0",), []),
    ],
)
def test_linked_in_it_warns_without_being_asked(
    build: Build, tmp_path: Path, flags: tuple[str, ...], says: list[str]
) -> None:
    source = tmp_path / "linked.c"
    source.write_text(
        "#include <stdlib.h>\nvoid* volatile kept;\n"
        "int main(void) { free(kept = malloc(10)); free(kept = malloc(300000)); }\n"
    )
    program = build(source, *build_flags(), *flags)
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("HEAP_TRACK_")}
    said = subprocess.run([program], env=quiet, capture_output=True, text=True).stderr.splitlines()
    assert sorted(next(word for word in ("SUCCESS", "WARNING") if word in line) for line in said) == sorted(
        says
    )


def test_operators_of_cpp_are_counted_when_linked_in(build: Build, tmp_path: Path) -> None:
    source = tmp_path / "new.cc"
    source.write_text(
        '#include <cstdio>\n#include <vector>\n#include "heap_tracker_lib.h"\n'
        "int* volatile kept;\nint main() { long with; { std::vector<int> v(1000); int* p = new int[10];"
        " kept = p; with = heap_allocated; delete[] p; }"
        ' std::printf("%ld %ld", with, (long)heap_allocated); }\n'
    )
    program = build(source, *build_flags(cpp=True), compiler="g++")
    assert subprocess.run([program], capture_output=True, text=True).stdout == "4040 0"


def test_the_flags_name_functions_that_exist() -> None:
    names = wrapped_functions()
    assert {"malloc", "realloc", "calloc", "aligned_alloc", "free", "strdup"} <= set(names)
    assert "alloc_aligned" not in names
    assert len(names) == len(set(names))


def test_what_cannot_be_run_is_one_line(heapsmith: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = heapsmith("track", "--", "/no/such/program")
    assert done.returncode == 127 and done.stderr.count("\n") == 1
    done = heapsmith("track", "--output", "/no/such/folder/log", "--", "true")
    assert done.returncode == 2 and "cannot be written" in done.stderr

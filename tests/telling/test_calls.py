"""heapsmith.h from C, on every allocator of the field; Open Enclave's names; glibc's own question."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from heapsmith.here import calls
from heapsmith.lab.checks.statistics import (
    list_statistics_checks,
    run_statistics_checks,
    select_statistics_checks,
)
from heapsmith.native import SOURCES, library
from heapsmith.peers.candidate import read_candidate

from .conftest import CLIENT, FIELD, LINK_HEAPSMITH, PROGRAMS, Build, behind_watch


@pytest.mark.parametrize("allocator", FIELD)
def test_every_call_does_what_it_says_on_every_allocator(build: Build, allocator: str) -> None:
    program = build(PROGRAMS / "calls.c", CLIENT)
    done = subprocess.run([program], env=behind_watch(allocator), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("all of it holds\n", "")


def test_the_client_answers_unsupported_where_heapsmith_is_not_loaded(build: Build) -> None:
    program = build(PROGRAMS / "calls.c", CLIENT)
    done = subprocess.run(
        [program, "absent"], env=behind_watch(watched=False), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "absent\n")


def test_the_header_is_plain_c99_and_cpp(build: Build, tmp_path: Path) -> None:
    text = '#include "heapsmith.h"\nint main(void) { hs_stats_t s = HS_STATS_INIT; return s.size == 0; }\n'
    for name, options, compiler in (
        ("a.c", ("-std=c99", "-Wextra", "-Werror"), "gcc"),
        ("a.cc", ("-std=c++11", "-Wextra", "-Werror"), "g++"),
    ):
        (tmp_path / name).write_text(text)
        assert subprocess.run([build(*options, tmp_path / name, compiler=compiler)]).returncode == 0


@pytest.mark.parametrize("options", [(), ("-DOWN_DECLARATIONS",)], ids=["our header", "its own declarations"])
def test_programs_of_open_enclave_are_compatible(build: Build, options: tuple[str, ...]) -> None:
    program = build(*options, PROGRAMS / "enclave.c", *LINK_HEAPSMITH)
    done = subprocess.run([program], env=behind_watch(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "compatible\n")
    # Without anybody who counts the peak, the answer is UNSUPPORTED, at run time.
    assert subprocess.run([program, "unwatched"], env=behind_watch(watched=False)).returncode == 0


def test_the_eleven_functions_work_in_the_region_they_are_given(build: Build) -> None:
    program = build(
        PROGRAMS / "region.c", LINK_HEAPSMITH[0], "-lheapsmith_enclave", LINK_HEAPSMITH[2], "-Wextra"
    )
    done = subprocess.run(
        [program], env=behind_watch(watched=False), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "compatible\n"), done.stderr


@pytest.mark.parametrize("preset", ["default", "small", "hardened"])
def test_mallinfo2_and_psutil_are_right_on_a_forged_heap(preset: str) -> None:
    code = (
        "import ctypes, psutil\n"
        "def used():\n    info = psutil.heap_info()\n    return info.heap_used + info.mmap_used\n"
        "malloc = ctypes.CDLL(None).malloc\nmalloc.restype = ctypes.c_void_p\n"
        "before = used()\nmalloc(50_000_000)\nprint(used() - before)\n"
    )
    if not hasattr(psutil, "heap_info"):
        pytest.skip("psutil's heap_info is younger than this one")
    forged = {"LD_PRELOAD": str(library(f"libheapsmith_{preset}.so"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | forged, capture_output=True, text=True
    )
    assert 50_000_000 <= int(done.stdout) < 51_000_000, done.stderr


@pytest.mark.parametrize("allocator", FIELD)
def test_mallinfo2_is_right_whoever_answers_malloc(build: Build, allocator: str, tmp_path: Path) -> None:
    source = tmp_path / "ask.c"
    source.write_text(
        "#include <malloc.h>\n#include <stdlib.h>\n"
        "int main(void) { struct mallinfo2 a = mallinfo2(); void* volatile p = malloc(5000000);"
        " struct mallinfo2 b = mallinfo2(); free(p);"
        " return b.uordblks + b.hblkhd - a.uordblks - a.hblkhd >= 5000000 ? 0 : 1; }\n"
    )
    program = build(source)
    assert subprocess.run([program], env=behind_watch(allocator)).returncode == 0


def test_python_knows_the_structures_of_the_header_byte_for_byte(build: Build, tmp_path: Path) -> None:
    names = [name for name, *_ in calls.Stats._fields_]
    source = tmp_path / "layout.c"
    prints = "".join(f'printf("%zu ", offsetof(hs_stats_t, {name}));' for name in names)
    source.write_text(
        '#include <stddef.h>\n#include <stdio.h>\n#include "heapsmith.h"\n'
        f'int main(void) {{ {prints} printf("%zu", sizeof(hs_stats_t)); return 0; }}\n'
    )
    told = subprocess.run([build(source)], capture_output=True, text=True, check=True).stdout.split()
    here = [getattr(calls.Stats, name).offset for name in names]
    assert [int(word) for word in told] == [*here, __import__("ctypes").sizeof(calls.Stats)]
    bits = dict(
        re.findall(r"#define HS_F_(\w+) \(1ull << (\d+)\)", (SOURCES / "abi/heapsmith.h").read_text())
    )
    assert {name: 1 << int(bit) for name, bit in bits.items()} == {
        field.name: field.value for field in calls.Field
    }


@pytest.mark.parametrize("allocator", ["glibc", "jemalloc", "tbb"])
def test_the_promises_of_the_call_hold(allocator: str) -> None:
    behind_watch(allocator)
    verdicts = run_statistics_checks(read_candidate(allocator))
    assert len(verdicts) == len(list_statistics_checks()) > 15
    assert [verdict for verdict in verdicts if verdict.verdict == "fail"] == []


def test_a_check_on_a_heap_that_nobody_counts_is_not_possible_and_not_passed() -> None:
    done = subprocess.run(
        [library("heapsmith_statistics_checks"), "peak"], env=behind_watch(watched=False), capture_output=True
    )
    assert done.returncode == 77


def test_a_broken_promise_is_seen(build: Build, tmp_path: Path) -> None:
    """An allocator that gives back what is live: the checks are able to fail."""
    source = tmp_path / "liar.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stddef.h>\n"
        "size_t malloc_usable_size(void* p) {"
        ' size_t (*next)(void*) = (size_t (*)(void*))dlsym(RTLD_NEXT, "malloc_usable_size");'
        " return p == NULL ? 0 : next(p) + 4096; }\n"
        "void* malloc(size_t n) {"
        ' static void* (*next)(size_t); if (!next) next = (void* (*)(size_t))dlsym(RTLD_NEXT, "malloc");'
        " return next(n); }\n"
    )
    liar = tmp_path / "liar.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-fno-builtin", str(source), "-o", str(liar)], check=True)
    found = run_statistics_checks(read_candidate(str(liar)), select_statistics_checks(["usable-size"]))
    assert found[0].verdict == "fail"

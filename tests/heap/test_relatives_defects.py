"""Defects of the nearest relative that need a program of their own to be seen gone; the others are checks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from heapsmith.forge import forge
from heapsmith.lab.checks import run_check, select_checks
from heapsmith.lab.subjects import resolve_subject
from heapsmith.spec import HeapSpec, HugePages, OsPages, PurgeAfter

NATIVE = Path(__file__).parent / "native"
Compile = Callable[..., Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    folder = tmp_path_factory.mktemp("defects")

    def build(source: str, *flags: str) -> Path:
        compiler = "g++" if source.endswith(".cc") else "gcc"
        if shutil.which(compiler) is None:
            pytest.skip(f"there is no {compiler} on this machine")
        program = folder / source.replace(".", "_")
        words = [
            compiler,
            "-O1",
            "-fno-builtin",
            "-pthread",
            str(NATIVE / source),
            "-o",
            str(program),
            *flags,
        ]
        subprocess.run([*words, "-ldl"], check=True)
        return program

    return build


def run_on(
    name: str, words: list[str], *, wish: str = "", also: str = ""
) -> subprocess.CompletedProcess[str]:
    library = str(resolve_subject(name).library)
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{library}:{also}" if also else library,
        "HEAPSMITH_HEAP": wish,
    }
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("preset", ["default", "hardened"])
def test_6_the_new_handler_is_asked_until_there_is_memory(built: Compile, preset: str) -> None:
    done = run_on(preset, [str(built("handlers.cc"))], wish="limit=48MiB")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "had 1 handler several block 1",
        "nothrow 1",
        "bad_alloc",
        "nothrow over a handler that throws 1",
    ]


@pytest.mark.parametrize("preset", ["default", "small", "pow2", "low-latency", "hardened"])
def test_13_recycling_finds_nothing_something_and_everything(built: Compile, preset: str) -> None:
    done = run_on(preset, [str(built("recycling.c"))])
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    # Other presets have given back most of it by themselves: then there may be nothing left to ask for.
    if preset == "low-latency":
        assert words[:2] == ["some", "0"]
        assert words[4:] == ["rest", "1", "empty", "1"]


def test_14_a_segment_that_is_refused_becomes_a_smaller_one() -> None:
    # Segments grow with the heap; near the end of the address space only small ones are there.
    for check in ("exhaustion-small", "exhaustion"):
        result = run_check(select_checks([check], hardening=False)[0], resolve_subject("default"))
        assert result.verdict == "pass", result.detail


@pytest.mark.parametrize(
    "check", ["double-free", "double-free-large", "free-global", "free-wild", "free-mapping"]
)
def test_15_double_and_foreign_frees_end_the_program_with_a_line_that_says_so(check: str) -> None:
    result = run_check(select_checks([check], hardening=True)[0], resolve_subject("hardened"))
    assert result.verdict == "pass"
    assert "heapsmith: free()" in result.detail


@pytest.mark.parametrize("preset", ["default", "hardened"])
def test_17_what_comes_before_everybody_s_constructors_is_served(built: Compile, preset: str) -> None:
    early = built("early.c", "-shared", "-fPIC")
    done = run_on(preset, ["/bin/echo", "served"], also=str(early))
    assert (done.returncode, done.stdout) == (0, "served\n")
    # And before the heap's own: last in the list is first to begin.
    library = str(resolve_subject(preset).library)
    environment = {**os.environ, "LD_PRELOAD": f"{early}:{library}"}
    assert subprocess.run(["/bin/true"], env=environment, check=False).returncode == 0


def test_19_sizes_beyond_32_bits_and_wishes_beyond_any_buffer() -> None:
    for check in ("enomem", "ten-gigabytes"):
        result = run_check(select_checks([check], hardening=False)[0], resolve_subject("default"))
        assert result.verdict == "pass", result.detail
    wish = ",".join(["limit=12345678901234567890"] * 40)
    done = run_on("default", ["/bin/echo", "on"], wish=wish)
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert len(done.stderr.splitlines()) == 1


def test_20_huge_pages_are_had_where_they_are_asked_for() -> None:
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("transparent huge pages are switched off here")
    made = forge(HeapSpec(name="huge", pages=OsPages() | HugePages(after_bytes=0) | PurgeAfter()))
    program = (
        "import re\n"
        "kept = [bytearray(3000) for _ in range(60000)]\n"
        "print(re.search(r'AnonHugePages: +(\\d+)', open('/proc/self/smaps_rollup').read())[1])\n"
    )
    environment = {**os.environ, "LD_PRELOAD": str(made.path), "PYTHONMALLOC": "malloc"}
    words = [shutil.which("python3") or "python3", "-S", "-c", program]
    kib = int(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
    assert kib > 100_000  # of 180 MB


def count_steps(program: Path, threads: int, live_blocks: int) -> int:
    # Stepping takes so long that all that goes by the clock would be due at every turn.
    done = run_on("default", [str(program), str(threads), str(live_blocks)], wish="shown=off")
    if done.returncode in (5, 6, 7):
        pytest.skip("single steps cannot be taken here")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_22_23_a_pair_takes_as_many_instructions_whatever_other_threads_hold(built: Compile) -> None:
    program = built("steps.c")
    alone, in_company = count_steps(program, 0, 0), count_steps(program, 60, 0)
    assert 5 < alone < 200
    assert in_company <= alone * 1.25  # whole magazines move, at other moments


def test_24_a_pair_takes_as_many_instructions_however_much_is_live(built: Compile) -> None:
    program = built("steps.c")
    small, large = count_steps(program, 0, 100), count_steps(program, 0, 1_000_000)
    assert large <= small * 1.25

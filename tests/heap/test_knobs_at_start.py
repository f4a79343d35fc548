"""Knobs that need no compiler: read from one variable at start, set by the launcher, known to the register."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heapsmith.forge import forge
from heapsmith.lab.subjects import resolve_subject
from heapsmith.spec import HeapSpec, HugePages, NoCache, OsPages, PurgeAfter, PurgeLazily, RemoteBatch

_FILL = """
import os
kept = []
try:
    for _ in range(100): kept.append(bytearray(1 << 20))
except MemoryError: pass
print(len(kept), os.environ.get("HEAPSMITH_HEAP"))
"""


def run_on(library: Path | None, wish: str, program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_PRELOAD": str(library), "HEAPSMITH_HEAP": wish, "PYTHONMALLOC": "malloc"}
    return subprocess.run(
        [sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True, check=True
    )


def preset(name: str = "default") -> Path | None:
    return resolve_subject(name).library


@pytest.mark.parametrize("name", ["default", "small", "pow2", "low-latency", "hardened"])
def test_a_limit_set_at_start_is_never_passed(name: str) -> None:
    blocks = int(run_on(preset(name), "limit=64MiB", _FILL).stdout.split()[0])
    assert 40 <= blocks < 64


@pytest.mark.parametrize(
    ("wish", "said", "left"),
    [
        ("limit=5", "limit takes 1MiB or more", ""),
        ("cache=12QiB,limit=80MiB", "cache takes 1KiB or more", "limit=80MiB"),
        ("purge_delay=soon", "purge_delay takes a time as 10ms, or never", ""),
        ("huge_pages=maybe", "huge_pages takes on, off or reserved", ""),
        ("purge=sometimes", "purge takes now or lazy", ""),
        ("limit=99999999999TiB", "limit takes", ""),
        ("limmit=1GiB", "there are limit, purge_delay, cache, huge_pages, purge and shown", ""),
        ("x" * 900, "is no knob", ""),
        ("limit", "is no knob", ""),
    ],
)
def test_a_wish_that_is_not_understood_is_one_line_and_the_program_goes_on(
    wish: str, said: str, left: str
) -> None:
    done = run_on(preset(), wish, _FILL)
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert done.stderr.startswith("heapsmith: HEAPSMITH_HEAP: ")
    # What was understood holds, and is what further programs inherit: they have nothing to say again.
    blocks, _, inherited = done.stdout.strip().partition(" ")
    assert inherited == left
    assert int(blocks) == (100 if not left else pytest.approx(75, abs=6))


def test_further_programs_do_not_say_it_again() -> None:
    script = "import subprocess; [subprocess.run(['true'], check=True) for _ in range(3)]"
    assert len(run_on(preset(), "nonsense=1", script).stderr.splitlines()) == 1


def test_several_problems_are_told_at_once() -> None:
    said = run_on(preset(), "limit=1,cache=1,nonsense", "pass").stderr
    assert all(part in said for part in ("limit=1", "cache=1", "nonsense is no knob"))


_STAYS = """
import mmap, time
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
kept = [b"x" * 5000 for _ in range(20000)]
before = resident()
del kept
for _ in range(30):
    time.sleep(0.01); bytes(40000); bytearray(300000)
print((before - resident()) // 1024)
"""


def test_free_pages_go_back_at_once_or_never_as_wished() -> None:
    gone_at_once = int(run_on(preset(), "purge_delay=0", _STAYS).stdout)
    stayed = int(run_on(preset(), "purge_delay=never", _STAYS).stdout)
    assert gone_at_once > 80
    assert stayed < gone_at_once


@pytest.fixture(scope="module")
def exotic() -> Path:
    """A heap with what no preset has, forged once."""
    pages = (
        OsPages()
        | HugePages(after_bytes=0, reserved=True)
        | PurgeLazily()
        | PurgeAfter(delay_ms=1, keep_share=0)
    )
    return forge(HeapSpec(name="exotic", cache=NoCache(), remote=RemoteBatch(batches=0), pages=pages)).path


def test_a_heap_without_caches_says_so(exotic: Path) -> None:
    assert "forged without thread caches" in run_on(exotic, "cache=64KiB", "pass").stderr


def _free_huge_pages() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("HugePages_Free")), 0)


def test_reserved_huge_pages_that_are_not_there_are_replaced_and_it_is_said(exotic: Path) -> None:
    free = _free_huge_pages()
    program = "kept = [bytes(3000) for _ in range(60000)]; print(len(kept))"
    for done in (
        run_on(exotic, "", program),
        run_on(preset(), "huge_pages=reserved", program),
    ):
        assert done.stdout == "60000\n"
        if free == 0:
            assert done.stderr == (
                "heapsmith: no reserved huge pages are left (vm.nr_hugepages): transparent ones are asked for\n"
            )


_RESERVED = """
import ctypes
libc = ctypes.CDLL(None)
libc.calloc.restype = libc.realloc.restype = ctypes.c_void_p
libc.calloc.argtypes = libc.realloc.argtypes = [ctypes.c_size_t] * 2
libc.free.argtypes = [ctypes.c_size_t]

def held():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps") if line.startswith("Private_Hugetlb"))

grown = None
for step in range(1, 40):
    kept = [bytes([step]) * 3000 for _ in range(3000)]
    grown = libc.realloc(grown or 0, step * 300_000)
    ctypes.memset(grown + (step - 1) * 300_000, step, 300_000)
    most = held()
    del kept
    zeroed = [libc.calloc(1, 9000) for _ in range(200)]
    assert all(ctypes.string_at(block, 9000) == bytes(9000) for block in zeroed)
    for block in zeroed:
        ctypes.memset(block, 255, 9000)
        libc.free(block)
    assert all(ctypes.string_at(grown + at * 300_000, 1)[0] == at + 1 for at in range(step))
print(most)
"""


def test_reserved_huge_pages_are_used_and_neither_moved_nor_taken_in_parts(exotic: Path) -> None:
    if _free_huge_pages() < 32:
        pytest.skip("fewer than 32 huge pages are free here (vm.nr_hugepages)")
    for done in (run_on(exotic, "", _RESERVED), run_on(preset(), "huge_pages=reserved", _RESERVED)):
        assert int(done.stdout) > 0


def test_what_was_purged_lazily_reads_as_zero_where_calloc_promises_it(exotic: Path) -> None:
    program = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.calloc.restype = libc.malloc.restype = ctypes.c_void_p
libc.calloc.argtypes = [ctypes.c_size_t] * 2
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
size = 600_000
for turn in range(20):
    dirty = [libc.malloc(size) for _ in range(20)]
    for block in dirty: ctypes.memset(block, 0xA5, size)
    for block in dirty: libc.free(block)
    time.sleep(0.006)
    clean = [libc.calloc(1, size) for _ in range(20)]
    assert all(ctypes.string_at(block, size) == bytes(size) for block in clean)
    for block in clean: libc.free(block)
print("zero")
"""
    assert run_on(exotic, "", program).stdout == "zero\n"
    assert run_on(preset(), "purge=lazy,purge_delay=0", program).stdout == "zero\n"


def heapsmith(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heapsmith", *words], capture_output=True, text=True, check=False
    )


def test_run_takes_knobs_after_the_name_of_an_allocator() -> None:
    words = [sys.executable, "-S", "-c", _FILL]
    done = heapsmith("run", "--allocator", "default:limit=64MiB,purge_delay=0", "--no-summary", "--", *words)
    assert done.stdout.split()[1] == "limit=67108864,purge_delay=0ms"
    assert 40 <= int(done.stdout.split()[0]) < 64


@pytest.mark.parametrize(
    ("allocator", "said"),
    [
        ("default:limt=1GiB", "did you mean `limit`"),
        ("default:limit=5", "1MiB or more"),
        ("default:limit=1GiB,limit=2GiB", "given twice"),
        ("nonsense:limit=1GiB", "there is no allocator"),
        ("system:limit=1GiB", "takes no knobs"),
    ],
)
def test_run_refuses_knobs_that_are_not_there(allocator: str, said: str) -> None:
    done = heapsmith("run", "--allocator", allocator, "--", "true")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_presets_stand_in_the_register_with_their_knobs() -> None:
    listed = {row["name"]: row for row in json.loads(heapsmith("allocators", "--json").stdout)}
    for name in ("default", "small", "low-latency"):
        assert [knob["name"] for knob in listed[name]["knobs"]] == [
            "limit", "purge_delay", "cache", "huge_pages", "purge",
        ]  # fmt: skip
        assert listed[name]["fields"]["committed_bytes"] == "exact"


def test_compare_takes_presets_with_knobs_and_specs(tmp_path: Path) -> None:
    spec = tmp_path / "mine.toml"
    spec.write_text('name = "mine"\n')
    done = heapsmith(
        "compare", "--allocator", "system", "--allocator", "default:cache=64KiB", "--allocator", "small",
        "--allocator", f"{spec}:purge_delay=0", "--runs", "1", "--json", "--", "true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    named = [result["allocator"] for result in json.loads(done.stdout)["results"]]
    assert named[:3] == ["system", "default:cache=64KiB", "small"]
    assert named[3].endswith(":purge_delay=0")

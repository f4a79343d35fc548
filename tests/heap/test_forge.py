"""Forging: what is made, what is refused, and what is kept."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heapsmith.errors import ForgeError
from heapsmith.forge import forge, preset_library, render_header
from heapsmith.forge.verify import verify_library
from heapsmith.lab.checks import run_checks, select_checks
from heapsmith.lab.subjects import Subject
from heapsmith.native import SOURCES
from heapsmith.spec import (
    BoundedCache,
    CheckedBlocks,
    EncodedLinks,
    Explicit,
    FixedCache,
    Geometric,
    HeapSpec,
    HugePages,
    Limit,
    MatchedDeallocation,
    NoCache,
    OsPages,
    Prefault,
    PurgeAfter,
    PurgeAtOnce,
    PurgeLazily,
    PurgeOnDemand,
    RandomFreeLists,
    RecordedOrigins,
    RemoteBatch,
    RemoteStack,
    SpinLock,
    for_thread,
    load_spec,
)
from heapsmith.units import KiB, MiB

# Together these use every policy that a shared object can have.
VARIANTS = {
    "stack": HeapSpec(
        name="stack", sizes=Geometric(largest_bytes=32 * KiB, steps_per_doubling=4), remote=RemoteStack()
    ),
    "central": HeapSpec(
        name="central", cache=NoCache(), remote=RemoteBatch(batches=0), pages=OsPages() | PurgeAtOnce()
    ),
    "explicit": HeapSpec(
        name="explicit",
        sizes=Explicit((16, 48, 96, 256, 1024, 4368, 32768)),
        cache=FixedCache((200, 100, 50, 20)),
        lock=SpinLock(),
    ),
    "pages": HeapSpec(
        name="pages",
        pages=OsPages()
        | HugePages(after_bytes=0)
        | Limit(1 << 36)
        | Prefault()
        | PurgeLazily()
        | PurgeOnDemand(),
    ),
    "encoded": HeapSpec(
        name="encoded",
        cache=BoundedCache(limit_bytes=16 * KiB),
        hardening=(EncodedLinks(), RandomFreeLists()),
    ),
    "threads": HeapSpec(
        name="threads", threads=(for_thread("checks", (32, 64, 128, 256, 1024)), for_thread("other", (4000,)))
    ),
    "checked": HeapSpec(
        name="checked",
        sizes=Geometric(largest_bytes=32 * KiB),
        hardening=(CheckedBlocks(), RecordedOrigins(), MatchedDeallocation()),
    ),
}
# What a heap that populates every page, or keeps every page, does not promise.
NOT_PROMISED = {
    "pages": {"ten-gigabytes", "calloc-lazy", "large-blocks", "exhaustion", "exhaustion-small", "reuse"}
}


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    # What ziglang builds of a C library takes minutes: it stays where it is kept between runs.
    os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(Path.home() / ".cache" / "zig"))
    os.environ.setdefault("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_policy_keeps_malloc_s_contract(name: str, tmp_path: Path) -> None:
    made = forge(VARIANTS[name], tmp_path / "heap.so")
    names = [check.name for check in select_checks([], hardening=False)]
    chosen = select_checks(
        [each for each in names if each not in NOT_PROMISED.get(name, set())], hardening=False
    )
    broken = [result for result in run_checks(chosen, Subject(name, made.path)) if result.verdict == "fail"]
    assert broken == []


def test_a_second_forge_of_the_same_heap_is_instant(tmp_path: Path) -> None:
    spec = HeapSpec(name="twice", pages=OsPages() | PurgeAfter(delay_ms=7))
    first = forge(spec, tmp_path / "a.so")
    second = forge(spec, tmp_path / "b.so")
    assert not first.cached or first.seconds < 1
    assert second.cached
    assert (tmp_path / "a.so").read_bytes() == (tmp_path / "b.so").read_bytes()


def test_presets_need_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "")
    for name in ("default", "small", "pow2", "low-latency", "hardened"):
        assert preset_library(name) is not None
        assert forge(load_spec(name), tmp_path / f"{name}.so").compiler == ""


def test_a_compiler_that_fails_is_quoted_and_its_source_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "c++"
    script.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "broken 1.0" && exit 0\necho "x.cc:1: error: no luck" >&2\nexit 1\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ForgeError, match="no luck") as caught:
        forge(HeapSpec(name="unlucky"), tmp_path / "x.so")
    kept = Path(caught.value.hint.rsplit(" ", 1)[-1])
    assert (kept / "heap_config.h").is_file()
    assert "c++" in (kept / "errors.txt").read_text()
    assert not (tmp_path / "x.so").exists()
    shutil.rmtree(kept)


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ForgeError, match=r"the cache .* cannot be written"):
        forge(HeapSpec(name="homeless"))


def test_a_library_that_is_no_allocator_fails_its_verification() -> None:
    with pytest.raises(ForgeError, match="fails its verification"):
        verify_library(Path("/no/such/library.so"))


def test_a_forged_library_needs_the_c_library_alone(tmp_path: Path) -> None:
    allowed = {
        "__errno_location", "__register_atfork", "abort", "clock_gettime", "dladdr", "dlclose", "dlerror", "dlopen",
        "dlvsym", "dlsym", "memcpy", "memset", "memmove", "pthread_key_create", "pthread_setspecific", "__cxa_finalize",
        "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__gmon_start__", "getenv", "secure_getenv",
        "atexit", "__cxa_atexit", "fstat", "getauxval", "getrlimit", "getrusage", "strchr", "strcmp", "strlen",
        "strncmp", "strncpy", "strstr", "stpcpy", "syscall", "__libc_single_threaded",
    }  # fmt: skip
    if shutil.which("nm") is None:
        pytest.skip("there is no nm on this machine")
    for name in ("default", "small", "pow2", "low-latency", "hardened"):
        library = preset_library(name)
        assert library is not None
        listed = subprocess.run(
            ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
        )
        needed = {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines()}
        assert needed <= allowed


def test_what_a_debugger_needs_comes_in_a_file_of_its_own(tmp_path: Path) -> None:
    if shutil.which("objcopy") is None or shutil.which("readelf") is None:
        pytest.skip("there are no binutils on this machine")
    made = forge(
        HeapSpec(name="debuggable", cache=NoCache(), remote=RemoteBatch(batches=0)),
        tmp_path / "heap.so",
        debug_file=tmp_path / "heap.debug",
    )
    debug_file = tmp_path / "heap.debug"
    assert made.debug_file == debug_file
    sections = {
        path: subprocess.run(["readelf", "-SW", str(path)], capture_output=True, text=True, check=True).stdout
        for path in (made.path, debug_file)
    }
    assert ".debug_info" in sections[debug_file]
    assert ".debug_info" not in sections[made.path]
    assert ".gnu_debuglink" in sections[made.path]
    verify_library(made.path)


def test_a_limit_is_never_passed_and_is_no_end(tmp_path: Path) -> None:
    spec = HeapSpec(name="limited", pages=OsPages() | Limit(limit_bytes=64 * MiB) | PurgeAfter())
    made = forge(spec, tmp_path / "limited.so")
    program = (
        "import gc\n"
        "kept = []\n"
        "try:\n"
        "    while True: kept.append(bytearray(1 << 20))\n"
        "except MemoryError: count = len(kept)\n"
        "kept.clear(); gc.collect()\n"
        "again = [bytearray(1 << 20) for _ in range(count - 4)]\n"
        "print(count)\n"
    )
    output = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, "LD_PRELOAD": str(made.path), "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 40 <= int(output) < 64


def test_the_command_line_explains_and_forges(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "heapsmith", "forge", "small", "-o", str(tmp_path / "s.so"), "--json"]
    document = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert document["schema"] == "heapsmith.forge/1"
    assert Path(document["path"]).is_file()
    explained = subprocess.run(
        [sys.executable, "-m", "heapsmith", "forge", "hardened", "--explain"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "CheckedBlocks" in explained
    assert "internal fragmentation" in explained


@pytest.mark.parametrize("words", [["no-such"], ["default"], ["default", "-o", "/no/such/place.so"]])
def test_bad_input_is_one_line_and_exit_code_2(words: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "heapsmith", "forge", *words], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heapsmith", "forge", "small", "-o", str(tmp_path / "libsmall.so")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 2 and "cannot write" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(ForgeError, match="Is a directory"):
        forge(load_spec("small"), tmp_path)
    assert not [path for path in tmp_path.parent.iterdir() if path.name.startswith(f".{tmp_path.name}")]


def test_the_one_header_serves_the_standard_library(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler on this machine")
    (tmp_path / "heap.h").write_text(render_header(load_spec("default")))
    program = Path(__file__).parent / "native" / "library_use.cc"
    words = [
        compiler,
        "-std=c++20",
        "-O1",
        "-Wall",
        f"-I{tmp_path}",
        str(program),
        "-o",
        str(tmp_path / "use"),
    ]
    subprocess.run([*words, "-pthread"], check=True, capture_output=True, text=True)
    output = subprocess.run([tmp_path / "use"], check=True, capture_output=True, text=True).stdout
    assert output.splitlines() == [
        "vector 1000 499500",
        "pmr 3",
        "local 1000 1 text 1",
        "local usable 1 live 1",
        "local released 0",
        "local bad_alloc",
        "arena 7 1",
        "arena 100",
        "leaked 48",
        "leaked 0",
    ]


def test_threads_of_a_name_and_threads_that_ask_have_a_heap_of_their_own(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler on this machine")
    made = forge(HeapSpec(name="threads", threads=(for_thread("worker", (4000,)),)), tmp_path / "threads.so")
    program = Path(__file__).parent / "native" / "named_threads.c"
    subprocess.run(
        [compiler, "-fno-builtin", str(program), "-o", str(tmp_path / "named"), "-pthread", "-ldl"],
        check=True,
    )
    output = subprocess.run(
        [tmp_path / "named"],
        env={**os.environ, "LD_PRELOAD": str(made.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output == "other 112\nworker 4000\nmarked 0 4000 unmarked 0 112 unknown 1\n"


@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "x86_64-linux-musl"])
def test_other_machines_are_forged_for_up_to_linking(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed")
    made = forge(
        HeapSpec(name="elsewhere", pages=OsPages() | PurgeAfter(delay_ms=3)), tmp_path / "x.so", target=target
    )
    head = made.path.read_bytes()[:20]
    assert head[:4] == b"\x7fELF"
    assert int.from_bytes(head[18:20], "little") == (183 if target.startswith("aarch64") else 62)


def test_the_heap_agrees_with_its_model_on_another_processor(tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None or shutil.which("qemu-aarch64") is None:
        pytest.skip("this needs ziglang and qemu-aarch64")
    program = Path(__file__).parent / "native" / "model.cc"
    words = [
        sys.executable,
        "-m",
        "ziglang",
        "c++",
        "-target",
        "aarch64-linux-musl",
        "-static",
        "-std=gnu++20",
        "-O1",
    ]
    subprocess.run([*words, f"-I{SOURCES}", str(program), "-o", str(tmp_path / "model")], check=True)
    for remote, threads in (("batch", "1"), ("stack", "4")):
        words = ["qemu-aarch64", str(tmp_path / "model"), "5", "4000", threads, "40", remote]
        assert "held" in subprocess.run(words, capture_output=True, text=True, check=True).stdout

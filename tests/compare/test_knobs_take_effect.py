"""Each knob really reaches the allocator: asked of the allocator itself, in a process started on it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from heapsmith.peers.candidate import read_candidate
from heapsmith.peers.register import find

ASK_TCMALLOC = """
import ctypes
process = ctypes.CDLL(None)
flags = "_ZN62FLAG__namespace_do_not_use_directly_use_DECLARE_double_instead"
rate = ctypes.c_double.in_dll(process, flags + "27FLAGS_tcmalloc_release_rateE")
value = ctypes.c_size_t()
def ask(name):
    assert process.MallocExtension_GetNumericProperty(name, ctypes.byref(value))
    return value.value
print(rate.value, ask(b"tcmalloc.max_total_thread_cache_bytes"),
      ask(b"tcmalloc.aggressive_memory_decommit"))
process.malloc.restype = ctypes.c_void_p
print(process.malloc(ctypes.c_size_t(256 << 20)) is None)
"""


def run_on(label: str, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = read_candidate(label).environment(dict(os.environ))
    for name, value in more.items():
        environment[name] = f"{environment[name]},{value}" if name in environment else value
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


def need(name: str) -> None:
    if not find(name).here:
        pytest.skip(f"{name} is not on this machine")


def test_jemalloc_takes_every_knob_and_complains_of_none() -> None:
    need("jemalloc")
    knobs = {
        "dirty_decay_ms": "1500",
        "muzzy_decay_ms": "7",
        "narenas": "3",
        "tcache_max": "4096",
        "background_thread": "true",
        "thp": "always",
        "metadata_thp": "auto",
        "percpu_arena": "disabled",
        "oversize_threshold": "0",
    }
    assert {knob.name for knob in find("jemalloc").allocator.knobs} == set(knobs)
    label = "jemalloc:" + ",".join(f"{name}={value}" for name, value in knobs.items())
    said = run_on(label, "/bin/true", MALLOC_CONF="confirm_conf:true").stderr
    assert "Invalid" not in said
    assert "Out-of-range" not in said
    stats = run_on(label, "/bin/true", MALLOC_CONF="stats_print:true,stats_print_opts:mdablx").stderr
    for name, value in knobs.items():
        found = re.search(rf"opt\.{name}: \"?([^\s\"]+)", stats)
        assert found is not None, name
        assert found[1] == value, name


@pytest.mark.parametrize("label", ["mimalloc2:purge_delay=123", "mimalloc3:purge_delay=123"])
def test_mimalloc_takes_its_purge_delay_under_the_name_its_version_knows(label: str) -> None:
    need(label.partition(":")[0])
    said = run_on(label, "/bin/true", MIMALLOC_VERBOSE="1").stderr
    assert re.search(r"option '(decommit_delay|purge_delay)': 123", said)
    assert "deprecated" not in said.replace("option 'deprecated", "")


def test_mimalloc_takes_large_pages() -> None:
    need("mimalloc2")
    said = run_on("mimalloc2:allow_large_os_pages=true", "/bin/true", MIMALLOC_VERBOSE="1").stderr
    assert re.search(r"option '(allow_)?large_os_pages': 1", said)


def test_mimalloc_3_takes_every_knob() -> None:
    need("mimalloc3")
    knobs = {
        "purge_delay": ("250ms", "250"),
        "allow_large_os_pages": ("true", "1"),
        "arena_eager_commit": ("0", "0"),
        "arena_reserve": ("64MiB", "65536 KiB"),
        "allow_thp": ("false", "0"),
    }
    assert {knob.name for knob in find("mimalloc3").allocator.knobs} == set(knobs)
    label = "mimalloc3:" + ",".join(f"{name}={written}" for name, (written, _) in knobs.items())
    said = run_on(label, "/bin/true", MIMALLOC_VERBOSE="1").stderr
    assert "mimalloc: warning" not in said
    for name, (_, value) in knobs.items():
        assert re.search(rf"option '{name}': {value}\s*\n", said), name


def test_tcmalloc_takes_every_knob() -> None:
    need("tcmalloc")
    label = "tcmalloc:release_rate=7,max_total_thread_cache=4MiB,aggressive_decommit=true,heap_limit_mib=128"
    assert {knob.name for knob in find("tcmalloc").allocator.knobs} == set(re.findall(r"[:,]?(\w+)=", label))
    assert run_on(label, sys.executable, "-I", "-S", "-c", ASK_TCMALLOC).stdout.split() == [
        "7.0",
        str(4 << 20),
        "1",
        "True",
    ]


def test_tbb_says_that_huge_pages_are_requested() -> None:
    need("tbb")
    said = run_on("tbb:use_huge_pages=true", "/bin/true", TBB_VERSION="1").stderr
    assert re.search(r"huge pages\s+requested", said)


def test_the_loader_knows_every_knob_of_glibc_by_its_tunable_name() -> None:
    need("glibc")
    knobs = {
        "arena_max": 3,
        "mmap_threshold": 65536,
        "trim_threshold": 131072,
        "top_pad": 4096,
        "mmap_max": 77,
        "tcache_count": 9,
        "hugetlb": 1,
    }
    assert {knob.name for knob in find("glibc").allocator.knobs} == set(knobs)
    label = "glibc:" + ",".join(f"{name}={value}" for name, value in knobs.items())
    loader = "/lib64/ld-linux-x86-64.so.2"
    if not Path(loader).exists():
        pytest.skip("the loader of this processor has another name")
    listing = run_on(label, loader, "--list-tunables").stdout
    for name, value in knobs.items():
        found = re.search(rf"glibc\.malloc\.{name}: (\S+)", listing)
        assert found is not None, name
        assert int(found[1], 0) == value, name


def test_old_glibc_gets_the_old_variables() -> None:
    glibc = find("glibc").allocator
    assert glibc.spell({"arena_max": 2, "trim_threshold": 4096}, (2, 24)) == {
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "4096",
    }


def test_python_objects_go_to_malloc_when_told() -> None:
    seen = run_on("glibc:python=malloc", sys.executable, "-c", "import os; print(os.environ['PYTHONMALLOC'])")
    assert seen.stdout.strip() == "malloc"

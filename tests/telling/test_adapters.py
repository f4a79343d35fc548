"""What each allocator tells of itself: the table people read, and what is answered when it is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from heapsmith.here.report import Mallinfo
from heapsmith.lab.checks.statistics import run_statistics_checks, select_statistics_checks
from heapsmith.peers.allocator import FIELDS
from heapsmith.peers.candidate import read_candidate
from heapsmith.peers.register import register

from .conftest import CLIENT, FIELD, PROGRAMS, Build, behind_watch

ANSWERS = {
    "current_allocated_heap_size": "live_bytes",
    "peak_allocated_heap_size": "live_bytes_peak",
    "committed_bytes": "committed_bytes",
    "reserved_bytes": "reserved_bytes",
    "metadata_bytes": "metadata_bytes",
    "free_cached_bytes": "free_cached_bytes",
}
"""Its limit an allocator tells only where one is set: a test of its own."""


def ask(environment: dict[str, str]) -> Mallinfo:
    code = "import heapsmith, msgspec; print(msgspec.json.encode(heapsmith.mallinfo()).decode())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return msgspec.json.decode(done.stdout, type=Mallinfo)


@pytest.mark.parametrize("allocator", [name for name in register() if not register()[name].python_only])
def test_an_allocator_answers_what_its_table_says(allocator: str) -> None:
    told = ask(behind_watch(allocator, watched=False))
    found = {
        field: "unknown" if getattr(told, name) is None else "exact" if name in told.exact else "approximate"
        for field, name in ANSWERS.items()
    }
    table = register()[allocator].fields
    assert found == {field: table[field] for field in ANSWERS}
    assert set(table) == set(FIELDS) == {*ANSWERS, "max_total_heap_size"}


def test_what_is_approximate_has_its_meaning_named() -> None:
    for allocator in register().values():
        approximate = {name for name, tells in allocator.fields.items() if tells == "approximate"}
        assert approximate <= set(allocator.meanings), allocator.name


def test_a_limit_of_the_allocators_own_is_told() -> None:
    told = ask(behind_watch("tcmalloc", watched=False) | {"TCMALLOC_HEAP_LIMIT_MB": "512"})
    assert (told.limit_source, told.limit_effect) == ("allocator", "null")
    assert told.limit_bytes == 512 << 20


@pytest.fixture
def humble(build: Build) -> Path:
    """An allocator as people write them: its calloc calls malloc, its realloc calls malloc and free."""
    return build(PROGRAMS / "humble.c", "-shared", "-fPIC")


def test_an_allocator_that_calls_itself_is_counted_once(humble: Path) -> None:
    names = ["calloc", "realloc", "memalign", "usable-size", "peak", "threads", "limits"]
    verdicts = run_statistics_checks(read_candidate(str(humble)), select_statistics_checks(names))
    assert {verdict.name: verdict.verdict for verdict in verdicts} == dict.fromkeys(names, "pass"), verdicts


def test_what_calls_itself_leaves_nothing_behind(humble: Path, build: Build, tmp_path: Path) -> None:
    source = tmp_path / "grow.c"
    source.write_text(
        '#include <stdlib.h>\n#include "heapsmith.h"\n'
        "int main(void) { hs_stats_t a = HS_STATS_INIT, b = a; hs_stats_get(&a, HS_EXACT);"
        " for (int i = 0; i < 100; ++i) { char* volatile p = calloc(10, 10);"
        " for (int n = 100; n < 1000000; n *= 3) p = realloc(p, n); free(p); }"
        " hs_stats_get(&b, HS_EXACT);"
        " return b.current_bytes != a.current_bytes || b.live_blocks != a.live_blocks"
        " || b.allocations - a.allocations != 100 * 10; }\n"
    )
    program = build(source, CLIENT)
    environment = behind_watch()
    environment["LD_PRELOAD"] += f":{humble}"
    assert subprocess.run([program], env=environment).returncode == 0


def test_what_the_limit_refuses_is_not_zeroed_before(humble: Path, build: Build, tmp_path: Path) -> None:
    source = tmp_path / "zeros.c"
    source.write_text(
        '#include <errno.h>\n#include <stdlib.h>\n#include <sys/resource.h>\n#include "heapsmith.h"\n'
        "int main(void) { struct rusage before, used; hs_stats_t s = HS_STATS_INIT;"
        " getrusage(RUSAGE_SELF, &before);"  # the high-water mark begins with that of whoever forked
        " if (hs_limit_set(64 << 20, HS_LIMIT_FORCE) != HS_OK) return 1;"
        " void* volatile p = calloc(1, 1u << 30); if (p || errno != ENOMEM) return 2;"
        " getrusage(RUSAGE_SELF, &used); if (used.ru_maxrss > before.ru_maxrss + 50000) return 3;"
        " hs_stats_get(&s, HS_EXACT); if (s.failures != 1 || s.last_failed_bytes != 1u << 30) return 4;"
        " p = calloc(1, 16 << 20); return p == NULL ? 5 : 0; }\n"
    )
    program = build(source, CLIENT)
    environment = behind_watch()
    environment["LD_PRELOAD"] += f":{humble}"
    assert subprocess.run([program], env=environment).returncode == 0
    assert subprocess.run([program], env=behind_watch()).returncode == 0


def test_an_allocator_is_recognised_by_what_its_object_exports(humble: Path) -> None:
    told = ask(behind_watch(watched=False) | {"LD_PRELOAD": str(humble)})
    assert told.allocator == "dlmalloc" and told.committed_bytes and told.reserved_bytes is None
    assert told.limit_source != "allocator"


def test_a_musl_program_is_told_that_nobody_can_answer(build: Build) -> None:
    program = build(PROGRAMS / "calls.c", CLIENT, "-static", compiler="musl-gcc")
    done = subprocess.run(
        [program, "absent"], env=behind_watch(watched=False), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "absent\n")


def test_every_allocator_of_the_field_is_in_the_register() -> None:
    assert set(FIELD) | {"mimalloc3", "snmalloc", "musl", "dlmalloc"} <= set(register())

"""Whatever allocator the process really has is what is watched, by its own name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from watched import Watched

LIBRARIES = {
    "glibc": None,
    "jemalloc": "libjemalloc.so.2",
    "mimalloc": "libmimalloc.so.2.0",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "tbbmalloc": "libtbbmalloc_proxy.so.2",
}


def environment_for(name: str) -> dict[str, str]:
    file_name = LIBRARIES[name]
    if file_name is None:
        return {}
    path = Path("/usr/lib/x86_64-linux-gnu") / file_name
    if not path.exists():
        pytest.skip(f"there is no {file_name} on this machine")
    return {"LD_PRELOAD": str(path)}


@pytest.mark.parametrize("name", LIBRARIES)
def test_blocks_of_any_allocator_are_counted_by_its_own_sizes(
    watch: Callable[..., Watched], compiled: Callable[..., Path], name: str
) -> None:
    environment = environment_for(name)
    program = compiled("workload.cc")
    unwatched = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
    full = watch([program], environment=environment)
    assert (full.code, full.errors) == (0, "")
    assert full.first.allocator == name
    sums, tally = full.output.splitlines()
    assert sums == unwatched.stdout.splitlines()[0]
    told = json.loads(tally)
    process = full.first
    assert process.live_blocks >= told["live_blocks"]
    assert process.live_bytes >= told["live_bytes"]
    # The rest: the runtime's own reserve.
    assert process.live_bytes - told["live_bytes"] <= 100_000
    assert process.live_blocks - told["live_blocks"] <= 20
    assert process.failures == 0
    # What the allocator maps is its own business.
    assert process.mapped_bytes_peak == 0


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_program_runs_the_same_under_any_allocator(watch: Callable[..., Watched], name: str) -> None:
    code = "d = {str(i): [i] * 10 for i in range(30000)}; print(len(d), sum(len(v) for v in d.values()))"
    full = watch([sys.executable, "-c", code], environment=environment_for(name))
    assert (full.code, full.output) == (0, "30000 300000\n"), full.errors
    assert full.first.allocator == name
    assert full.first.python is not None
    assert full.first.allocations > 100_000
    arenas = full.first.python.arena_bytes_peak
    assert arenas <= full.first.mapped_bytes_peak <= arenas + (8 << 20)


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_limit_holds_over_any_allocator(
    watch: Callable[..., Watched], compiled: Callable[..., Path], name: str
) -> None:
    environment = environment_for(name)
    full = watch([compiled("news.cc"), "limited"], environment=environment, limit=8 << 20)
    assert full.code == 0, (full.code, full.errors)
    assert full.first.live_bytes_peak <= 8 << 20
    assert full.first.refused == 10 + 3


@pytest.mark.parametrize("source", ["own_malloc.c", "own_malloc_cpp.cc"])
def test_a_program_with_a_malloc_of_its_own_keeps_it_and_is_told_apart(
    watch: Callable[..., Watched], compiled: Callable[..., Path], source: str
) -> None:
    program = compiled(source, "-rdynamic")
    assert subprocess.run([program], check=False).returncode == 0
    full = watch([program])
    assert full.code == 0
    assert full.first.allocations == 0
    assert full.first.exact == []
    assert any("malloc itself" in note for note in full.first.notes)

"""Regions that a crash, a full disk or an enemy left damaged: one line or numbers, never a traceback."""

from __future__ import annotations

import contextlib
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heapsmith.errors import RunError
from heapsmith.native import library
from heapsmith.run import kernel
from heapsmith.run.gauges import GaugeReader
from heapsmith.run.region import Region
from heapsmith.run.watch import Watcher
from heapsmith.show.text import render_process
from heapsmith.wire.region import PAGE_BYTES, REGION_HEADER, REGION_MEMFD, SLOT, SLOTS_OFFSET_BYTES

from .conftest import behind_watch

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
NUMBERS = {"u32": 4, "i32": 4, "u64": 8, "i64": 8}
SLOTS = 8


class Bytes(bytes):
    """Bytes that do not fill the screen when a test fails."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@pytest.fixture(scope="module")
def whole() -> bytes:
    """The bytes of the region of a real process with threads, without the slots that nobody has used."""
    child = subprocess.Popen(
        [library("heapsmith_statistics_cost"), "hold", "3"],
        env=behind_watch(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    region = kernel.open_memory_files(child.pid, REGION_MEMFD)[0]
    with region.open("rb") as file:
        content = file.read(SLOTS_OFFSET_BYTES + SLOTS * PAGE_BYTES)
    child.communicate()
    return Bytes(content)


def look_everywhere(path: Path) -> None:
    """Read a region in every way that there is; what is wrong may be said, and nothing else may happen."""
    with contextlib.suppress(RunError), contextlib.closing(Region(path)) as region:
        with contextlib.closing(GaugeReader(region)) as gauges:
            assert gauges.live_bytes() >= 0
            assert gauges.totals().live_blocks >= 0
            gauges.told()
            gauges.pools()
        region.read().live_bytes()
    with contextlib.closing(Watcher(path.parent, [4_000_000])) as watcher:
        for process in watcher.poll():
            assert process.live_bytes >= 0
            assert render_process(process, {})


def test_what_is_whole_is_read(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "4000000.1.region"
    path.write_bytes(whole)
    with contextlib.closing(Watcher(tmp_path, [4_000_000])) as watcher:
        (process,) = watcher.poll()
    assert process.threads_started == 4 and process.live_bytes > 3000
    look_everywhere(path)


def header_places() -> st.SearchStrategy[tuple[int, int]]:
    fields = zip(REGION_HEADER.fields, REGION_HEADER.offsets(), strict=True)
    return st.sampled_from(
        [(offset, NUMBERS[str(field.kind)]) for field, offset in fields if str(field.kind) in NUMBERS]
    )


def slot_places() -> st.SearchStrategy[tuple[int, int]]:
    return st.builds(
        lambda slot, word: (SLOTS_OFFSET_BYTES + slot * PAGE_BYTES + word * 4, 4),
        st.integers(0, SLOTS - 1),
        st.integers(0, SLOT.size_bytes // 4 - 1) | st.integers(0, 15),
    )


values = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(
    0, 2**64 - 1
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(header_places() | slot_places(), values), min_size=1, max_size=6))
def test_wrong_numbers_anywhere_are_survived(
    whole: bytes, tmp_path: Path, damage: list[tuple[tuple[int, int], int]]
) -> None:
    torn = bytearray(whole)
    for (offset, size), value in damage:
        torn[offset : offset + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    path = tmp_path / "4000000.1.region"
    path.write_bytes(torn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look_everywhere(path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, SLOTS_OFFSET_BYTES + SLOTS * PAGE_BYTES), seed=st.integers(0, 2**32 - 1))
def test_regions_cut_short_or_of_noise_are_survived(
    whole: bytes, tmp_path: Path, cut: int, seed: int
) -> None:
    path = tmp_path / "4000000.1.region"
    path.write_bytes(whole[:cut])
    look_everywhere(path)
    noise = np.random.default_rng(seed).bytes(len(whole) - 64)
    path.write_bytes(whole[:64] + noise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look_everywhere(path)


def test_a_damaged_region_is_one_line_for_people(
    whole: bytes, tmp_path: Path, heapsmith: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    directory = tmp_path / "heapsmith" / "run-1-x"
    directory.mkdir(parents=True)
    (directory / "4000000.1.region").write_bytes(b"\0" * len(whole))
    (directory / "4000001.1.region").write_bytes(whole[:100])
    for words in (["ps"], ["ps", "--json"], ["metrics", "--once"]):
        done = heapsmith(*words)
        assert done.returncode == 0 and "Traceback" not in done.stderr
    done = heapsmith("info", "4000000")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "does not begin like one" in done.stderr

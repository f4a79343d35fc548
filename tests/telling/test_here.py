"""The heap of this very process from Python, watched and not."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import heapsmith
from heapsmith.errors import HeapsmithError
from heapsmith.here.report import Mallinfo

from .conftest import FIELD, behind_watch


def run_python(code: str, allocator: str = "glibc", *, watched: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import heapsmith\nfrom heapsmith import MiB\n" + textwrap.dedent(code)],
        env=behind_watch(allocator, watched=watched),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("allocator", FIELD)
def test_mallinfo_follows_what_the_program_does(allocator: str) -> None:
    said = run_python(
        """
        before = heapsmith.mallinfo()
        block = bytearray(50 * MiB)
        held = heapsmith.mallinfo()
        del block
        after = heapsmith.mallinfo()
        assert held.live_bytes - before.live_bytes >= 50 * MiB
        assert after.live_bytes - before.live_bytes < MiB
        assert after.live_bytes_peak >= held.live_bytes
        assert held.limit_bytes >= held.live_bytes and held.limit_source
        assert held.mode == "watched" and held.count_unit == "usable"
        assert heapsmith.mallinfo(exact=False).live_bytes is not None
        assert held.max_total_heap_size == held.limit_bytes
        print(held.allocator)
        """,
        allocator,
    )
    assert said.strip() == allocator.rstrip("2")


def test_asking_adds_little_to_what_is_asked_about() -> None:
    said = run_python(
        """
        import sys
        heapsmith.mallinfo()
        print("numpy" in sys.modules, heapsmith.mallinfo().mapped_bytes < 32 * MiB)
        """
    )
    assert said.split() == ["False", "True"]


def test_the_picture_adds_up_to_what_is_resident() -> None:
    said = run_python(
        """
        floats = [float(number) for number in range(2_000_000)]
        info = heapsmith.mallinfo()
        parts = {part.name: part.resident_bytes for part in info.picture()}
        assert sum(parts.values()) == info.resident_bytes
        assert parts["python arenas"] > 40 * MiB
        print(abs(parts["unexplained"]) / info.resident_bytes)
        """
    )
    assert float(said) < 0.1


@pytest.mark.parametrize("allocator", FIELD)
def test_what_nobody_tells_is_none_and_never_zero(allocator: str) -> None:
    said = run_python(
        """
        import msgspec
        print(msgspec.json.encode(heapsmith.mallinfo()).decode())
        """,
        allocator,
        watched=False,
    )
    import msgspec

    info = msgspec.json.decode(said, type=Mallinfo)
    assert info.mode == "asked" and info.live_bytes_peak is None
    assert (info.live_bytes is None) == (allocator in ("mimalloc2", "tbb"))
    assert info.live_bytes != 0 and info.committed_bytes != 0
    assert info.resident_bytes and info.limit_bytes


def test_a_limit_is_a_memory_error_and_ends_with_its_context() -> None:
    for watched, source in ((True, "cap"), (False, "rlimit_data")):
        said = run_python(
            """
            with heapsmith.limit((heapsmith.mallinfo().live_bytes or 0) + 100 * MiB) as limit:
                small = bytearray(20 * MiB)
                try:
                    bytearray(200 * MiB)
                except MemoryError:
                    print(limit.source)
            del small
            large = bytearray(200 * MiB)
            """,
            watched=watched,
        )
        assert said.strip() == source


def test_limits_nest() -> None:
    run_python(
        """
        live = heapsmith.mallinfo().live_bytes
        with heapsmith.limit(live + 200 * MiB):
            with heapsmith.limit(live + 50 * MiB):
                assert heapsmith.mallinfo().limit_bytes == live + 50 * MiB
            assert heapsmith.mallinfo().limit_bytes == live + 200 * MiB
        assert heapsmith.mallinfo().limit_source != "cap"
        """
    )


def test_a_limit_below_what_is_live_is_refused_with_the_reason() -> None:
    with pytest.raises(HeapsmithError, match=r"cannot be limited to 1\.00 KiB: .* are live"):
        heapsmith.limit(1024)
    with pytest.raises(HeapsmithError):
        heapsmith.limit(-5)


def test_peaks_nest_and_do_not_disturb_each_other() -> None:
    run_python(
        """
        high = bytearray(200 * MiB); del high
        base = heapsmith.mallinfo().live_bytes
        with heapsmith.peak() as outer:
            first = bytearray(60 * MiB); del first
            with heapsmith.peak() as inner:
                second = bytearray(30 * MiB); del second
            third = bytearray(10 * MiB); del third
        assert base + 30 * MiB <= inner.live_bytes_peak < base + 40 * MiB, inner.live_bytes_peak
        assert base + 60 * MiB <= outer.live_bytes_peak < base + 70 * MiB, outer.live_bytes_peak
        assert inner.error_bound_bytes == 0
        """
    )


def test_no_peak_is_made_up_where_nobody_counts() -> None:
    said = run_python(
        """
        try:
            heapsmith.peak()
        except heapsmith.errors.HeapsmithError as error:
            print(error)
        """,
        watched=False,
    )
    assert "not watched" in said and "heapsmith run" in said


@pytest.mark.parametrize("watched", [True, False])
def test_a_threshold_is_told_on_another_thread_each_time_it_is_crossed(watched: bool) -> None:
    said = run_python(
        """
        import threading, time
        told = []
        def note(crossing):
            told.append((threading.current_thread() is threading.main_thread(), crossing.live_bytes))
        live = heapsmith.mallinfo().live_bytes
        with heapsmith.watch_threshold(live + 20 * MiB, note, hysteresis=5 * MiB):
            for _ in range(2):
                block = bytearray(40 * MiB)
                time.sleep(0.4)
                del block
                time.sleep(0.4)
        block = bytearray(40 * MiB)
        time.sleep(0.2)
        print(len(told), any(on_main for on_main, _ in told), all(at > live + 20 * MiB for _, at in told))
        """,
        watched=watched,
    )
    assert said.split() == ["2", "False", "True"]


def test_a_callback_that_raises_is_shown_and_watching_goes_on() -> None:
    said = run_python(
        """
        import time
        calls = []
        def note(crossing):
            calls.append(1)
            raise ValueError("mine")
        live = heapsmith.mallinfo().live_bytes
        with heapsmith.watch_threshold(live + 20 * MiB, note):
            for _ in range(2):
                block = bytearray(40 * MiB); time.sleep(0.3); del block; time.sleep(0.1)
        print(len(calls), "calls")
        """
    )
    assert "2 calls" in said and said.count("ValueError: mine") == 2


def test_thresholds_go_on_in_forked_children() -> None:
    said = run_python(
        """
        import os, time, sys
        told = []
        live = heapsmith.mallinfo().live_bytes
        heapsmith.watch_threshold(live + 20 * MiB, told.append)
        child = os.fork()
        if child == 0:
            block = bytearray(40 * MiB)
            time.sleep(0.4)
            print("child", len(told)); sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        print("parent", len(told))
        """
    )
    assert said.split() == ["child", "1", "parent", "0"]


def test_a_share_of_the_limit_is_a_threshold() -> None:
    with heapsmith.watch_threshold(0.9, print) as threshold:
        limit = heapsmith.mallinfo().limit_bytes
        assert limit and 0.8 * limit < threshold.threshold_bytes < limit
    for wrong in (-1, 0):
        with pytest.raises(HeapsmithError):
            heapsmith.watch_threshold(wrong, print)

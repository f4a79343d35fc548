"""NumPy's arrays in a heap of their own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapsmith import numpy_heap
from heapsmith.errors import HeapsmithError
from heapsmith.units import KiB, MiB

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:  # NumPy 1
    from numpy.core.multiarray import get_handler_name  # pyright: ignore


def test_arrays_made_inside_are_from_the_heap_and_others_are_not() -> None:
    before = np.ones(1000)
    with numpy_heap() as heap:
        inside = np.ones(1000)
        text = np.array(["a", "b"])
    after = np.ones(1000)
    names = [get_handler_name(array) for array in (before, inside, text, after)]
    assert names == ["default_allocator", "heapsmith", "heapsmith", "default_allocator"]
    assert heap.statistics().live_blocks >= 2
    assert heap.statistics().live_bytes >= inside.nbytes + text.nbytes


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300_000)), min_size=1, max_size=25))
@settings(max_examples=30, deadline=None)
def test_arrays_are_aligned_hold_what_was_written_and_grow(steps: list[tuple[int, int]]) -> None:
    with numpy_heap() as heap:
        live = list[tuple[np.ndarray, int]]()
        for number, (kind, length) in enumerate(steps, 1):
            if kind == 0:
                array = np.zeros(length, "uint16")
                assert not array.any()
            elif kind == 1:
                array = np.empty(length, "uint16")
            elif kind == 2 and live:
                array = live.pop(0)[0]
                first = array[:1].copy()
                array.resize(length, refcheck=False)
                if length and len(first):
                    assert array[0] == first[0]
            else:
                array = np.arange(length, dtype="uint16")[: length // 2].copy()
            assert array.ctypes.data % 64 == 0
            array[:] = number
            live.append((array, number))
            assert all((array == fill).all() for array, fill in live)
        del array
        live.clear()
        gc.collect()
        assert heap.statistics().live_bytes < 8 * KiB


def test_memory_of_temporaries_is_used_again_and_bounded_by_the_peak() -> None:
    with numpy_heap() as heap:
        a, b, c = (np.random.default_rng(seed).random(MiB) for seed in range(3))
        for _ in range(5):
            r = a * b + c * b - a
        found = heap.statistics()
        assert np.array_equal(r, a * b + c * b - a)
        assert found.kept_bytes >= 8 * MiB
        assert found.committed_bytes <= found.live_bytes_peak + 18 * MiB
    # Left: what is kept goes back, what lives stays.
    assert heap.statistics().kept_bytes == 0
    assert r[0] == a[0] * b[0] + c[0] * b[0] - a[0]


def test_nothing_is_retained_where_nothing_shall_be() -> None:
    with numpy_heap(retain=0) as heap:
        for _ in range(3):
            np.ones(MiB).sum()
        assert heap.statistics().kept_bytes == 0
    with numpy_heap(retain="9MiB") as heap:
        for length in (MiB, MiB // 2, 2 * MiB):
            np.ones(length).sum()
            assert heap.statistics().kept_bytes <= 9 * MiB


def test_beyond_the_limit_is_a_memory_error_and_the_heap_goes_on() -> None:
    with numpy_heap(limit="10MiB") as heap:
        kept = np.ones(MiB)
        with pytest.raises(MemoryError):
            np.ones(MiB)
        with pytest.raises(MemoryError):
            kept * 2 + kept
        del kept
        assert np.ones(MiB).sum() == MiB
        assert heap.statistics().failures >= 2
        assert heap.statistics().live_bytes_peak <= 10 * MiB
        with pytest.raises(MemoryError):
            np.zeros(1 << 60, "uint8")


def test_arrays_outlive_their_heap() -> None:
    with numpy_heap() as heap:
        large, small = np.full(MiB, 3.0), np.arange(10)
        view = np.full((100, 100), 2.0)[10:20]
    del heap
    gc.collect()
    with numpy_heap():
        noise = [np.full(MiB, 9.0) for _ in range(3)]
    assert (large.sum(), small.sum(), view.sum()) == (3 * MiB, 45, 2 * 10 * 100)
    large.resize(2 * MiB, refcheck=False)
    assert large[MiB - 1] == 3
    assert pickle.loads(pickle.dumps(view)).sum() == view.sum()
    del noise, large


def test_an_inner_heap_gives_way_to_the_outer_one_even_after_an_error() -> None:
    outer = numpy_heap()
    with outer:
        with pytest.raises(RuntimeError), numpy_heap():
            raise RuntimeError
        with outer:  # twice is as good as once
            assert get_handler_name(np.ones(10)) == "heapsmith"
        assert get_handler_name(np.ones(10)) == "heapsmith"
    assert get_handler_name() == "default_allocator"


def test_threads_enter_a_heap_for_themselves() -> None:
    heap = numpy_heap()
    found = dict[str, str]()

    def work(name: str, enter: bool) -> None:
        if enter:
            with heap:
                found[name] = get_handler_name(np.ones(100))
        else:
            found[name] = get_handler_name(np.ones(100))

    with heap:
        threads = [
            threading.Thread(target=work, args=(name, name == "inside")) for name in ("inside", "outside")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        copied = contextvars.copy_context().run(lambda: get_handler_name(np.ones(10)))
        with ThreadPoolExecutor(2, initializer=heap.install) as pool:
            pooled = set(pool.map(lambda _: get_handler_name(np.ones(100)), range(20)))
    assert found == {"inside": "heapsmith", "outside": "default_allocator"}
    assert copied == "heapsmith"
    assert pooled == {"heapsmith"}


def test_a_heap_is_left_where_it_was_entered() -> None:
    heap = numpy_heap()
    with heap, ThreadPoolExecutor(1) as pool, pytest.raises(HeapsmithError, match="another thread"):
        pool.submit(heap.__exit__, None, None, None).result()
    assert get_handler_name() == "default_allocator"


def test_arrays_are_freed_by_other_threads_while_theirs_goes_on() -> None:
    with numpy_heap() as heap, ThreadPoolExecutor(3, initializer=heap.install) as pool:

        def make(number: int) -> list[np.ndarray]:
            return [np.full(50 + 97 * turn, number) for turn in range(200)]

        for number, arrays in enumerate(pool.map(make, range(30))):
            assert all((array == number).all() for array in arrays)
    del arrays
    assert heap.statistics().live_bytes < 8 * KiB


def test_tasks_have_their_own() -> None:
    async def inside() -> str:
        with numpy_heap():
            await asyncio.sleep(0)
            return get_handler_name(np.ones(10))

    async def outside() -> str:
        await asyncio.sleep(0)
        return get_handler_name(np.ones(10))

    async def both() -> list[str]:
        return await asyncio.gather(inside(), outside())

    assert asyncio.run(both()) == ["heapsmith", "default_allocator"]


def test_a_forked_child_goes_on() -> None:
    with numpy_heap():
        array = np.ones(MiB)
        child = os.fork()
        if child == 0:
            more = np.ones(MiB) + array
            os._exit(0 if more.sum() == 2 * MiB else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert array.sum() == MiB


@pytest.mark.parametrize(
    "words",
    [
        {"limit": 0},
        {"limit": "lots"},
        {"retain": -1},
        {"retain_for": -1},
        {"retain_for": "soon"},
        {"retain_for": None},
        {"huge_pages": "always"},
        {"huge_pages": 2},
    ],
)
def test_a_heap_that_cannot_be_is_one_clear_error(words: dict[str, object]) -> None:
    with pytest.raises(HeapsmithError):
        numpy_heap(**words)  # pyright: ignore[reportArgumentType]


def test_huge_pages_are_asked_for_where_they_are_wanted() -> None:
    def advised(wanted: bool | None) -> bool:
        with numpy_heap(huge_pages=wanted):
            array = np.ones(2 * MiB)
            address = array.ctypes.data
            with Path("/proc/self/smaps").open() as maps:
                inside = False
                for line in maps:
                    head = line.split()[0]
                    if "-" in head and not head.endswith(":"):
                        low, high = (int(end, 16) for end in head.split("-"))
                        inside = low <= address < high
                    elif inside and head == "VmFlags:":
                        return "hg" in line.split()
        raise AssertionError("no such mapping")

    assert [advised(True), advised(None), advised(False)] == [True, True, False]


def test_what_a_spike_of_small_arrays_leaves_goes_back() -> None:
    with numpy_heap() as heap:
        spike = [np.empty(1000, "uint8") for _ in range(10_000)]
        kept = np.arange(1000)
        del spike
        assert heap.statistics().committed_bytes > 9 * MiB
        time.sleep(1.1)
        for _ in range(600):
            np.empty(1000)
        assert heap.statistics().committed_bytes < MiB
        assert kept.sum() == 499_500

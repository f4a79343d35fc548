"""Heaps of their own in Python: what a block promises while its heap lives, and after."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Place
from hypothesis.stateful import RuleBasedStateMachine, consumes, invariant, precondition, rule

import heapsmith
from heapsmith.errors import HeapsmithError, SpecError
from heapsmith.here import ClosedError, LocalHeap
from heapsmith.spec import Explicit, HeapSpec, HugePages, Limit, OsPages, Prefault, PurgeAtOnce
from heapsmith.units import KiB, MiB


class BlocksAgainstAModel(RuleBasedStateMachine):
    """Views, arrays and slices of them, freed in any order: none ever sees another's bytes."""

    blocks = Place("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.heap = LocalHeap()
        self.live = dict[int, tuple[object, int, int]]()
        self.number = 0

    def _remember(self, block: memoryview | np.ndarray, length: int) -> int:
        self.number += 1
        fill = self.number % 251 + 1
        block[:] = bytes([fill]) * length if isinstance(block, memoryview) else fill
        self.live[self.number] = (block, length, fill)
        return self.number

    @rule(target=blocks, length=st.integers(0, 3000) | st.integers(0, 2 * MiB))
    def allocate(self, length: int) -> int:
        return self._remember(self.heap.allocate(length), length)

    @rule(target=blocks, length=st.integers(0, 5000), alignment=st.sampled_from([1, 64, 4096, 65536]))
    def make_array(self, length: int, alignment: int) -> int:
        array = self.heap.array(length, "uint8", alignment=alignment)
        assert array.ctypes.data % alignment == 0
        return self._remember(array, length)

    @rule(block=consumes(blocks))
    def free(self, block: int) -> None:
        found, _, _ = self.live.pop(block)
        self.heap.free(found)  # pyright: ignore[reportArgumentType]

    @rule(block=consumes(blocks))
    def forget(self, block: int) -> None:
        del self.live[block]

    @precondition(lambda self: len(self.live) > 3)
    @rule()
    def trim(self) -> None:
        self.heap.trim()

    @invariant()
    def every_block_keeps_what_was_written(self) -> None:
        for block, length, fill in self.live.values():
            step = 1 if length < 4096 else 511
            assert set(bytes(block[::step])) <= {fill}  # pyright: ignore[reportIndexIssue]

    @invariant()
    def what_lives_is_counted(self) -> None:
        found = self.heap.statistics()
        assert found.live_blocks == len(self.live) == found.allocations - found.frees
        assert sum(length for _, length, _ in self.live.values()) <= found.live_bytes <= found.live_bytes_peak

    def teardown(self) -> None:
        self.heap.close()


TestBlocksAgainstAModel = BlocksAgainstAModel.TestCase
TestBlocksAgainstAModel.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_a_view_raises_once_its_heap_is_closed() -> None:
    with heapsmith.LocalHeap() as heap:
        view = heap.allocate(100)
        view[0] = 7
    with pytest.raises(ValueError, match="released"):
        view[0]
    with pytest.raises(ClosedError):
        heap.allocate(1)
    with pytest.raises(ClosedError), heap:
        pass
    assert heap.closed
    heap.close()
    assert heap.statistics().live_blocks == 1


def test_what_was_made_of_a_view_outlives_the_heap() -> None:
    with LocalHeap() as heap:
        view = heap.allocate(1 * MiB)
        part = view[1000:2000]
        numbers = np.frombuffer(view, "uint8")
        array = heap.array((100, 100))
        corner = array[50:, 50:]
    del view, heap, array
    gc.collect()
    part[:] = b"x" * 1000
    corner[:] = 3
    # Other heaps do not get this memory.
    others = [LocalHeap() for _ in range(20)]
    for other in others:
        other.array(100000)[:] = 9
    assert bytes(part[:5]) == b"xxxxx"
    assert numbers[1500] == ord("x")
    assert corner.sum() == 3 * 50 * 50


def test_a_freed_array_stays_as_it_is_until_it_is_gone() -> None:
    heap = LocalHeap()
    array = heap.array(1000)
    array[:] = 5
    heap.free(array)
    other = heap.array(1000)
    other[:] = 6
    assert array.sum() == 5000
    assert heap.statistics().live_blocks == 2
    del array
    assert heap.statistics().live_blocks == 1


def test_a_block_that_nobody_knows_any_more_is_free() -> None:
    heap = LocalHeap()
    for _ in range(100):
        heap.allocate("64KiB")
    assert heap.statistics().live_blocks == 0
    assert heap.statistics().committed_bytes < MiB


def test_cycles_with_blocks_are_collected() -> None:
    class Holder:
        pass

    heap = LocalHeap()
    holder = Holder()
    holder.me, holder.heap, holder.array = holder, heap, heap.array(1000)  # pyright: ignore[reportAttributeAccessIssue]
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None
    assert heap.statistics().live_blocks == 0


def test_freeing_twice_or_somebody_elses_is_one_clear_error() -> None:
    heap, other = LocalHeap(), LocalHeap()
    view, array = heap.allocate(10), heap.array(10)
    heap.free(view)
    with pytest.raises(HeapsmithError, match="freed before"):
        heap.free(view)
    with pytest.raises(HeapsmithError, match="no block of this heap"):
        other.free(array)
    for foreign in (memoryview(bytearray(10)), np.zeros(10), b"text", None):
        with pytest.raises(HeapsmithError, match="no block of this heap"):
            heap.free(foreign)  # pyright: ignore[reportArgumentType]
    heap.free(array)
    with pytest.raises(HeapsmithError, match="freed before"):
        heap.free(array)


@pytest.mark.parametrize("length", [-1, 1.5, None, "", "many", True, "-3", b"10"])
def test_a_length_that_is_none_is_one_clear_error(length: object) -> None:
    heap = LocalHeap()
    with pytest.raises(HeapsmithError):
        heap.allocate(length)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("alignment", [0, -16, 3, 1 << 30, 16.0, "16", True])
def test_an_alignment_that_is_none_is_one_clear_error(alignment: object) -> None:
    with pytest.raises(HeapsmithError, match="power of two"):
        LocalHeap().allocate(10, alignment=alignment)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((-1,), float), ("ab", float), (10, "no-such"), (10, object), (1.5, float), (3, [("a", "O")])],
)
def test_an_array_that_cannot_be_is_one_clear_error(shape: object, dtype: object) -> None:
    with pytest.raises(HeapsmithError):
        LocalHeap().array(shape, dtype)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("length", [1 << 62, (1 << 64) - 1, 1 << 70])
def test_more_than_there_can_be_is_a_memory_error(length: int) -> None:
    heap = LocalHeap()
    with pytest.raises(MemoryError):
        heap.allocate(length)
    with pytest.raises(MemoryError):
        heap.array(length, "uint8")
    assert len(heap.allocate(10)) == 10


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_a_limit_is_never_exceeded_and_can_be_reached(lengths: list[int]) -> None:
    heap = LocalHeap(limit="256KiB")
    held = list[memoryview]()
    for length in lengths:
        try:
            held.append(heap.allocate(length))
        except MemoryError as error:
            assert "limit of 256 KiB" in str(error)
            held.clear()
        assert heap.statistics().live_bytes <= 256 * KiB
    held.clear()
    assert len(heap.allocate(256 * KiB)) == 256 * KiB


def test_a_spec_gives_its_classes_its_pages_and_its_limit() -> None:
    spec = HeapSpec(
        name="own",
        sizes=Explicit((104, 1000)),
        pages=OsPages() | Limit(limit_bytes=MiB) | Prefault() | HugePages(after_bytes=0) | PurgeAtOnce(),
    )
    heap = LocalHeap(spec)
    block = heap.allocate(100, alignment=8)
    assert heap.statistics().live_bytes == 104
    assert heap.statistics().limit_bytes == MiB
    with pytest.raises(MemoryError):
        heap.allocate(2 * MiB)
    assert LocalHeap(spec, limit=1000).statistics().limit_bytes == 1000
    del block
    large = heap.array(MiB // 2, "uint8")
    del large
    assert heap.statistics().kept_bytes == 0


def test_presets_are_specs_and_hardening_is_refused() -> None:
    heap = LocalHeap("pow2")
    block = heap.allocate(33)
    assert heap.statistics().live_bytes == 64
    del block
    with pytest.raises(SpecError, match="no hardening"):
        LocalHeap("hardened")
    with pytest.raises(SpecError, match="no-such"):
        LocalHeap("no-such")
    for limit in (0, -5, "none", 1.5):
        with pytest.raises(HeapsmithError):
            LocalHeap(limit=limit)  # pyright: ignore[reportArgumentType]


def test_threads_share_a_heap() -> None:
    heap = LocalHeap()
    wrong = list[int]()

    def work(number: int) -> None:
        for turn in range(300):
            view, array = heap.allocate(50 + turn * 7), heap.array(turn, "uint8")
            view[:] = bytes([number]) * len(view)
            array[:] = number
            if set(bytes(view)) != {number} or (array != number).any():
                wrong.append(number)
            heap.free(view)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert heap.statistics().live_blocks == 0
    assert heap.statistics().allocations == 4 * 600


def test_a_forked_child_has_its_own_copy() -> None:
    heap = LocalHeap()
    view = heap.allocate(1000)
    view[:] = b"p" * 1000
    child = os.fork()
    if child == 0:
        view[:] = b"c" * 1000
        more = [heap.allocate(1000) for _ in range(100)]
        heap.free(view)
        os._exit(0 if len(more) == 100 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(view) == b"p" * 1000
    assert heap.statistics().live_blocks == 1


def test_a_program_may_end_with_everything_open() -> None:
    program = """
        import atexit, heapsmith, numpy as np
        heap = heapsmith.LocalHeap()
        arena = heapsmith.Arena()
        views = [heap.allocate(1000), arena.allocate(1000)]
        arrays = [heap.array(1000), arena.array(10), np.frombuffer(views[0], "uint8")]
        views.append(views)
        numpy = heapsmith.numpy_heap().__enter__()
        kept = np.ones(100000)
        atexit.register(lambda: (arrays[0].sum(), kept.sum(), views[0][0]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

"""Arenas in Python: marks, release, and what is still referred to."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import heapsmith
from heapsmith.errors import HeapsmithError
from heapsmith.here import Arena, ClosedError, Mark
from heapsmith.units import KiB, MiB


class ArenaAgainstAModel(RuleBasedStateMachine):
    """Blocks, marks and releases in any order, while some arrays live on: nobody's bytes change."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(grow_by="8KiB")
        self.number = 0
        # In order: blocks with what they hold, and marks.
        self.story = list[tuple[memoryview | np.ndarray, int] | Mark]()
        self.outliving = list[tuple[np.ndarray, int]]()

    def _filled(self, block: memoryview | np.ndarray) -> tuple[memoryview | np.ndarray, int]:
        self.number = self.number % 250 + 1
        block[:] = bytes([self.number]) * len(block) if isinstance(block, memoryview) else self.number
        return block, self.number

    @rule(
        length=st.integers(0, 5000) | st.integers(0, 40_000), alignment=st.sampled_from([1, 16, 4096, 8192])
    )
    def allocate(self, length: int, alignment: int) -> None:
        self.story.append(self._filled(self.arena.allocate(length, alignment=alignment)))

    @rule(length=st.integers(0, 3000), outlives=st.booleans())
    def make_array(self, length: int, outlives: bool) -> None:
        array, fill = self._filled(self.arena.array(length, "uint8"))
        self.story.append((array, fill))
        if outlives:
            assert isinstance(array, np.ndarray)
            self.outliving = [*self.outliving[-5:], (array[length // 2 :], fill)]

    @rule()
    def mark(self) -> None:
        self.story.append(self.arena.mark())

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        marks = [entry for entry in self.story if isinstance(entry, Mark)]
        mark = data.draw(st.sampled_from([None, *marks]))
        at = self.story.index(mark) + 1 if mark else 0
        gone = [entry[0] for entry in self.story[at:] if not isinstance(entry, Mark)]
        stale = [entry for entry in self.story[at:] if isinstance(entry, Mark)]
        had_blocks = [index for index, entry in enumerate(self.story[at:]) if not isinstance(entry, Mark)]
        later = [m for m in stale if had_blocks and self.story.index(m) > at + had_blocks[0]]
        del self.story[at:]
        self.arena.release(mark)
        for view in gone:
            if isinstance(view, memoryview):
                with pytest.raises(ValueError, match="released"):
                    bytes(view)
        for entry in later:
            with pytest.raises(ClosedError):
                self.arena.release(entry)

    @invariant()
    def nobodys_bytes_change(self) -> None:
        for entry in self.story:
            if not isinstance(entry, Mark):
                assert set(bytes(entry[0])) <= {entry[1]}
        for array, fill in self.outliving:
            assert (array == fill).all()

    @invariant()
    def blocks_are_counted(self) -> None:
        blocks = [entry[0] for entry in self.story if not isinstance(entry, Mark)]
        found = self.arena.statistics()
        assert found.live_blocks == len(blocks)
        assert sum(map(len, blocks)) <= found.live_bytes <= found.live_bytes_peak
        assert found.pinned_bytes >= 0

    def teardown(self) -> None:
        self.arena.close()


TestArenaAgainstAModel = ArenaAgainstAModel.TestCase
TestArenaAgainstAModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_views_raise_once_the_arena_is_gone() -> None:
    with heapsmith.Arena() as arena:
        view = arena.allocate(100)
        large = arena.allocate("2MiB")
        view[3] = 3
    for block in (view, large):
        with pytest.raises(ValueError, match="released"):
            block[0] = 1
    with pytest.raises(ClosedError):
        arena.allocate(1)
    with pytest.raises(ClosedError):
        arena.mark()
    assert arena.statistics().live_blocks == 2


def test_arrays_outlive_their_arena() -> None:
    with Arena() as arena:
        small, large = arena.array(100), arena.array((300, 1000))
        small[:], large[:] = 1, 2
        part = arena.allocate(100)[10:20]
    del arena
    gc.collect()
    with Arena() as other:
        for _ in range(100):
            other.array(10_000)[:] = 9
    part[:] = b"0123456789"
    assert (small.sum(), large.sum(), bytes(part[:2])) == (100, 600_000, b"01")


def test_a_loop_that_marks_and_releases_uses_the_same_memory_again() -> None:
    arena = Arena()
    array = arena.array(10)
    for turn in range(500):
        mark = arena.mark()
        array = arena.array(1000)  # the last turn's is bound until here
        array[:] = turn
        arena.allocate(3000)
        arena.release(mark)
    found = arena.statistics()
    assert found.committed_bytes <= 4 * 64 * KiB
    assert 0 < found.pinned_bytes <= 2 * 64 * KiB
    del array
    assert arena.statistics().pinned_bytes == 0


def test_a_mark_is_a_context_manager() -> None:
    arena = Arena()
    kept = arena.allocate(10)
    with arena.mark():
        brief = arena.allocate(10)
        with arena.mark() as inner:
            arena.allocate(10)
            inner.release()
            assert arena.statistics().live_blocks == 2
    assert arena.statistics().live_blocks == 1
    kept[0] = 1
    with pytest.raises(ValueError, match="released"):
        brief[0] = 1
    with arena.mark():
        arena.close()


def test_a_mark_of_another_arena_or_of_memory_that_is_gone_is_refused() -> None:
    arena, other = Arena(), Arena()
    first = arena.mark()
    block = arena.allocate(10)
    second = arena.mark()
    arena.release(first)
    assert arena.statistics().live_blocks == 0
    for mark, of in ((second, arena), (first, other)):
        with pytest.raises(ClosedError, match="mark is gone"):
            of.release(mark)
    arena.release(first)
    del block


def test_a_limit_is_what_is_live() -> None:
    arena = Arena(limit="100KiB")
    first = arena.allocate("60KiB")
    with pytest.raises(MemoryError, match="limit of 100 KiB"):
        arena.allocate("60KiB")
    assert len(arena.allocate("40KiB")) == 40 * KiB
    with pytest.raises(MemoryError):
        arena.allocate(1)
    arena.release()
    assert len(arena.allocate("100KiB")) == 100 * KiB
    with pytest.raises(ValueError, match="released"):
        first[0] = 1


def test_aligned_blocks_are_aligned() -> None:
    arena = Arena()
    for alignment in (1, 8, 64, 4096, 65536, 2 * MiB):
        arena.allocate(3)
        address = np.frombuffer(arena.allocate(100, alignment=alignment), "uint8").ctypes.data
        assert address % alignment == 0


@pytest.mark.parametrize(
    "words", [{"grow_by": 0}, {"grow_by": "x"}, {"limit": 0}, {"limit": -1}, {"limit": 2.5}]
)
def test_an_arena_that_cannot_be_is_one_clear_error(words: dict[str, object]) -> None:
    with pytest.raises(HeapsmithError):
        Arena(**words)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("length", [1 << 62, 1 << 70])
def test_more_than_there_can_be_is_a_memory_error(length: int) -> None:
    arena = Arena()
    with pytest.raises(MemoryError):
        arena.allocate(length)
    assert len(arena.allocate(10)) == 10


def test_zeroed_blocks_read_as_zero_where_others_were() -> None:
    arena = Arena(huge_pages=True)
    arena.allocate(1000)[:] = b"x" * 1000
    arena.release()
    assert bytes(arena.allocate(1000, zeroed=True)) == bytes(1000)
    assert not arena.array(1000, zeroed=True).any()


def test_what_an_array_still_sees_is_not_handed_out_again() -> None:
    arena = Arena()
    arena.allocate(100)
    mark = arena.mark()
    array = arena.array(1000)
    array[:] = 1
    for _ in range(3):
        arena.release(mark)
        arena.array(2000)[:] = 2
    assert array.sum() == 1000
    # Once it is gone, the room is used from the mark on.
    place = array.ctypes.data
    del array
    arena.release(mark)
    assert arena.array(1000).ctypes.data == place

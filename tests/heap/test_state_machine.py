"""A heap against a model of malloc in Python: whatever is called in whatever order, from whichever thread."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from heapsmith.lab.subjects import resolve_subject

# Small ones mostly, the edges of classes and pages, and large ones.
SIZES = st.one_of(
    st.integers(0, 200),
    st.integers(0, 40_000),
    st.sampled_from([0, 1, 15, 16, 17, 4095, 4096, 4097, 32768, 32769, 262144, 262145]),
    st.integers(200_000, 3_000_000),
)
ALIGNMENTS = st.integers(3, 16).map(lambda power: 1 << power)


class Functions:
    """The malloc family of a library that is loaded beside the process's own.

    Args:
        preset: Whose library.
    """

    def __init__(self, preset: str) -> None:
        library = ctypes.CDLL(str(resolve_subject(preset).library))
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        self.malloc = _typed(library.malloc, pointer, size)
        self.calloc = _typed(library.calloc, pointer, size, size)
        self.realloc = _typed(library.realloc, pointer, pointer, size)
        self.aligned_alloc = _typed(library.aligned_alloc, pointer, size, size)
        self.free = _typed(library.free, None, pointer)
        self.usable_bytes = _typed(library.malloc_usable_size, size, pointer)
        self.trim = _typed(library.malloc_trim, ctypes.c_int, size)


def _typed(function: Any, result: Any, *arguments: Any) -> Callable[..., Any]:
    function.restype, function.argtypes = result, list(arguments)
    return function


def machine_of(preset: str) -> type[RuleBasedStateMachine]:
    """Make the machine of a preset: its library can be loaded once in a process only."""
    functions = Functions(preset)
    # Every block of the model is where its bytes are: a second thread that frees has a cache of its own.
    elsewhere = ThreadPoolExecutor(
        1, initializer=lambda: setattr(threading.current_thread(), "name", "elsewhere")
    )

    class Machine(RuleBasedStateMachine):
        blocks = Bundle("blocks")

        def __init__(self) -> None:
            super().__init__()
            self.contents: dict[int, bytes] = {}
            self.fills = 0

        def _take(self, block: int | None, size_bytes: int, alignment: int = 16) -> int:
            assert block, f"no block of {size_bytes} bytes"
            assert block % (alignment if size_bytes >= alignment or alignment > 16 else 8) == 0
            assert functions.usable_bytes(block) >= size_bytes
            for other, content in self.contents.items():
                assert block + size_bytes <= other or other + max(1, len(content)) <= block, "blocks overlap"
            self._fill(block, size_bytes)
            return block

        def _fill(self, block: int, size_bytes: int) -> None:
            self.fills += 1
            content = bytes([self.fills & 255, size_bytes & 255]) * (size_bytes // 2 + 1)
            ctypes.memmove(block, content, size_bytes)
            self.contents[block] = content[:size_bytes]

        def _holds(self, block: int) -> None:
            content = self.contents[block]
            assert ctypes.string_at(block, len(content)) == content

        @rule(target=blocks, size_bytes=SIZES)
        def malloc(self, size_bytes: int) -> int:
            return self._take(functions.malloc(size_bytes), size_bytes)

        @rule(target=blocks, count=st.integers(0, 50), size_bytes=st.integers(0, 20_000))
        def calloc(self, count: int, size_bytes: int) -> int:
            block = functions.calloc(count, size_bytes)
            assert ctypes.string_at(block, count * size_bytes) == bytes(count * size_bytes)
            return self._take(block, count * size_bytes)

        @rule(target=blocks, alignment=ALIGNMENTS, size_bytes=SIZES)
        def aligned_alloc(self, alignment: int, size_bytes: int) -> int:
            return self._take(functions.aligned_alloc(alignment, size_bytes), size_bytes, alignment)

        @rule(target=blocks, block=consumes(blocks), size_bytes=SIZES.filter(bool))
        def realloc(self, block: int, size_bytes: int) -> int:
            self._holds(block)
            before = self.contents.pop(block)
            moved = functions.realloc(block, size_bytes)
            kept = min(len(before), size_bytes)
            assert ctypes.string_at(moved, kept) == before[:kept]
            return self._take(moved, size_bytes)

        @rule(block=consumes(blocks))
        def free(self, block: int) -> None:
            self._holds(block)
            del self.contents[block]
            functions.free(block)

        @rule(block=consumes(blocks))
        def free_elsewhere(self, block: int) -> None:
            self._holds(block)
            del self.contents[block]
            elsewhere.submit(functions.free, block).result()

        @rule(target=blocks, size_bytes=SIZES)
        def malloc_elsewhere(self, size_bytes: int) -> int:
            return self._take(elsewhere.submit(functions.malloc, size_bytes).result(), size_bytes)

        @rule()
        def what_cannot_be_is_null(self) -> None:
            assert functions.malloc((1 << 63) - 1) is None
            assert functions.calloc(1 << 40, 1 << 40) is None
            functions.free(None)

        @precondition(lambda self: self.contents)
        @rule()
        def trim(self) -> None:
            functions.trim(0)

        @invariant()
        def the_last_ones_hold_what_was_written(self) -> None:
            for block in list(self.contents)[-3:]:
                self._holds(block)

        def teardown(self) -> None:
            for block in self.contents:
                self._holds(block)
                functions.free(block)

    return Machine


@pytest.mark.parametrize("preset", ["default", "small", "pow2", "low-latency", "hardened"])
def test_any_sequence_of_calls_agrees_with_the_model(preset: str) -> None:
    case: Any = machine_of(preset).TestCase
    case.settings = settings(
        max_examples=25,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    case("runTest").runTest()

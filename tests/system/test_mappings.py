"""Memory that a program maps itself is counted apart, page by page, as the kernel has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from watched import Watched


@pytest.mark.parametrize(
    "scenario", ["whole", "odd_sizes", "holes", "across", "over", "bad_calls", "remaps", "files", "malloc"]
)
def test_what_is_mapped_is_what_is_left(
    watch: Callable[..., Watched], compiled: Callable[..., Path], scenario: str
) -> None:
    full = watch([compiled("maps.c"), scenario])
    assert full.code == 0
    assert full.first.mapped_bytes == int(full.output)
    assert full.first.mapped_bytes_peak >= full.first.mapped_bytes
    assert full.first.lost == 0

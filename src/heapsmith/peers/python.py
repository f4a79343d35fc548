"""How CPython allocates its own objects: `PYTHONMALLOC`, which goes together with any allocator below it."""

from __future__ import annotations

from typing import Final

from heapsmith.peers.knobs import Knob

VARIABLE: Final = "PYTHONMALLOC"

KNOB: Final = Knob(
    name="python",
    kind="choice",
    help="who serves CPython's own objects: its pymalloc, its mimalloc (since 3.13), or malloc like the rest",
    default_note="pymalloc; mimalloc in free-threaded builds",
    choices=("pymalloc", "malloc", "mimalloc"),
    tries=("pymalloc", "malloc", "mimalloc"),
)
"""The knob that every allocator has in front of a CPython program."""

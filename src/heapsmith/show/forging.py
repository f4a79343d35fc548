"""What a person reads of a forge: the heap explained, and what was made."""

from __future__ import annotations

from rich.text import Text

from heapsmith.forge import Forged
from heapsmith.spec import HeapSpec
from heapsmith.units import format_seconds


def render_explanation(spec: HeapSpec) -> Text:
    """Make the text of an effective heap.

    Example:
        >>> render_explanation(HeapSpec()).plain.splitlines()[1]
        '  sizes: Geometric'
    """
    return Text(spec.explain())


def render_forged(made: Forged) -> Text:
    """Make the line that ends a forge.

    Example:
        >>> from pathlib import Path
        >>> render_forged(Forged(Path("a.so"), True, 0.01, "")).plain
        'a.so: ready, in 10.0 ms'
    """
    how = "ready" if made.cached else f"compiled with {made.compiler}" if made.compiler else "written"
    debug = f"; debug file {made.debug_file}" if made.debug_file else ""
    return Text(f"{made.path}: {how}, in {format_seconds(made.seconds)}{debug}")

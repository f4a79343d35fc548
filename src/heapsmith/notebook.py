"""The notebook's magic ``%%heap``: a cell, recorded, and its report inline.

The cell runs in the kernel, as any other: with the notebook's variables, and what it defines stays. Only what it allocates
is recorded: what the cells before it hold is not known, and where it frees of that, no block of the recording dies.
"""

from __future__ import annotations

import html
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from heapsmith.errors import HeapsmithError

_USAGE: Final = "%%heap [--stacks none|sampled|all] [--height PIXELS]"
_NOTE: Final = "What the cell allocated; what was there before it is not in the report."


class InlineReport:
    """A report that a notebook shows in place.

    Args:
        page: The whole HTML page.
        text: For where there is no browser.
        note: What a person should know.
        height_pixels: Of the frame.

    Example:
        >>> "srcdoc" in InlineReport("<p>", "", "", 300)._repr_html_()
        True
    """

    def __init__(self, page: str, text: str, note: str, height_pixels: int = 900) -> None:
        self.page = page
        self.text = text
        self.note = note
        self._height = height_pixels

    def _repr_html_(self) -> str:
        page = html.escape(self.page, quote=True)
        return (
            f"<p>{html.escape(self.note)}</p><iframe srcdoc=\"{page}\" width='100%' height='{self._height}' "
            "style='border:0' sandbox='allow-scripts'></iframe>"
        )

    def __repr__(self) -> str:
        return f"{self.note}\n{self.text}"


def record_cell(
    run_cell: Callable[[], object],
    *,
    stacks: Literal["none", "sampled", "all"] = "all",
    height_pixels: int = 900,
) -> InlineReport:
    """Record this process while a cell runs in it, and answer the report.

    Args:
        run_cell: Runs the cell; what it prints and raises is its own affair.
        stacks: As of ``heapsmith record``.
        height_pixels: Of the frame.

    Raises:
        HeapsmithError: The cell could not be recorded; where it is being recorded already, it has run.
    """
    from heapsmith.run.here import record
    from heapsmith.show.report_page import render_report_page
    from heapsmith.show.report_text import render_report
    from heapsmith.show.terminal import encode_text
    from heapsmith.symbols import FrameNames
    from heapsmith.trace import open_trace
    from heapsmith.trace.caches import CacheRules, read_rules
    from heapsmith.trace.report import build_report
    from heapsmith.wire.classes import CLASS_BYTES

    with tempfile.TemporaryDirectory(prefix="heapsmith-") as folder:
        trace = Path(folder, "cell.heap")
        with record(trace, stacks=stacks):
            run_cell()
        if not trace.exists():
            raise HeapsmithError(
                "the cell has no report of its own",
                "the kernel is being recorded already",
                "look into that recording",
            )
        report = build_report(
            [open_trace(trace)], FrameNames(), CacheRules(read_rules()), class_bytes=CLASS_BYTES
        )
        page = render_report_page(report, title="notebook cell")
        text = encode_text(render_report(report)).decode()
    return InlineReport(page, text, _NOTE, height_pixels)


def _magic(shell: Any) -> Any:
    def heap(line: str, cell: str | None = None) -> InlineReport | None:
        words = shlex.split(line)
        options: dict[str, Any] = {}
        while words:
            word = words.pop(0)
            if word == "--stacks" and words:
                options["stacks"] = words.pop(0)
            elif word == "--height" and words and words[0].isdigit():
                options["height_pixels"] = int(words.pop(0))
            else:
                sys.stderr.write(f"heapsmith: {word!r} is not understood: {_USAGE}\n")
                return None
        try:
            return record_cell(lambda: shell.run_cell(cell or ""), **options)
        except HeapsmithError as error:
            sys.stderr.write(f"heapsmith: {error}\n")
            return None

    return heap


def load_ipython_extension(shell: Any) -> None:
    """Register ``%%heap``; called by ``%load_ext heapsmith``.

    Args:
        shell: IPython's shell.
    """
    shell.register_magic_function(_magic(shell), magic_kind="cell", magic_name="heap")

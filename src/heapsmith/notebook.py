"""The notebook's magic ``%%heap``: a cell, recorded, and its report inline.

The kernel itself cannot be recorded from its middle, so the cell runs in a process of its own, recorded from its start: it
knows what the lines before it in the cell define and import, not the notebook's variables, and it says so. With
``%%heap --after-cells`` the cells that were run before it run first, in that process, unshown.
"""

from __future__ import annotations

import html
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from heapsmith.errors import HeapsmithError

_USAGE: Final = "%%heap [--after-cells] [--stacks none|sampled|all] [--height PIXELS]"
_NOTE: Final = (
    "The cell ran in a process of its own, recorded from its start; the notebook's variables were not there"
    " (`%%heap --after-cells` runs the cells before it first)."
)


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
    cell: str, *, before: Sequence[str] = (), stacks: str = "all", height_pixels: int = 900
) -> InlineReport:
    """Run a cell in a recorded process and answer its report.

    Args:
        cell: Python source.
        before: Cells that run first; what they print is not shown.
        stacks: As of ``heapsmith record``.
        height_pixels: Of the frame.

    Raises:
        HeapsmithError: The cell could not be recorded.
    """
    from heapsmith.show.report_page import render_report_page
    from heapsmith.show.report_text import render_report
    from heapsmith.show.terminal import encode_text
    from heapsmith.symbols import FrameNames
    from heapsmith.trace import open_trace
    from heapsmith.trace.caches import CacheRules, read_rules
    from heapsmith.trace.report import build_report
    from heapsmith.wire.classes import CLASS_BYTES

    with tempfile.TemporaryDirectory(prefix="heapsmith-") as folder:
        source = Path(folder, "cell.py")
        source.write_text(cell)
        earlier = Path(folder, "before.py")
        earlier.write_text("\n\n".join(before))
        script = Path(folder, "run.py")
        script.write_text(_SCRIPT.format(before=str(earlier), cell=str(source)))
        trace = Path(folder, "cell.heap")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "heapsmith", "record", "-o", str(trace), "--stacks", stacks, "--"),
                *(sys.executable, str(script)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        sys.stdout.write(done.stdout)
        if done.returncode:
            sys.stderr.write(done.stderr)
        if not trace.exists():
            raise HeapsmithError(
                "the cell could not be recorded", done.stderr.strip() or f"exit {done.returncode}"
            )
        report = build_report(
            [open_trace(trace)], FrameNames(), CacheRules(read_rules()), class_bytes=CLASS_BYTES
        )
        page = render_report_page(report, title="notebook cell")
        text = encode_text(render_report(report)).decode()
    return InlineReport(page, text, _NOTE, height_pixels)


_SCRIPT: Final = """import contextlib, io
names = {{"__name__": "__main__"}}
with contextlib.redirect_stdout(io.StringIO()):
    exec(compile(open({before!r}).read(), "<cells before>", "exec"), names)
exec(compile(open({cell!r}).read(), "<cell>", "exec"), names)
"""


def _magic(shell: Any) -> Any:
    def heap(line: str, cell: str | None = None) -> InlineReport | None:
        words = shlex.split(line)
        options: dict[str, Any] = {}
        before: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--after-cells":
                raw: list[str] = list(shell.user_ns.get("In", []))
                before = [
                    text
                    for text in raw[:-1]
                    if text and not text.lstrip().startswith(("%", "!", "get_ipython"))
                ]
            elif word == "--stacks" and words:
                options["stacks"] = words.pop(0)
            elif word == "--height" and words and words[0].isdigit():
                options["height_pixels"] = int(words.pop(0))
            else:
                sys.stderr.write(f"heapsmith: {word!r} is not understood: {_USAGE}\n")
                return None
        try:
            return record_cell(cell or "", before=before, **options)
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

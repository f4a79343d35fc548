"""A script on the native library, on the model, or on both and compared."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heapsmith.errors import HeapsmithError
from heapsmith.osmem.blocks import Layout
from heapsmith.osmem.checker import find_offences
from heapsmith.osmem.driver import NativeRun, calls_of, run_native
from heapsmith.osmem.libraries import built_library, require_layout
from heapsmith.osmem.model import Model
from heapsmith.osmem.script import Played, Script, play
from heapsmith.osmem.trace_text import format_trace

On = Literal["native", "model", "both"]


@dataclass(frozen=True, slots=True)
class Tracing:
    """What a script did.

    Attributes:
        script: The script.
        layout: The header layout.
        played: Every line, on the model.
        native: What the library did; None if only the model was asked.
        model_lines: The model's trace; None if only the library was asked.
        native_lines: The library's trace; None if only the model was asked.
        offences: What is wrong with the library's run, traces apart.
    """

    script: Script
    layout: Layout
    played: tuple[Played, ...]
    native: NativeRun | None
    model_lines: tuple[str, ...] | None
    native_lines: tuple[str, ...] | None
    offences: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Whether nothing that was compared differs."""
        both = self.model_lines is not None and self.native_lines is not None
        return not self.offences and not (both and self.model_lines != self.native_lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """The trace to show: the library's if it ran."""
        return self.native_lines or self.model_lines or ()

    def diff(self) -> list[str]:
        """Return the unified diff from the model's trace to the library's."""
        return list(
            difflib.unified_diff(
                self.model_lines or (), self.native_lines or (), "model", "native", lineterm=""
            )
        )


def read_script_text(path: str, standard_input: str | None = None) -> str:
    """Read a script from a file, or take what standard input said when the path is ``-``.

    Raises:
        HeapsmithError: The file cannot be read, or is no text.
    """
    if path == "-" and standard_input is not None:
        return standard_input
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise HeapsmithError(
            f"cannot read {path}", error.strerror or str(error), "name a script file, or -"
        ) from None
    except UnicodeDecodeError:
        raise HeapsmithError(f"cannot read {path}", "it is not text", "name a script file, or -") from None


def trace_script(
    script: Script, layout: Layout = "v1", on: On = "both", library_path: Path | None = None
) -> Tracing:
    """Run a script.

    Args:
        script: What to do. The model always plays it first: it finds the mistakes that would corrupt a
            native heap.
        layout: The header layout.
        on: Whose trace is wanted.
        library_path: The library; the one that came with heapsmith when left out.

    Raises:
        ScriptError: The script frees twice, or uses a pointer that is none.
        CheckError: The library cannot be used, or has the other layout.

    Example:
        >>> from heapsmith.osmem.script import parse_script
        >>> trace_script(parse_script("p = malloc 0"), on="model").lines[-1]
        '+++ exited (status 0) +++'
    """
    played = tuple(play(script, Model(layout)))
    model_lines = tuple(format_trace([one.step for one in played])) if on != "native" else None
    if on == "model":
        return Tracing(script, layout, played, None, model_lines, None, ())
    if library_path is not None:
        require_layout(library_path, layout)
    run = run_native(library_path or built_library(layout), calls_of(played), time_limit_s=30.0)
    native_lines = tuple(format_trace(run.steps, heap_start=run.heap_start, return_code=run.return_code))
    return Tracing(
        script, layout, played, run, model_lines, native_lines, tuple(find_offences(script, played, run))
    )

"""Results on standard output: rich text for people, one JSON document for programs."""

from __future__ import annotations

import shutil
import sys
from typing import Any, Final

import msgspec
from rich.console import Console, RenderableType

_WIDTH_WITHOUT_TERMINAL: Final = 150


def print_text(view: RenderableType) -> None:
    """Print a view; where nobody's window sets the width (a pipe, a log), lines get enough of it."""
    width = shutil.get_terminal_size((_WIDTH_WITHOUT_TERMINAL, 50)).columns if sys.stdout.isatty() else None
    Console(width=width or _WIDTH_WITHOUT_TERMINAL, highlight=False).print(view)


def print_json(document: Any) -> None:
    """Print one JSON document and nothing else."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")

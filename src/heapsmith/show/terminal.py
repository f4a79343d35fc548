"""Results on standard output: rich text for people, one JSON document for programs."""

from __future__ import annotations

import io
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


def encode_text(view: RenderableType) -> bytes:
    """Write a view as plain text."""
    console = Console(width=_WIDTH_WITHOUT_TERMINAL, highlight=False, file=io.StringIO(), no_color=True)
    with console.capture() as capture:
        console.print(view)
    return capture.get().encode()


def encode_json(document: Any) -> bytes:
    """Write one JSON document, for people to read as well."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def print_json(document: Any) -> None:
    """Print one JSON document and nothing else."""
    sys.stdout.write(encode_json(document).decode())

"""Results on standard output: rich text for people, one JSON document for programs."""

from __future__ import annotations

import io
import shutil
import sys
from typing import Any, Final, cast

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

_WIDTH_WITHOUT_TERMINAL: Final = 150


class Verbatim:
    """Lines to paste: they stay whole, however narrow the terminal is.

    Args:
        text: The lines.
        style: How they look.
    """

    def __init__(self, text: str, style: str = "") -> None:
        self._lines, self._style = text.splitlines(), style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            yield Segment(line, console.get_style(self._style))
            yield Segment.line()


def print_text(view: RenderableType) -> None:
    """Print a view; where nobody's window sets the width (a pipe, a log), lines get enough of it."""
    width = shutil.get_terminal_size((_WIDTH_WITHOUT_TERMINAL, 50)).columns if sys.stdout.isatty() else None
    Console(width=width or _WIDTH_WITHOUT_TERMINAL, highlight=False).print(view, crop=False)


def encode_text(view: RenderableType) -> bytes:
    """Write a view as plain text."""
    console = Console(width=_WIDTH_WITHOUT_TERMINAL, highlight=False, file=io.StringIO(), no_color=True)
    with console.capture() as capture:
        console.print(view)
    return capture.get().encode()


def encode_json(document: Any) -> bytes:
    r"""Write one JSON document, for people to read as well.

    Example:
        >>> encode_json(["plain", "no UTF-8: \udcff"]).decode().split()
        ['[', '"plain",', '"no', 'UTF-8:', '�"', ']']
    """
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_without_bare_bytes(msgspec.to_builtins(document)))
    return msgspec.json.format(encoded, indent=2) + b"\n"


def _without_bare_bytes(value: Any) -> Any:
    """Put the replacement sign for each byte of a name or argument that was no text."""
    match value:
        case str():
            return value.encode(errors="surrogateescape").decode(errors="replace")
        case list():
            return [_without_bare_bytes(item) for item in cast("list[Any]", value)]
        case dict():
            items = cast("dict[str, Any]", value).items()
            return {_without_bare_bytes(key): _without_bare_bytes(item) for key, item in items}
        case _:
            return value


def print_json(document: Any) -> None:
    """Print one JSON document and nothing else."""
    sys.stdout.write(encode_json(document).decode())

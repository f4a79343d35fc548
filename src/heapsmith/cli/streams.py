"""The three standard streams as verbs may rely on them: always there, and able to say everything somehow."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Final

_NOWHERE: Final = Path(os.devnull)
_PLAINLY: Final = "heapsmith.plainly"
_ASCII: Final = {
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "→": "->",
    "×": "x",
    "·": "-",
    "–": "-",
    "…": "...",
    "✓": "+",
    "✗": "x",
    "─": "-",
    "│": "|",
    "├": "|",
    "└": "`",
    "█": "#",
    "▉": "#",
    "▊": "#",
    "▋": "#",
    "▌": "#",
    "▍": " ",
    "▎": " ",
    "▏": " ",
    "µ": "u",
}
"""What a terminal that knows only ASCII gets instead of the signs that views use; of anything else, a question mark."""


def prepare_streams() -> None:
    """Open what the caller has closed, and let no sign of ours or byte of a file name end in an error.

    Example:
        >>> prepare_streams()
    """
    sys.stdout = sys.stdout or _NOWHERE.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or _NOWHERE.open("w", encoding="utf-8")
    codecs.register_error(_PLAINLY, _say_plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAINLY)


def _say_plainly(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return b"".join(_say_sign(sign, error.encoding) for sign in signs), error.end


def _say_sign(sign: str, encoding: str) -> bytes:
    is_bare_byte = "\udc80" <= sign <= "\udcff"
    for instead in ("\N{REPLACEMENT CHARACTER}" if is_bare_byte else _ASCII.get(sign, "?"), "?"):
        with contextlib.suppress(UnicodeEncodeError):
            return instead.encode(encoding)
    return b"?"

"""Files that people asked for: written whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from heapsmith.errors import HeapsmithError


def write_output(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; a pipe or device is written to as it is.

    What was there before stays until the new content is complete, whatever happens (a full disk, for one).

    Args:
        path: The file.
        content: All of it; text is encoded as UTF-8, names in it that are no text as the bytes that they were.

    Raises:
        HeapsmithError: It cannot be written.
    """
    data = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    # /dev/stdout may be a regular file, and whoever opened it would keep the old one.
    in_place = path.is_relative_to("/dev") or (path.exists() and not path.is_file())
    whole = path if in_place else path.resolve()
    part = whole if in_place else whole.with_name(f"{whole.name}.part")
    try:
        part.write_bytes(data)
        if not in_place:
            if whole.exists():
                shutil.copymode(whole, part)
            part.replace(whole)
    except OSError as error:
        if not in_place:
            part.unlink(missing_ok=True)
        raise HeapsmithError(f"cannot write {path}", error.strerror or str(error)) from None

"""Which traces a person means by a file, a folder or a pattern."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from heapsmith.errors import TraceError

SUFFIX: Final = ".heap"


def split_inputs(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell traces and Parquet tables apart.

    Args:
        names: As a person gave them; a folder may hold both.

    Returns:
        Names for `find_traces`, and names for `heapsmith.trace.from_parquet.find_tables`.

    Example:
        >>> split_inputs(["a.heap", "b.parquet", "s3://bucket/fleet/"])
        (['a.heap'], ['b.parquet', 's3://bucket/fleet/'])
    """
    traces: list[str] = []
    tables: list[str] = []
    for name in names:
        if "://" in name or name.endswith(".parquet"):
            tables.append(name)
            continue
        has_tables = Path(name).is_dir() and any(Path(name).glob("*.processes.parquet"))
        if has_tables:
            tables.append(f"{name.rstrip('/')}/")
        if not has_tables or any(Path(name).glob(f"*{SUFFIX}")):
            traces.append(name)
    return traces, tables


def find_traces(names: Sequence[str]) -> list[Path]:
    """Find the trace files of names: files, folders (all ``*.heap`` in them) and patterns.

    Args:
        names: As a person gave them.

    Raises:
        TraceError: A name stands for nothing.

    Example:
        >>> find_traces(["no-such-file.heap"])
        Traceback (most recent call last):
        ...
        heapsmith.errors.TraceError: cannot open no-such-file.heap: No such file or directory (check the path)
    """
    if not names:
        raise TraceError(
            "there is no trace to read", hint="`heapsmith record -o FILE.heap -- COMMAND` makes one"
        )
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if not name:
            raise TraceError("a trace's name is empty", hint="check the variable that it came from")
        if path.is_dir():
            inside = sorted(found for found in path.glob(f"*{SUFFIX}") if not found.is_dir())
            if not inside:
                raise TraceError(
                    f"{name} holds no traces", f"no file in it ends in {SUFFIX}", "check the folder"
                )
            found += inside
        elif path.exists():
            found.append(path)
        elif any(sign in name for sign in "*?["):
            matched = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 (the pattern may be absolute)
            if not matched:
                raise TraceError(f"nothing matches {name}", hint="check the pattern")
            found += matched
        else:
            raise TraceError(f"cannot open {name}", "No such file or directory", "check the path")
    return list(dict.fromkeys(found))

"""What a view shows, as a file: the size classes and the curves as CSV or Parquet, everything as JSON."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from heapsmith.errors import HeapsmithError
from heapsmith.run.history import COUNTERS, GAUGES, Curve
from heapsmith.run.values import Process, SizeClass, Thread
from heapsmith.show.labels import TOTAL, thread_label

VIEW_SCHEMA: Final = "heapsmith.view/1"
KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "table.csv": "text/csv",
        "table.parquet": "application/vnd.apache.parquet",
        "curve.csv": "text/csv",
        "curve.parquet": "application/vnd.apache.parquet",
        "all.json": "application/json",
    }
)
"""What can be saved, and its media type."""


class Shown(NamedTuple):
    """What a person looks at.

    Args:
        process: With differences instead of values where a baseline is set.
        thread: The chosen thread; None is the total.
        curve: The polls of the process.
        since_s: When the baseline was taken, in seconds since the process started; None without one.
    """

    process: Process
    thread: Thread | None
    curve: Curve
    since_s: float | None

    @property
    def rows(self) -> list[SizeClass]:
        """The size classes of the chosen thread or of all, those with nothing left out."""
        return shown_rows(self.process.size_classes if self.thread is None else self.thread.size_classes)


def shown_rows(rows: list[SizeClass]) -> list[SizeClass]:
    """Leave out the size classes in which nothing ever was."""
    return [row for row in rows if row.allocations or row.frees or row.live_blocks or row.live_bytes]


def file_name(shown: Shown, kind: str) -> str:
    """Name the file of one of `KINDS`, safe on every file system."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", shown.process.name).strip("-.") or "process"
    return f"heapsmith-{name}-{shown.process.pid}-{kind}"


def render_file(shown: Shown, kind: str) -> bytes:
    """Make the bytes of a file.

    Raises:
        HeapsmithError: ``kind`` is none of `KINDS`.
    """
    if kind not in KINDS:
        raise HeapsmithError(f"cannot save {kind!r}", hint=f"choose from {', '.join(KINDS)}")
    if kind == "all.json":
        return _render_json(shown)
    frame = table_frame(shown) if kind.startswith("table") else curve_frame(shown.curve)
    out = io.BytesIO()
    if kind.endswith("parquet"):
        frame.write_parquet(out)
    else:
        frame.write_csv(out)
    return out.getvalue()


def write_file(shown: Shown, kind: str, folder: Path) -> Path:
    """Write a file that was not there before.

    Returns:
        Where it is.

    Raises:
        HeapsmithError: It cannot be written.
    """
    content = render_file(shown, kind)
    wanted = folder / file_name(shown, kind)
    for number in range(1, 1000):
        path = wanted if number == 1 else wanted.with_stem(f"{wanted.stem}-{number}")
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            continue
        except OSError as error:
            raise HeapsmithError(f"cannot write {path}", error.strerror or str(error)) from error
        return path
    raise HeapsmithError(f"cannot write {wanted}", "a thousand files of that name are there already")


def table_frame(shown: Shown) -> pl.DataFrame:
    """The table: one row for each size class, with the thread it belongs to."""
    thread = TOTAL if shown.thread is None else thread_label(shown.thread)
    tid = None if shown.thread is None else shown.thread.tid
    fields = SizeClass.__struct_fields__
    return pl.DataFrame(
        [[thread, tid, *(getattr(row, name) for name in fields)] for row in shown.rows],
        schema={"thread": pl.String, "tid": pl.Int64, **dict.fromkeys(fields, pl.Int64)},
        orient="row",
    )


def curve_frame(curve: Curve) -> pl.DataFrame:
    """The curves: one row for each poll, or for the polls that were merged into one."""
    columns = {"time_s": curve.times_s, **{name: curve.column(name) for name in (*GAUGES, *COUNTERS)}}
    frame = pl.DataFrame(columns).fill_nan(None)
    return frame.with_columns(pl.col(*GAUGES, *COUNTERS).cast(pl.Int64))


def _render_json(shown: Shown) -> bytes:
    curve = {name: values.to_list() for name, values in zip(*_columns(shown.curve), strict=True)}
    document = {
        "schema": VIEW_SCHEMA,
        "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "counted_since_s": shown.since_s,
        "thread": TOTAL if shown.thread is None else thread_label(shown.thread),
        "size_classes": shown.rows,
        "process": shown.process,
        "curve": curve,
        "curve_class_bytes": shown.curve.class_bytes,
        "curve_class_live_bytes": np.asarray(shown.curve.class_live_bytes, np.int64).tolist(),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _columns(curve: Curve) -> tuple[list[str], list[pl.Series]]:
    frame = curve_frame(curve)
    return frame.columns, frame.get_columns()

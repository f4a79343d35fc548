"""What recording costs, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from heapsmith.lab.record_cost import RecordCase
from heapsmith.lab.statistics import Spread
from heapsmith.units import format_bytes


def render_record_case(case: RecordCase) -> str:
    """Render one line for one case."""
    return f"{case.program}: {case.way}: processor time x{case.processor_ratio.median:.2f}"


def render_record_cost(cases: Sequence[RecordCase]) -> Table:
    """Render all cases: ratios to the unrecorded program, medians with their 95 % intervals."""
    table = Table(title="Recording: ratios to the unrecorded program")
    table.add_column("program")
    table.add_column("way")
    for name in ("processor time", "wall clock", "resident peak", "file"):
        table.add_column(name, justify="right")
    for case in cases:
        size = "" if case.file_bytes is None else format_bytes(case.file_bytes)
        if case.file_bytes is not None and case.events:
            size += f" ({case.file_bytes / case.events:.2f} bytes an event)"
        table.add_row(
            case.program,
            case.way,
            _ratio(case.processor_ratio),
            _ratio(case.wall_ratio),
            _ratio(case.resident_ratio),
            size,
        )
    return table


def _ratio(spread: Spread) -> str:
    if spread.low is None or spread.high is None:  # too few runs for an interval
        return f"{spread.median:.2f}"
    return f"{spread.median:.2f} [{spread.low:.2f}, {spread.high:.2f}]"

"""What a recording came to, in a line."""

from __future__ import annotations

import shlex
from pathlib import Path

from heapsmith.run.record import RecordResult
from heapsmith.units import format_bytes, format_seconds


def render_record_summary(result: RecordResult, output: Path) -> str:
    """Render the line that ends a recording."""
    if not result.processes:
        return "nothing was recorded: the program took no library in, or has too little address space (ulimit -v)"
    parts = [
        f"{_count(result.events, 'event', 's')} of {_count(result.processes, 'process', 'es')} in "
        f"{format_bytes(result.file_bytes)}"
    ]
    if result.events:
        parts[0] += f" ({result.file_bytes / result.events:.2f} bytes each)"
    if result.dropped_events:
        parts.append(f"{result.dropped_events:,} DROPPED")
    if result.waited_s >= 0.1:
        parts.append(f"threads waited {format_seconds(result.waited_s)} for the recorder")
    parts.append(f"next: heapsmith report {shlex.quote(str(output))}")
    return "; ".join(parts)


def _count(number: int, noun: str, several: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else several}"

"""What things are called for a person, once for every view: ends, size classes, threads, processes."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

from heapsmith.run.values import Exit, Process, SpanClass, Thread
from heapsmith.units import format_bytes, format_count

TOTAL: Final = "Total"
NO_VALUE: Final = "–"
"""A value that cannot exist here, as against ``?`` for one that is not known."""
_ROUND_BYTES: Final = 512
_OVERHEAD_BYTES: Final = 8
EVENT_LABELS: Final = {
    "warning": "warning threshold crossed",
    "refused": "refused: over the limit",
    "out_of_memory": "refused by the allocator",
    "limit_changed": "limit changed",
}


def signal_name(number: int) -> str:
    """Name a signal as people write it.

    Example:
        >>> signal_name(9), signal_name(35)
        ('SIGKILL', 'signal 35')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_label(ended: Exit | None) -> str:
    """Say how a process ended, or that it runs.

    Example:
        >>> exit_label(None), exit_label(Exit(code=3, signal=None, oom_killed=False))
        ('running', 'exited with 3')
        >>> exit_label(Exit(code=None, signal=11, oom_killed=False))
        'killed by SIGSEGV'
        >>> exit_label(Exit(code=None, signal=9, oom_killed=True))
        'killed by the kernel: out of memory'
    """
    if ended is None:
        return "running"
    if ended.oom_killed:
        return "killed by the kernel: out of memory"
    if ended.signal is not None:
        return f"killed by {signal_name(ended.signal)}"
    if was_replaced(ended):
        return "became another program"
    return "ended" if ended.code is None else f"exited with {ended.code}"


def was_replaced(ended: Exit | None) -> bool:
    """Whether this program ended because the process executed another one.

    Example:
        >>> was_replaced(Exit(code=None, signal=None, oom_killed=False))
        True
    """
    return ended is not None and ended.code is None and ended.signal is None and ended.oom_killed is False


def exit_is_bad(ended: Exit | None) -> bool:
    """Whether a person should look: a signal, the kernel, or a code other than 0."""
    return ended is not None and (bool(ended.oom_killed) or ended.signal is not None or bool(ended.code))


def span_label(row: SpanClass) -> str:
    """Name the spans of a row of the table of spans.

    Example:
        >>> span_label(SpanClass("blocks", 48, 1, 16384, 3, [0] * 10))
        '48 B'
    """
    if row.class_bytes is not None:
        return format_bytes(row.class_bytes)
    return {"large": "large blocks", "dirty": "free, warm", "purged": "free, given back"}[row.kind]


def class_label(class_bytes: int | None, all_classes: Sequence[int | None] = ()) -> str:
    """Name a size class by the largest usable bytes of its blocks.

    Args:
        class_bytes: Upper bound of the class; ``None`` for the open one.
        all_classes: Every class of the table, so that the open one can say where it begins.

    Example:
        >>> class_label(24), class_label(1544), class_label((1 << 17) + 8)
        ('≤ 24 B', '≤ 1.5 KiB', '≤ 128 KiB')
        >>> class_label(None, [24, (1 << 39) + 8, None])
        '> 512 GiB'
    """
    if class_bytes is None:
        bounded = [value for value in all_classes if value is not None]
        return f"> {_class_size(max(bounded))}" if bounded else "larger"
    return f"≤ {_class_size(class_bytes)}"


def _class_size(class_bytes: int) -> str:
    # Above 1 KiB a class ends 8 bytes past a round number, as glibc's sizes do: the round one reads better.
    rounded = class_bytes - _OVERHEAD_BYTES
    if rounded < 2 * _ROUND_BYTES or rounded % _ROUND_BYTES:
        return format_bytes(class_bytes) if class_bytes >= 4 * _ROUND_BYTES else f"{class_bytes} B"
    number, unit = format_bytes(rounded).split()
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def thread_label(thread: Thread) -> str:
    """Name a thread: its name and kernel id, or that this row holds all that have ended.

    Example:
        >>> thread_label(Thread(42, "worker-1", True, 1, 0, 0, 1, 24, []))
        'worker-1 · 42'
    """
    if thread.tid is None:
        return thread.name or "ended threads"
    return f"{thread.name or 'thread'} · {thread.tid}"


def process_label(process: Process) -> str:
    """Name a process: its name and pid, and which of its programs this was where another followed."""
    again = f" · program {process.image}" if was_replaced(process.exit) else ""
    return f"{process.name} · {process.pid}{again}"


def signed_bytes(value: int | float | None) -> str:
    """Write a difference of bytes with its sign.

    Example:
        >>> signed_bytes(1536), signed_bytes(-17), signed_bytes(0)
        ('+1.50 KiB', '-17 B', '0 B')
    """
    return f"+{format_bytes(value)}" if value and value > 0 else format_bytes(value)


def signed_count(value: int | None) -> str:
    """Write a difference of counts with its sign.

    Example:
        >>> signed_count(1200), signed_count(-3)
        ('+1,200', '-3')
    """
    return f"+{format_count(value)}" if value and value > 0 else format_count(value)


def percent(ratio: float | None) -> str:
    """Write a ratio as per cent.

    Example:
        >>> percent(0.9876), percent(1.0), percent(None)
        ('98.8 %', '100 %', '?')
    """
    if ratio is None:
        return format_count(None)
    return "100 %" if ratio == 1 else f"{100 * ratio:.1f} %"

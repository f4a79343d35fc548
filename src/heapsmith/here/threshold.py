"""Thresholds on this process's live bytes: told on a Python thread, never inside malloc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import msgspec

from heapsmith.errors import HeapsmithError
from heapsmith.here import calls
from heapsmith.here.report import mallinfo
from heapsmith.units import parse_bytes

_HYSTERESIS: Final = 0.05
_WAIT_NS: Final = 500_000_000
_SAMPLE_S: Final = 0.1


class Crossing(msgspec.Struct, frozen=True):
    """Live bytes have risen above a threshold.

    Args:
        threshold_bytes: The threshold.
        live_bytes: When it was crossed last.
        count: How often since the last call; more than 1 when crossings come faster than they are told.
        time_ns: CLOCK_MONOTONIC.
        sampled: True where the process is not watched and was only looked at ten times a second.
    """

    threshold_bytes: int
    live_bytes: int
    count: int
    time_ns: int
    sampled: bool


class Threshold:
    """A threshold being watched, until `cancel`, or to the end of its ``with`` statement.

    Args:
        threshold_bytes: Of live bytes.
        hysteresis_bytes: How far live bytes must fall below it before the next crossing counts.
        callback: Called with each `Crossing`. What it raises goes to `threading.excepthook`, and watching goes on.
    """

    def __init__(
        self, threshold_bytes: int, hysteresis_bytes: int, callback: Callable[[Crossing], object]
    ) -> None:
        self.threshold_bytes = threshold_bytes
        self.hysteresis_bytes = hysteresis_bytes
        self._callback = callback
        self._cancelled = threading.Event()
        self._watch: int | None = None
        self._start()
        _thresholds.add(self)

    @property
    def sampled(self) -> bool:
        """Whether live bytes are only looked at now and then, because the process is not watched."""
        return self._watch is None

    def cancel(self) -> None:
        """Stop watching; a call that has begun is not interrupted."""
        _thresholds.discard(self)
        self._cancelled.set()
        if self._watch is not None:
            calls.answering_library().hs_watch_end(self._watch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def restart_in_child(self) -> None:
        """A forked child has neither the native watch nor the thread."""
        if not self._cancelled.is_set():
            self._start()

    def _start(self) -> None:
        watch = ctypes.c_uint32()
        result = calls.answering_library().hs_watch(
            self.threshold_bytes, self.hysteresis_bytes, None, None, ctypes.byref(watch)
        )
        if result == calls.OUT_OF_MEMORY:
            raise HeapsmithError(
                "the threshold cannot be watched", "32 of them are watched already", "cancel some"
            )
        self._watch = watch.value if result == calls.OK else None
        target = self._sample if self._watch is None else self._deliver
        threading.Thread(target=target, name="heapsmith-threshold", daemon=True).start()

    def _deliver(self) -> None:
        native = calls.NativeCrossing()
        while not self._cancelled.is_set():
            result = calls.answering_library().hs_watch_wait(self._watch, _WAIT_NS, ctypes.byref(native))
            if result == calls.INVALID_PARAMETER:
                return
            if result == calls.OK:
                self._tell(native.current_bytes, native.count, native.time_ns, sampled=False)

    def _sample(self) -> None:
        above = False
        while not self._cancelled.wait(_SAMPLE_S):
            live_bytes = mallinfo().live_bytes or 0
            if not above and live_bytes > self.threshold_bytes:
                above = True
                self._tell(live_bytes, 1, time.monotonic_ns(), sampled=True)
            elif above and live_bytes <= self.threshold_bytes - self.hysteresis_bytes:
                above = False

    def _tell(self, live_bytes: int, count: int, time_ns: int, *, sampled: bool) -> None:
        try:
            self._callback(Crossing(self.threshold_bytes, live_bytes, count, time_ns, sampled))
        except Exception as error:  # noqa: BLE001 (of the caller's function, told where Python tells such things)
            thread = threading.current_thread()
            threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread)))


_thresholds: Final = weakref.WeakSet[Threshold]()


def _restart_in_child() -> None:
    for threshold in list(_thresholds):
        with contextlib.suppress(HeapsmithError, RuntimeError):
            threshold.restart_in_child()


os.register_at_fork(after_in_child=_restart_in_child)


def watch_threshold(
    threshold: float | str,
    callback: Callable[[Crossing], object],
    *,
    hysteresis: float | str = _HYSTERESIS,
) -> Threshold:
    """Call a function each time live bytes rise above a threshold.

    Args:
        threshold: Bytes (``1_000_000_000``, ``"900MiB"``), or a fraction of the limit (a float up to 1.0).
        callback: Called on a thread of its own, with the GIL and outside of malloc; it may allocate.
        hysteresis: Bytes, or a fraction of the threshold, that live bytes must fall below it before it counts again.

    Returns:
        The threshold being watched; also in forked children.

    Raises:
        HeapsmithError: The threshold is not positive, or is a fraction and there is no limit.

    Example:
        >>> with watch_threshold("1TiB", print) as threshold:
        ...     threshold.threshold_bytes
        1099511627776
    """
    if not callable(callback):
        raise HeapsmithError("the callback cannot be called", f"it is {callback!r}")
    threshold_bytes = _read(threshold, "threshold", None)
    return Threshold(threshold_bytes, _read(hysteresis, "hysteresis", threshold_bytes), callback)


def _read(value: float | str, name: str, whole: int | None) -> int:
    if isinstance(value, str):
        value = parse_bytes(value)
    if isinstance(value, float) and 0 < value <= 1:
        if whole is None:
            whole = mallinfo().limit_bytes
        if whole is None:
            raise HeapsmithError(
                f"{name} {value} is a share of a limit, and there is none", hint="give bytes"
            )
        return max(1, int(value * whole))
    if isinstance(value, bool) or value < 0 or (value == 0 and whole is None):
        raise HeapsmithError(f"a {name} of {value} is none", hint="give bytes, or a fraction up to 1.0")
    return int(value)

"""The peak of a piece of a program: scopes that nest and overlap."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Self

from heapsmith.errors import HeapsmithError
from heapsmith.here import calls


class Peak:
    """The high-water mark of live bytes since it was made; reading it does not end it."""

    def __init__(self) -> None:
        self._scope = calls.PeakScope()
        self._ended: tuple[int, int] | None = None
        result = calls.answering_library().hs_peak_reset(ctypes.byref(self._scope))
        if result == calls.UNSUPPORTED:
            raise HeapsmithError(
                "no peak can be told",
                "this process is not watched, and no allocator counts the peak of what is allocated",
                "start it with `heapsmith run -- COMMAND`",
            )
        if result != calls.OK:
            raise HeapsmithError("no peak can be told", "64 of them are open already", "end some")

    @property
    def live_bytes_peak(self) -> int:
        """The highest live bytes since the scope began."""
        return self._read("hs_peak_read")[0]

    @property
    def error_bound_bytes(self) -> int:
        """By how much the true peak may have been higher; 0 while one thread allocates."""
        return self._read("hs_peak_read")[1]

    def end(self) -> int:
        """End the scope and answer its peak; the values stay readable."""
        if self._ended is None:
            self._ended = self._read("hs_peak_end")
        return self._ended[0]

    def _read(self, call: str) -> tuple[int, int]:
        if self._ended is not None:
            return self._ended
        peak_bytes, bound_bytes = ctypes.c_uint64(), ctypes.c_uint64()
        function = getattr(calls.answering_library(), call)
        function(ctypes.byref(self._scope), ctypes.byref(peak_bytes), ctypes.byref(bound_bytes))
        return peak_bytes.value, bound_bytes.value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


def peak() -> Peak:
    """Begin to measure the peak of live bytes from here on.

    Returns:
        The scope; ``.live_bytes_peak`` at any time, and it ends with its ``with`` statement or ``.end()``. Scopes nest:
        an inner one does not lower the peak of an outer one.

    Raises:
        HeapsmithError: The process is not watched.

    Example:
        Under ``heapsmith run``::

            with heapsmith.peak() as peak:
                load()
            print(peak.live_bytes_peak)
    """
    return Peak()

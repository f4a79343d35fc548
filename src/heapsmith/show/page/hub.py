"""One reader for all browsers: polls the processes, keeps their history, wakes the browsers that are due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from heapsmith.errors import HeapsmithError
from heapsmith.run.history import FASTEST_S, History, ProcessSource

_EARLY: Final = 0.8
"""A browser is due when this share of its interval has passed, so that two clocks do not beat."""


class Browser(Protocol):
    """What the hub must know of a browser."""

    interval_s: float

    def wake(self) -> None:
        """Show the latest poll, soon and without blocking."""
        ...


class Hub:
    """Polls as often as the fastest browser wants, or at the default interval while nobody looks.

    Args:
        source: Where processes come from.
        interval_s: The default interval.
        clock: For tests.
    """

    def __init__(
        self, source: ProcessSource, interval_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.source = source
        self.interval_s = interval_s
        self.history = History()
        self.problem = ""
        self._clock = clock
        self._woken_at: dict[Browser, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Poll now and from now on, in this event loop."""
        self._loop = loop
        self._tick()

    def stop(self) -> None:
        """Poll no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = self._timer = None

    def add(self, browser: Browser) -> None:
        """Wake a browser from now on, at its interval."""
        self._woken_at[browser] = self._clock()
        self.hurry()

    def remove(self, browser: Browser) -> None:
        """Forget a browser that has gone."""
        self._woken_at.pop(browser, None)

    def hurry(self) -> None:
        """Take a changed interval into account at once."""
        if self._loop is not None and self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(min(self._period_s(), FASTEST_S), self._tick)

    def poll(self) -> None:
        """Read all processes once; a failure to read is shown as a problem, and tried again."""
        try:
            self.history.add(self.source.poll())
            self.problem = ""
        except (OSError, HeapsmithError) as error:
            self.problem = f"The processes cannot be read: {error}"

    def _period_s(self) -> float:
        return min([self.interval_s, *(browser.interval_s for browser in self._woken_at)])

    def _tick(self) -> None:
        if self._loop is None:
            return
        self._timer = self._loop.call_later(self._period_s(), self._tick)
        self.poll()
        now = self._clock()
        for browser, woken_at in list(self._woken_at.items()):
            if now - woken_at >= _EARLY * browser.interval_s:
                self._woken_at[browser] = now
                browser.wake()

"""Progress of long measurements, on standard error: what runs now, how far it is, how long it will take."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from heapsmith.lab.trials import Outcome
from heapsmith.units import format_seconds

_QUIET_INTERVAL_S: Final = 15.0


class TrialsProgress:
    """A bar in a terminal; elsewhere a line every 15 seconds, so none when it is over sooner.

    Args:
        total: What 100 % is: trials, or seconds of a budget.
        what: What is being done.
        seconds_each: What one unit of ``total`` is expected to take; learned as it goes.
    """

    def __init__(self, total: float, what: str, seconds_each: float) -> None:
        self._total = total
        self._what = what
        self._done = 0.0
        self._seconds_each = seconds_each
        self._began = self._said = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[left]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(what, total=total, left=self._left())

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, total: float, what: str, seconds_each: float) -> None:
        """Begin something else: nothing of it is done yet.

        Args:
            total: What 100 % of it is.
            what: What is being done.
            seconds_each: What one unit is expected to take.
        """
        self._total, self._done, self._seconds_each = total, 0.0, seconds_each
        self._began = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=0, total=total)
        self.say(what)

    def say(self, what: str) -> None:
        """Show what is being done now."""
        self._what = what
        if self._bar is not None:
            self._bar.update(self._task, description=what, left=self._left())

    def count(self, outcome: Outcome) -> None:
        """Count one more trial."""
        self.advance(self._done + 1)

    def advance(self, done: float, total: float | None = None) -> None:
        """Set how much is done, and (where it turned out to be more or less) out of how much."""
        now = time.monotonic()
        self._done, self._total = done, self._total if total is None else total
        if done > 0:
            self._seconds_each = (now - self._began) / done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self._total, left=self._left())
        elif now - self._said >= _QUIET_INTERVAL_S:
            self._said = now
            share = 100 * done / self._total if self._total else 100
            sys.stderr.write(f"heapsmith: {self._what}: {share:.0f} %, {self._left()}\n")
            sys.stderr.flush()

    def _left(self) -> str:
        return f"{format_seconds(max(0.0, (self._total - self._done) * self._seconds_each))} left"

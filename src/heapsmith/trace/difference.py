"""What grew and what shrank between two recordings, by place and by size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from heapsmith.trace.places import Label
from heapsmith.trace.report import Report, total_time_line

COMPARED: Final = (
    "live_bytes_at_peak",
    "live_bytes_at_exit",
    "allocated_bytes",
    "allocations",
    "temporary_allocations",
)


@dataclass(slots=True)
class Change:
    """One place or size before and after; what is not there counts as 0.

    Attributes:
        name: The place as text, without line: lines move when a file is edited.
        label: Where it is now, or was; None for a size.
        old: Value of each of `COMPARED`.
        new: The same.
        error: Half of the 95 % interval of the difference of what was live at the peak and at the end.
    """

    name: str
    label: Label | None = None
    old: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPARED, 0.0))
    new: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPARED, 0.0))
    error: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPARED, 0.0))

    def by(self, measure: str) -> float:
        """New minus old."""
        return self.new[measure] - self.old[measure]

    def is_noise(self, measure: str) -> bool:
        """Whether the difference is within what sampling alone makes."""
        return abs(self.by(measure)) <= self.error[measure]


@dataclass(slots=True)
class TraceDifference:
    """Two recordings compared."""

    old: Report
    new: Report
    total: Change
    places: list[Change]
    """Those that changed, the largest change of what was live first."""
    sizes: list[Change]
    unchanged_places: int

    @property
    def growth_bytes(self) -> float:
        """The larger of the growth of the peak and of what is still live at the end."""
        return max(self.total.by("live_bytes_at_peak"), self.total.by("live_bytes_at_exit"))


def compare_reports(old: Report, new: Report) -> TraceDifference:
    """Compare two reports.

    Places are matched by function and file. Of several processes the values of a place are added up, each at the peak of
    its process; the total peak is that of all processes together.
    """
    places: dict[str, Change] = {}
    shown: dict[str, tuple[bool, float]] = {}
    sizes: dict[str, Change] = {}
    total = Change("total")
    for report, side in ((old, "old"), (new, "new")):
        whole = getattr(total, side)
        for process in report.processes:
            figures = process.figures
            whole["live_bytes_at_exit"] += figures.live_bytes_at_exit
            whole["allocated_bytes"] += figures.allocated_bytes
            whole["allocations"] += figures.allocations
            whole["temporary_allocations"] += figures.temporary_allocations
            for site in process.sites:
                name = _name(site.label) + (" [mapping]" if site.mapped else "")
                change = places.setdefault(name, Change(name))
                # Of the lines of a place, the one that holds most now is shown.
                rank = side == "new", max(site.live_bytes_at_peak, site.live_bytes_at_exit)
                if rank >= shown.get(name, rank):
                    shown[name], change.label = rank, site.label
                values = getattr(change, side)
                for measure in COMPARED:
                    values[measure] += getattr(site, measure)
                for measure in ("live_bytes_at_peak", "live_bytes_at_exit", "allocated_bytes"):
                    error = getattr(site, f"{measure}_error")
                    change.error[measure] = (change.error[measure] ** 2 + error**2) ** 0.5
                    if not report.totals_exact:
                        total.error[measure] = (total.error[measure] ** 2 + error**2) ** 0.5
            for row in figures.size_classes:
                if not row.allocations:
                    continue
                name = "larger" if row.class_bytes is None else str(row.class_bytes)
                values = getattr(sizes.setdefault(name, Change(name)), side)
                for measure in ("live_bytes_at_peak", "live_bytes_at_exit", "allocated_bytes", "allocations"):
                    values[measure] += getattr(row, measure)
        whole["live_bytes_at_peak"] = _peak(report)
    changed = [change for change in places.values() if any(change.by(measure) for measure in COMPARED)]
    changed.sort(key=_weight, reverse=True)
    by_size = [change for change in sizes.values() if any(change.by(measure) for measure in COMPARED)]
    by_size.sort(key=_weight, reverse=True)
    return TraceDifference(old, new, total, changed, by_size, len(places) - len(changed))


def _weight(change: Change) -> tuple[float, float]:
    live = max(abs(change.by("live_bytes_at_peak")), abs(change.by("live_bytes_at_exit")))
    return live, abs(change.by("allocated_bytes"))


def _name(label: Label) -> str:
    return label.function if label.file is None else f"{label.function} ({label.file.rpartition('/')[2]})"


def _peak(report: Report) -> float:
    """Of all processes of a run together; of several runs the highest."""
    peaks = [0.0]
    for index in range(len(report.paths)):
        processes = [process for process in report.processes if process.trace == index]
        if len(processes) == 1:
            peaks.append(processes[0].figures.live_bytes_peak)
        elif processes:
            together = float(total_time_line(processes)[1].max(initial=0.0))
            peaks.append(max(together, *(process.figures.live_bytes_peak for process in processes)))
    return max(peaks)

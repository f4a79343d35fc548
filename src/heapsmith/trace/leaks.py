"""What was still live at the end, told apart: the program's own, known one-time caches, what a person ignores."""

from __future__ import annotations

from dataclasses import dataclass, field

from heapsmith.trace.report import Report
from heapsmith.trace.sites import Site


@dataclass(slots=True)
class LeftBlocks:
    """What was still live when the recording ended, of all processes.

    Attributes:
        sites: Places that count, by bytes.
        caches: Bytes and blocks of each known cache by name.
        ignored: Bytes and blocks of each of the person's patterns.
        remaining_bytes: What counts; the sum of `sites`.
        error_bytes: Half of its 95 % interval; 0 where all events were recorded.
    """

    sites: list[Site] = field(default_factory=list[Site])
    caches: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    ignored: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    remaining_bytes: float = 0.0
    remaining_blocks: float = 0.0
    error_bytes: float = 0.0


def find_left(report: Report, ignored: list[str]) -> LeftBlocks:
    """Tell apart what was still live at the end; mappings are not blocks, and are left out.

    Args:
        report: Made with rules that know the same patterns.
        ignored: The person's patterns.
    """
    left = LeftBlocks()
    for process in report.processes:
        for site in process.sites:
            if site.mapped or site.live_bytes_at_exit < 0.5:
                continue
            if site.cache is None:
                left.sites.append(site)
                left.remaining_bytes += site.live_bytes_at_exit
                left.remaining_blocks += site.live_blocks_at_exit
                left.error_bytes = (left.error_bytes**2 + site.live_bytes_at_exit_error**2) ** 0.5
                continue
            group = left.ignored if site.cache in ignored else left.caches
            held, blocks = group.get(site.cache, (0.0, 0.0))
            group[site.cache] = held + site.live_bytes_at_exit, blocks + site.live_blocks_at_exit
    left.sites.sort(key=lambda site: -site.live_bytes_at_exit)
    return left

"""What a person should know of a process: its peak, what it left behind, what grew, a spike, a storm, fragmentation.

These are rules of thumb over the figures of places; each names the places it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from heapsmith.trace.places import NO_STACK
from heapsmith.trace.process_figures import Floats, ProcessFigures
from heapsmith.trace.sites import Site
from heapsmith.units import MiB

_TELLING_SHARE: Final = 0.05
_SPIKE_RATIO: Final = 2.0
_SPIKE_BYTES: Final = 4 * MiB
_SPIKE_TIME_SHARE: Final = 0.25
_STORM_SHARE: Final = 0.3
_STORM_PLACE_SHARE: Final = 0.4
_STORM_ALLOCATIONS: Final = 10_000
_RESIDENT_RATIO: Final = 1.5
_RESIDENT_SHARE: Final = 0.4
_RESIDENT_BYTES: Final = 8 * MiB
_SLACK_SHARE: Final = 0.2


@dataclass(slots=True)
class Finding:
    """One thing that a person should know, most important first.

    Attributes:
        kind: ``peak``, ``leak``, ``growth``, ``spike``, ``churn``, ``fragmentation``, ``slack`` or ``clean``.
        process: Index of the process in the report.
        sites: The places it is about, the heaviest first.
        figures: What is said of it, by name.
    """

    kind: str
    process: int
    sites: list[Site]
    figures: dict[str, float]


def find(place: int, figures: ProcessFigures, every_site: Sequence[Site]) -> list[Finding]:
    """Find what a person should know of a process.

    Args:
        place: Its index in the report.
        figures: Of its pass.
        every_site: Its places.
    """
    found: list[Finding] = []
    sites = [site for site in every_site if not site.mapped]
    peak = figures.live_bytes_peak
    if not figures.allocations:
        return [Finding("empty", place, [], {})]
    by_peak = _heaviest(sites, "live_bytes_at_peak", peak)
    found.append(
        Finding(
            "peak",
            place,
            by_peak,
            {
                "bytes": peak,
                "at_s": figures.live_bytes_peak_at_s - figures.start_s,
                "blocks": figures.live_blocks_at_peak,
                "error_bytes": figures.live_bytes_peak_error,
            },
        )
    )
    leaks = _find_leaks(place, figures, every_site)
    found += leaks
    # What grew and stayed is told as a leak, with its rate.
    told = {id(site) for leak in leaks for site in leak.sites if site.grew_and_stayed}
    found += _find_growth(place, figures, [site for site in every_site if id(site) not in told])
    found += _find_spike(place, figures, sites)
    found += _find_storm(place, figures, sites)
    found += _find_fragmentation(place, figures, every_site)
    return found


def _heaviest(sites: Sequence[Site], name: str, whole: float, count: int = 3) -> list[Site]:
    ranked = sorted(sites, key=lambda site: -getattr(site, name))[:count]
    return [
        site for site in ranked if getattr(site, name) > _TELLING_SHARE * whole and site.label != NO_STACK
    ]


def _find_leaks(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    heap = [site for site in sites if not site.mapped]
    left = [site for site in heap if site.cache is None and site.live_bytes_at_exit > 0]
    total = sum(site.live_bytes_at_exit for site in left)
    heaviest = _heaviest(left, "live_bytes_at_exit", total)
    growing = [site for site in heaviest if site.grew_and_stayed]
    cached = sum(site.live_bytes_at_exit for site in heap if site.cache is not None)
    return [
        Finding(
            "leak",
            place,
            heaviest,
            {
                "bytes": total,
                "still_s": _still_s(growing[0], figures) if growing else 0.0,
                "cached_bytes": cached,
                "share": total / figures.live_bytes_peak if figures.live_bytes_peak else 0.0,
                "blocks": sum(site.live_blocks_at_exit for site in left),
                "error_bytes": figures.live_bytes_at_exit_error,
                "duration_s": figures.duration_s,
            },
        )
    ]


def _still_s(site: Site, figures: ProcessFigures) -> float:
    """How long before the exit a place made the last hundredth of what it held at most."""
    assert figures.moments is not None
    whole = int(np.argmax(site.course > 0.99 * float(site.course.max(initial=0.0))))
    return max(0.0, figures.exit_s - float(figures.moments.times_s[whole]))


def _find_growth(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    growing = [site for site in sites if site.growing and site.cache is None]
    growing.sort(key=lambda site: -float(site.course.max(initial=0.0)))
    if not growing:
        return []
    highest = float(growing[0].course.max())
    if growing[0].label == NO_STACK:
        return []
    rate = highest / figures.duration_s if figures.duration_s > 0 else 0.0
    return [Finding("growth", place, growing[:3], {"bytes": highest, "bytes_per_s": rate})]


def _find_spike(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    line = figures.time_line
    if line is None or not figures.live_bytes_peak:
        return []
    usual = float(np.median(line.live_bytes))
    high = float(np.mean(line.live_bytes_highest > (usual + figures.live_bytes_peak) / 2))
    # What is high until the program ends is no spike: what is left after it is only the taking down.
    before_exit = (line.ends_s <= figures.exit_s) & (line.ends_s <= figures.end_s - 0.03 * figures.duration_s)
    middle = (usual + figures.live_bytes_peak) / 2
    over = bool(before_exit.any()) and float(line.live_bytes[before_exit][-1]) < middle
    least = max(_SPIKE_RATIO * usual, usual + _SPIKE_BYTES)
    if figures.live_bytes_peak < least or high > _SPIKE_TIME_SHARE or not over:
        return []
    before = line.ends_s[(line.live_bytes_highest < middle) & (line.ends_s < figures.live_bytes_peak_at_s)]
    since_s = float(before[-1]) if len(before) else figures.start_s
    times = figures.moments.times_s if figures.moments else np.zeros(0)
    moment = int(np.searchsorted(times, since_s, side="right")) - 1
    gained = {
        id(site): site.live_bytes_at_peak - (float(site.course[moment]) if moment >= 0 else 0.0)
        for site in sites
    }
    ranked = sorted(sites, key=lambda site: -gained[id(site)])[:3]
    rise = figures.live_bytes_peak - usual
    told = [site for site in ranked if gained[id(site)] > _TELLING_SHARE * rise]
    said = {
        "bytes": figures.live_bytes_peak,
        "usual_bytes": usual,
        "at_s": figures.live_bytes_peak_at_s - figures.start_s,
        "lasting_s": high * figures.duration_s,
    }
    return [Finding("spike", place, told, said)]


def _find_storm(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    own = [site for site in sites if site.cache is None]
    temporary = sum(site.temporary_allocations for site in own)
    share = temporary / max(1.0, sum(site.allocations for site in own))
    told = _heaviest(own, "temporary_allocations", temporary)
    if temporary < _STORM_ALLOCATIONS or share < _STORM_SHARE:
        return []
    # Every program makes temporary blocks here and there; a storm has a place, where places are known.
    heaviest = told[0].temporary_allocations if told else 0.0
    if heaviest < _STORM_PLACE_SHARE * temporary and any(site.label != NO_STACK for site in own):
        return []
    said = {
        "temporary_allocations": temporary,
        "share": share,
        "churn": figures.churn or 0.0,
        "allocated_bytes": figures.allocated_bytes,
    }
    return [Finding("churn", place, told, said)]


def _find_fragmentation(place: int, figures: ProcessFigures, sites: Sequence[Site]) -> list[Finding]:
    found: list[Finding] = []
    held = external_fragmentation(figures)
    if held is not None and len(held):
        times_s, resident, explained = held[:, 0], held[:, 1], held[:, 2]
        # Only what was live before and is free now can be a matter of fragmentation; the rest is code, stacks and the like.
        line = figures.time_line
        assert line is not None
        accumulate: Any = np.maximum.accumulate
        highest: Floats = accumulate(line.usable_live_bytes)
        place_in_line = np.minimum(np.searchsorted(line.ends_s, times_s), len(line.ends_s) - 1)
        extra = np.minimum(resident, highest[place_in_line]) - explained
        # The first look of all may be before anything was counted; and at the end everybody frees without giving back.
        later = times_s > figures.start_s + 0.1 * figures.duration_s
        later &= times_s < min(figures.exit_s, figures.end_s - 0.03 * figures.duration_s)
        if later.any():
            worst = int(np.argmax(np.where(later, extra, -np.inf)))
            least = max(_RESIDENT_BYTES, _RESIDENT_SHARE * figures.usable_live_bytes_peak)
            if extra[worst] > least and resident[worst] > _RESIDENT_RATIO * explained[worst]:
                moment_sites = _live_at(figures, sites, float(times_s[worst]))
                found.append(
                    Finding(
                        "fragmentation",
                        place,
                        moment_sites,
                        {
                            "at_s": float(times_s[worst]) - figures.start_s,
                            "resident_bytes": float(resident[worst]),
                            "live_bytes": float(explained[worst]),
                        },
                    )
                )
    slack = figures.internal_fragmentation
    if slack is not None and slack > _SLACK_SHARE and figures.usable_live_bytes_at_peak > MiB:
        found.append(
            Finding(
                "slack",
                place,
                [],
                {"share": slack, "bytes": figures.usable_live_bytes_at_peak - figures.live_bytes_peak},
            )
        )
    return found


def _live_at(figures: ProcessFigures, sites: Sequence[Site], time_s: float) -> list[Site]:
    if figures.moments is None or not len(figures.moments.times_s):
        return []
    moment = min(int(np.searchsorted(figures.moments.times_s, time_s)), len(figures.moments.times_s) - 1)
    ranked = sorted(
        (site for site in sites if not site.mapped), key=lambda site: -float(site.course[moment])
    )[:3]
    whole = sum(float(site.course[moment]) for site in ranked)
    return [site for site in ranked if whole and site.course[moment] > 0.1 * whole]


def external_fragmentation(figures: ProcessFigures) -> Floats | None:
    """Resident anonymous bytes against what is live, as the recorder saw it.

    Returns:
        Shape (n, 3): time in s since the start of the trace, anonymous resident bytes, usable live and mapped bytes; None
        where the recorder did not look. CPython's arenas are mappings, so objects in them are not counted twice.
    """
    memory, line = figures.memory, figures.time_line
    if memory is None or line is None or not len(memory) or not len(line.ends_s):
        return None
    times_s = memory["time_ns"].astype(np.float64) * 1e-9
    place = np.minimum(np.searchsorted(line.ends_s, times_s), len(line.ends_s) - 1)
    live = line.usable_live_bytes[place]
    resident = memory["anonymous_bytes"].astype(np.float64)
    resident = np.where(resident > 0, resident, memory["resident_bytes"].astype(np.float64))
    return np.stack([times_s, resident, live], axis=1)

"""What a report says in words: what the peak was, when, who held it, what stays, what is churn, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from heapsmith.trace.findings import Finding
from heapsmith.trace.places import Label
from heapsmith.trace.report import Report, ReportedProcess
from heapsmith.trace.sites import Site
from heapsmith.units import KiB, format_bytes, format_count, format_seconds

MOST_PROCESSES: Final = 5
_LONGEST_NAME: Final = 90
_NEXT_TO_NOTHING: Final = 64 * KiB
_STILL_SHARE: Final = 0.1


class Sentence(NamedTuple):
    """One thing said.

    Args:
        kind: Of the finding.
        text: What is.
        places: Where, each with its figure.
        advice: What to do about it; empty where there is nothing to do.
    """

    kind: str
    text: str
    places: list[tuple[str, str]]
    advice: str


def name_site(label: Label) -> str:
    """Write a place as ``function, folder/file:line``.

    Example:
        >>> name_site(Label("grow", "/srv/app/demo.py", 12))
        'grow, app/demo.py:12'
    """
    name = (
        label.function if len(label.function) <= _LONGEST_NAME else label.function[: _LONGEST_NAME - 1] + "…"
    )
    return name if label.file is None and not label.is_named else f"{name}, {label.place}"


def name_process(process: ReportedProcess) -> str:
    """Write a process as ``name (pid 7)``."""
    return f"{process.figures.name} (pid {process.figures.pid})"


def describe(report: Report) -> list[tuple[str, list[Sentence]]]:
    """Say what was found, process by process, the largest first.

    Returns:
        For each process a heading and its sentences.
    """
    told: dict[int, list[Finding]] = {}
    for finding in report.findings:
        told.setdefault(finding.process, []).append(finding)
    return [
        (
            name_process(report.processes[place]),
            [sentence for finding in findings if (sentence := _say(report, finding)) is not None],
        )
        for place, findings in list(told.items())[:MOST_PROCESSES]
    ]


def describe_limits(report: Report) -> list[str]:
    """Say what this report does not know: lost events, damage, estimates, names that were not found."""
    notes: list[str] = []
    for path, damage, complete in zip(report.paths, report.damages, report.complete, strict=True):
        if damage is not None:
            lost = (
                f"at least {format_count(damage.lost_events)} events and "
                if damage.lost_events is not None
                else ""
            )
            notes.append(
                f"{path} is damaged at byte {format_count(damage.offset_bytes)} ({damage.reason}): "
                f"{lost}{format_bytes(damage.lost_bytes)} behind it are lost, everything before is here"
            )
        elif not complete:
            notes.append(f"{path} has no end: the recorder was stopped; everything up to then is here")
    if report.dropped_events:
        notes.append(
            f"{format_count(report.dropped_events)} events were dropped while recording: figures are too low, "
            "and blocks whose free was dropped seem to live (record with --on-full wait)"
        )
    for process in report.processes:
        figures = process.figures
        notes += [f"{name_process(process)}: {note}" for note in figures.notes]
        if figures.unreadable:
            notes.append(f"events of {name_process(process)} end early: {figures.unreadable}")
        if figures.contradictions:
            notes.append(
                f"{name_process(process)}: {format_count(figures.contradictions)} frees of what was not live: "
                "the trace contradicts itself"
            )
    means = sorted({m.sample_every_bytes for m in report.manifests if m.sample_every_bytes is not None})
    if means:
        notes.append(
            "places are estimates from a sample, one allocation in "
            + ", ".join(format_bytes(mean) for mean in means)
            + " on average, ± the 95 % interval"
            + ("; totals are exact" if report.totals_exact else "; so are totals")
        )
    if report.unnamed_modules:
        names = ", ".join(sorted(path.rpartition("/")[2] for path in report.unnamed_modules)[:6])
        notes.append(f"some frames have no names or lines ({names}): give --symbols FOLDER with their files")
    if not any(manifest.stacks != "none" for manifest in report.manifests):
        notes.append("no stacks were recorded: places are unknown (record with --stacks all or sampled)")
    return notes


def _say(report: Report, finding: Finding) -> Sentence | None:
    words = {
        "peak": _peak,
        "leak": _leak,
        "growth": _growth,
        "spike": _spike,
        "churn": _churn,
        "fragmentation": _fragmentation,
        "slack": _slack,
        "empty": _empty,
    }[finding.kind]
    return words(report, finding)


def _with_error(value: float, error: float) -> str:
    return format_bytes(value) if not error else f"{format_bytes(value)} ± {format_bytes(error)}"


def _places(report: Report, sites: Sequence[Site], name: str, whole: float) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for site in sites:
        value = float(getattr(site, name))
        share = f" ({100 * value / whole:.0f} %)" if whole else ""
        amount = format_count(value) if name.endswith("allocations") else format_bytes(value)
        found.append((_where(report, site), f"{amount}{share}"))
    return found


def _where(report: Report, site: Site) -> str:
    """The place, and through which library it was, where that tells more."""
    text = name_site(site.label)
    leaf = report.forest.path(site.node)
    inner = next(
        (
            label
            for label in leaf
            if label.is_named and label != site.label and report.forest.owner_of(label) == "library"
        ),
        None,
    )
    if inner is not None and leaf.index(inner) < next(
        (place for place, label in enumerate(leaf) if label == site.label), 0
    ):
        text += f" (through {inner.function} of {(inner.module or inner.file or '?').rpartition('/')[2]})"
    return text


def _peak(report: Report, finding: Finding) -> Sentence:
    f = finding.figures
    return Sentence(
        "peak",
        f"The peak was {_with_error(f['bytes'], f['error_bytes'])} in {format_count(f['blocks'])} blocks, "
        f"{format_seconds(f['at_s'])} after the start.",
        _places(report, finding.sites, "live_bytes_at_peak", f["bytes"]),
        "",
    )


def _leak(report: Report, finding: Finding) -> Sentence:
    f = finding.figures
    cached = (
        f"; {format_bytes(f['cached_bytes'])} more are known one-time caches" if f["cached_bytes"] else ""
    )
    process = report.processes[finding.process].figures
    when = "at exit" if process.ended else "at the end of the recording"
    if not f["bytes"]:
        return Sentence("clean", f"Nothing was still live {when}{cached}.", [], "")
    if f["bytes"] < _NEXT_TO_NOTHING and f["share"] < 0.01:
        return Sentence(
            "clean", f"Next to nothing ({format_bytes(f['bytes'])}) was still live {when}{cached}.", [], ""
        )
    advice = ""
    growing = [site for site in finding.sites if site.grew_and_stayed]
    if growing:
        rate = growing[0].live_bytes_at_exit / f["duration_s"] if f["duration_s"] else 0.0
        place = name_site(growing[0].label)
        ended_by_itself = process.ended and process.signal is None
        if not ended_by_itself:
            verdict = "unless the program was about to end anyway, that is a leak"
        elif f["still_s"] < _STILL_SHARE * f["duration_s"]:
            verdict = (
                "the program ended right then, and loses nothing if it always does; one that goes on leaks"
            )
        else:
            verdict = f"then it only held it, for {format_seconds(f['still_s'])}; more work may add more"
        advice = (
            f"{place} kept adding to what stays, {format_bytes(rate)} a second: {verdict}; "
            "free what it holds, or bound it."
        )
    elif finding.sites and f["share"] > 0.1:
        advice = f"Look at {name_site(finding.sites[0].label)} first: is it meant to stay?"
    return Sentence(
        "leak",
        f"{_with_error(f['bytes'], f['error_bytes'])} in {format_count(f['blocks'])} blocks were still live "
        f"{when}, {100 * f['share']:.0f} % of the peak{cached}.",
        _places(report, finding.sites, "live_bytes_at_exit", f["bytes"]),
        advice,
    )


def _growth(report: Report, finding: Finding) -> Sentence:
    f = finding.figures
    return Sentence(
        "growth",
        f"Live bytes of {name_site(finding.sites[0].label)} grew step by step to {format_bytes(f['bytes'])}, "
        f"by {format_bytes(f['bytes_per_s'])} a second.",
        [
            (_where(report, site), f"up to {format_bytes(float(site.course.max(initial=0.0)))}")
            for site in finding.sites
        ],
        "If a longer run would go on like this, give it a bound, or free what is done.",
    )


def _spike(report: Report, finding: Finding) -> Sentence:
    f = finding.figures
    return Sentence(
        "spike",
        f"The peak was a spike: {format_bytes(f['bytes'])} for about {format_seconds(f['lasting_s'])} at "
        f"{format_seconds(f['at_s'])}, against {format_bytes(f['usual_bytes'])} usually.",
        _places(report, finding.sites, "live_bytes_at_peak", f["bytes"]),
        f"Doing {name_site(finding.sites[0].label)} in pieces would lower the peak." if finding.sites else "",
    )


def _churn(report: Report, finding: Finding) -> Sentence:
    f = finding.figures
    advice = ""
    if finding.sites:
        place = name_site(finding.sites[0].label)
        advice = f"Where it is hot, a buffer that is used again saves them: {place}."
    return Sentence(
        "churn",
        f"{format_count(f['temporary_allocations'])} allocations ({100 * f['share']:.0f} %) were temporary: freed "
        f"before their thread allocated again. {format_bytes(f['allocated_bytes'])} passed through, "
        f"{f['churn']:.3g} times the peak.",
        _places(report, finding.sites, "temporary_allocations", f["temporary_allocations"]),
        advice,
    )


def _fragmentation(report: Report, finding: Finding) -> Sentence:
    f = finding.figures
    said = [
        (_where(report, site), f"{format_bytes(site.live_bytes_peak)} at most, "
         f"{format_count(site.allocations)} blocks in all")
        for site in finding.sites
    ]  # fmt: skip
    return Sentence(
        "fragmentation",
        f"At {format_seconds(f['at_s'])} only {format_bytes(f['live_bytes'])} were live, yet "
        f"{format_bytes(f['resident_bytes'])} stayed resident: free blocks between live ones, or kept by the allocator.",
        said,
        "Blocks that live long among blocks that die hold their pages: allocate them apart, or try another "
        "allocator (`heapsmith advise`).",
    )


def _slack(report: Report, finding: Finding) -> Sentence:
    del report
    f = finding.figures
    return Sentence(
        "slack",
        f"{100 * f['share']:.0f} % of what was live at the peak ({format_bytes(f['bytes'])}) is slack inside blocks: "
        "usable, but nobody asked for it.",
        [],
        "Other size classes would save it: `heapsmith tune` designs them.",
    )


def _empty(report: Report, finding: Finding) -> Sentence:
    del finding
    lost = any(report.damages) or report.dropped_events
    text = "Of what it allocated nothing is in the file." if lost else "Nothing was allocated."
    return Sentence("empty", text, [], "")

"""What a benchmark measured, as a section of a Markdown document with pictures beside it, or as one HTML page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from heapsmith.errors import HeapsmithError
from heapsmith.lab.bench import Case, Ratio, Suite, mean_ratios
from heapsmith.outputs import write_output
from heapsmith.show.bench_figures import Point, draw_pareto
from heapsmith.units import UNKNOWN, format_bytes, format_seconds

BEGIN: Final = "<!-- figures: begin (written by `heapsmith bench --report`; text outside is kept) -->"
END: Final = "<!-- figures: end -->"
_AFTERWARDS: Final = ("memory", "spike")
_TITLES: Final = {
    "local": "`local`: one thread, a mix of sizes",
    "locality": "`locality`: a walk over a million objects",
    "threads": "`threads`: four threads free each other's blocks",
    "memory": "`memory`: sixteen threads, and what stays afterwards",
    "field": "`field`: the kinds of programs that allocators are measured with",
    "real": "`real`: programs that people run",
    "spike": "`spike`: a threaded service, and what stays two seconds after a spike",
    "startup": "`startup`: a process that does nothing",
}
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1180px; margin: 0 auto; padding: 24px 20px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid #dfe4ea; }
th:first-child, td:first-child { text-align: left; } .wide { overflow-x: auto; } .quiet { color: #5f6c7b; }
code { font: 13px ui-monospace, monospace; } svg { max-width: 100%; height: auto; }
"""


class Table:
    """A table of text: the first column names the rows."""

    def __init__(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.title = title
        self.head = list(head)
        self.rows = [list(row) for row in rows]

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [self.head, ["---", *("---:" for _ in self.head[1:])], *self.rows]
        return f"{self.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def page(self) -> str:
        """Return it as HTML."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell).replace('**', '')}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return (
            f"<p class='quiet'>{html.escape(self.title)}</p>"
            f"<div class='wide'><table><tr>{head}</tr>{rows}</table></div>"
        )


def suite_tables(suite: Suite) -> list[Table]:
    """Make the tables of a suite: time, peak resident memory, and what is resident afterwards where that matters."""
    names = list(dict.fromkeys(case.allocator for case in suite.cases))
    workloads = list(dict.fromkeys(case.name for case in suite.cases))
    by_key = {(case.name, case.allocator): case for case in suite.cases}

    def rows(cell_of: str) -> list[list[str]]:
        return [[f"`{w}`", *(_cell(by_key.get((w, name)), cell_of) for name in names)] for w in workloads]

    tables = [
        Table("Time, as a ratio to the system's malloc [95 % interval].", ["", *names], rows("time")),
        Table("Peak resident memory, and its ratio.", ["", *names], rows("memory")),
    ]
    if suite.name in _AFTERWARDS:
        tables.append(Table("Resident afterwards.", ["", *names], rows("after")))
    return tables


def suite_picture(suite: Suite) -> str | None:
    """Draw a suite: geometric means over its workloads; where what stays matters, that is the upward figure."""
    if suite.name in _AFTERWARDS:
        reference = _afterwards(suite, next((c.allocator for c in suite.cases), ""))
        times = mean_ratios([suite])
        points = [
            Point(name, time, after / reference)
            for name, time in times.items()
            if reference and (after := _afterwards(suite, name))
        ]
        title = "resident memory afterwards"
    else:
        times, memories = mean_ratios([suite]), mean_ratios([suite], resident=True)
        points = [Point(name, times[name], memories[name]) for name in times if name in memories]
        title = "peak resident memory"
    return draw_pareto(suite.name, points, memory_title=title) if len(points) > 1 else None


def summary_table(suites: Sequence[Suite]) -> Table:
    """Make the table of geometric means of all suites."""
    names = list(dict.fromkeys(name for suite in suites for name in mean_ratios([suite])))
    rows: list[list[str]] = []
    for suite in suites:
        times, memories = mean_ratios([suite]), mean_ratios([suite], resident=True)
        rows.append(
            [
                f"`{suite.name}`",
                *(f"{_plain(times[n])} / {_plain(memories.get(n))}" if n in times else "" for n in names),
            ]
        )
    return Table(
        "Geometric means over the workloads of each suite: time / peak resident memory, the system's malloc = 1.",
        ["", *names],
        rows,
    )


def noise_line(suites: Sequence[Suite]) -> str | None:
    """Say how many figures the machine was too noisy for, or None where it was quiet enough."""
    judged = [case for suite in suites for case in suite.cases if case.too_noisy is not None]
    noisy = [case for case in judged if case.too_noisy]
    if not noisy:
        return None
    return (
        f"The machine was too noisy for {len(noisy)} of {len(judged)} times, marked ~: their interval is wider than"
        " a factor of 1.3. Run again on a quiet machine, or with more --runs."
    )


def write_report(path: Path, suites: Sequence[Suite], facts: Mapping[str, str], command: str) -> None:
    """Write figures into a Markdown document, between two marks, and pictures into ``images/`` beside it.

    Args:
        path: The document; what stands outside of the marks is kept.
        suites: What was measured.
        facts: Machine and versions.
        command: What was typed.

    Raises:
        HeapsmithError: It cannot be written.
    """
    images = path.parent / "images"
    parts = [BEGIN, "", f"`{command}` on:", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    try:
        images.mkdir(exist_ok=True)
        parts.append(summary_table(suites).markdown())
        if line := noise_line(suites):
            parts += [line, ""]
        for suite in suites:
            parts += [f"### {_TITLES[suite.name]}", ""]
            if picture := suite_picture(suite):
                write_output(images / f"bench-{suite.name}.svg", picture)
                parts += [f"![time against memory](images/bench-{suite.name}.svg)", ""]
            parts += [table.markdown() for table in suite_tables(suite)]
        text = "\n".join([*parts, END])
        before, after = "# Benchmarks\n\n", "\n"
        if path.is_file():
            old = path.read_text(encoding="utf-8")
            if BEGIN in old and END in old:
                before, after = old[: old.index(BEGIN)], old[old.index(END) + len(END) :]
            else:
                before = old.rstrip() + "\n\n"
        write_output(path, before + text + after)
    except OSError as error:
        raise HeapsmithError(f"cannot write {path}", error.strerror or str(error)) from error


def render_page(suites: Sequence[Suite], facts: Mapping[str, str], command: str) -> str:
    """Make one HTML page that needs nothing else."""
    parts = [
        "<h1>heapsmith bench</h1>",
        f"<p><code>{html.escape(command)}</code></p><ul class='quiet'>",
        *(f"<li>{html.escape(key)}: {html.escape(value)}</li>" for key, value in facts.items()),
        "</ul>",
        summary_table(suites).page().replace("`", ""),
    ]
    if line := noise_line(suites):
        parts.append(f"<p>{html.escape(line)}</p>")
    for suite in suites:
        parts.append(f"<h2>{html.escape(_TITLES[suite.name].replace('`', ''))}</h2>")
        parts.append(suite_picture(suite) or "")
        parts += [table.page().replace("`", "") for table in suite_tables(suite)]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>heapsmith bench</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _afterwards(suite: Suite, allocator: str) -> float | None:
    return next(
        (case.resident_after_bytes.median for case in suite.cases if case.allocator == allocator), None
    )


def _cell(case: Case | None, what: str) -> str:
    if case is None:
        return ""
    if case.failed:
        return f"**{case.failed}**"
    if what == "after":
        return format_bytes(case.resident_after_bytes.median)
    if what == "memory":
        return f"{format_bytes(case.resident_bytes_peak.median)} ({_ratio(case.resident_ratio)})"
    noise = "~" if case.too_noisy else ""
    interval = _interval(case.time_ratio)
    if case.time_ratio.ratio == 1:
        return format_seconds(case.time_s.median)
    return f"{noise}{_ratio(case.time_ratio)}{interval}"


def _ratio(ratio: Ratio) -> str:
    return _plain(ratio.ratio)


def _plain(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _interval(ratio: Ratio) -> str:
    return "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"

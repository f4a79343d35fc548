"""Records, tunes, verifies and compares the cases of docs/tuning.md, and writes their figures into it.

Usage: python examples/tuned/measure.py [sqlite] [service] [redis] [words] [--budget 2m] [--no-page]

Each case is recorded twice, with different inputs: a heap is designed for the first recording and judged by the second,
and by fresh runs of the program. With the budget of 2 minutes each, all four take about a quarter of an hour on 2 quiet
cores; a busy machine takes longer, for verification does with no fewer than 5 runs of each candidate.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heapsmith.units import format_bytes, format_seconds, parse_seconds

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "tuning.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
RECORDING_S = 20.0


@dataclass
class Case:
    """A program, two inputs, and how it is run for real."""

    name: str
    says: str
    objective: str
    recorded: list[list[str]]
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    has: str = "glibc"
    """What its malloc is today."""
    options: list[str] = field(default_factory=list)


def _is_linked_with(program: str, library: str) -> bool:
    found = shutil.which(program)
    return (
        found is not None and library in subprocess.run(["ldd", found], capture_output=True, text=True).stdout
    )


def make_cases(folder: Path) -> list[Case]:
    orders = str(HERE / "orders.sql")
    python = str(Path(sys.executable))
    words = str(folder / "words")

    def sqlite(rows: int) -> list[str]:
        return ["sqlite3", ":memory:", f".parameter set :rows {rows}", f".read {orders}"]

    return [
        Case(
            "sqlite", "a database in memory: a few sizes make up all of it", "time",
            [sqlite(300_000), sqlite(180_000)], sqlite(300_000),
        ),
        Case(
            "service", "a threaded Python service with a spike, all of its objects on malloc", "memory",
            [[python, str(HERE / "threads.py"), "1", "20"], [python, str(HERE / "threads.py"), "77", "14"]],
            [python, str(HERE / "threads.py"), "5", "20"],
            {"PYTHONMALLOC": "malloc"},
        ),
        Case(
            "redis", "the counter-example: sizes are spread, and what it has is hard to beat", "memory",
            [[str(HERE / "redis.sh"), "100000"], [str(HERE / "redis.sh"), "60000"]],
            ["redis-server", "--port", "{port}", "--save", "", "--appendonly", "no", "--loglevel", "warning"],
            has="jemalloc" if _is_linked_with("redis-server", "libjemalloc") else "glibc",
            options=[
                "--ready", "{port}", "--settle", "1s",
                "--load", "redis-benchmark -p {port} -q -n 100000 -r 100000 -d 100 -P 16 -t set,lpush,hset,zadd",
            ],
        ),
        Case(
            "words", "a batch job in C++: maps, vectors and strings", "balanced",
            [[words, "1"], [words, "2"]], [words, "3"],
        ),
    ]  # fmt: skip


def run_heapsmith(
    words: list[str], environment: dict[str, str], **more: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heapsmith", *words], env=os.environ | environment, text=True, **more
    )


def measure(case: Case, folder: Path, budget: str) -> dict[str, Any]:
    """Record and tune one case; answers what `tune --json` told."""
    traces: list[str] = []
    for number, command in enumerate(case.recorded):
        trace = str(folder / f"{case.name}-{number + 1}.heap")
        done = run_heapsmith(
            ["record", "-o", trace, "--force", "--", *command], case.environment, stdout=subprocess.DEVNULL
        )
        if done.returncode != 0:
            sys.exit(f"{case.name}: the recorded program ended with {done.returncode}")
        traces.append(trace)
    spec = str(folder / f"{case.name}.toml")
    words = [
        "tune",
        *traces,
        "-o",
        spec,
        "--force",
        "--objective",
        case.objective,
        "--budget",
        budget,
        "--json",
    ]
    done = run_heapsmith(
        [*words, *case.options, "--", *case.command], case.environment, stdout=subprocess.PIPE
    )
    if done.returncode != 0:
        sys.exit(f"{case.name}: tune ended with {done.returncode}")
    checked = run_heapsmith(
        ["replay", traces[0], "-a", case.has, "--runs", "1", "--validate", "--json"], case.environment,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    validation = json.loads(checked.stdout)["validation"] if checked.stdout else None
    return found | {"case": case.name, "validation": validation}


def render_case(case: Case, found: dict[str, Any], folder: Path) -> str:
    """Write one case as a section of the page."""
    # As it would be typed in a checkout, wherever this one lies.
    typed = {f"{HERE.parents[1]}/": "", f"{folder}/": "./", sys.executable: "python"}

    def shorten(text: str) -> str:
        for path, words in typed.items():
            text = text.replace(path, words)
        return text

    program = found["program"]
    lines = [
        f"### {case.name}: {case.says}",
        "",
        f"{program['calls']:,} calls by {program['threads']} threads, at most {format_bytes(program['live_bytes_peak'])}"
        f" live. Objective `{case.objective}`. Verdict: **{found['verdict']}**.",
        "",
        f"> {shorten(found['recommendation'])}",
        "",
    ]
    for trial in found["verification"]:
        lines += [
            f"Verified on: {shorten(trial['where'])}",
            "",
            "| candidate | runs | processor time | resident, peak | resident, average |",
            "|---|---|---|---|---|",
        ]
        for result in trial["results"]:
            cells = [
                format_seconds(result["cpu_s"]["median"]),
                format_bytes(result["resident_bytes_peak"]["median"]),
                format_bytes(result["resident_bytes_mean"]["median"]),
            ]
            out = f" (out: {result['failed']})" if result["failed"] else ""
            lines.append(f"| {result['allocator']}{out} | {result['runs']} | " + " | ".join(cells) + " |")
        if trial["tailored"] is not None:
            ratios = ", ".join(
                f"{words} {_ratio(trial[name])}"
                for words, name in (("time", "time_ratio"), ("resident bytes", "resident_ratio"))
            )
            lines += ["", f"{trial['tailored']} against {trial['rival']}: {ratios}."]
        lines.append("")
    if found["choices"]:
        lines += [
            "Its design, choice by choice, with the resident bytes (peak, average) that the simulator predicts:",
            "",
            *(f"- {choice['what']}{_predicted(choice)}: {choice['why']}" for choice in found["choices"]),
            "",
        ]
    validation = found["validation"]
    if validation is not None:
        lines += [
            f"Replay against the recorded run on {validation['allocator']}: peak {validation['ratio']:.3f} times the"
            f" recorded one, {validation['mean_error_ratio']:.1%} apart on average.",
            "",
        ]
    lines.append(f"Reproduce: `python examples/tuned/measure.py {case.name}`")
    return "\n".join(lines)


def _ratio(difference: dict[str, Any]) -> str:
    return "unknown" if difference["ratio"] is None else f"{difference['ratio']:.2f}"


def _predicted(choice: dict[str, Any]) -> str:
    peak, mean = choice["resident_bytes_peak"], choice["resident_bytes_mean"]
    return "" if peak is None else f" [{format_bytes(peak)}, {format_bytes(mean)}]"


def write_page(sections: dict[str, str]) -> None:
    """Put sections between the markers of the page; those of cases that were not measured stay."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    middle, tail = rest.split(END)
    known = {part.split(":")[0].strip(): "### " + part.strip() for part in middle.split("### ")[1:]}
    known |= sections
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n\n".join(known.values()) + f"\n{END}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--no-page", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heapsmith-tuned-") as name:
        folder = Path(name)
        cases = [case for case in make_cases(folder) if not chosen.cases or case.name in chosen.cases]
        if any(case.name == "words" for case in cases):
            subprocess.run(["c++", "-O2", "-o", folder / "words", HERE / "words.cc"], check=True)
        each_s = parse_seconds(chosen.budget) + 2 * RECORDING_S
        began = time.monotonic()
        for number, case in enumerate(cases):
            left = format_seconds(each_s * (len(cases) - number))
            print(f"{case.name}: begins; about {left} left", file=sys.stderr, flush=True)
            section = render_case(case, measure(case, folder, chosen.budget), folder)
            each_s = (time.monotonic() - began) / (number + 1)
            print(section + "\n", flush=True)
            if not chosen.no_page:
                write_page({case.name: section})


if __name__ == "__main__":
    main()

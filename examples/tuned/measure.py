"""Records, tunes, verifies and compares the cases of docs/tuning.md, and writes their figures into it.

Usage: python examples/tuned/measure.py [sqlite] [service] [redis] [words] [compiler] [json] [numpy] [jq] [perl]
       [--budget 1m] [--no-page]; without a name, all of them

Each case is recorded with one or two inputs: a heap is designed for the first recording, and judged by the second and
by fresh runs of the program. Then the answer has to stand in further fresh runs, beside every allocator with its
defaults and the settings that did best in the search. All nine take about 20 minutes on 2 quiet cores; a busy machine
takes longer, for verification does with no fewer than 5 runs of each candidate.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from heapsmith.cli.workload_options import WorkloadOptions
from heapsmith.lab.compare import Laboratory
from heapsmith.lab.field import read_field
from heapsmith.lab.ledger import Ledger
from heapsmith.lab.rehearsal import rehearse
from heapsmith.lab.statistics import Difference
from heapsmith.peers.candidate import AS_IT_IS, Candidate
from heapsmith.tune.candidates import choose_candidates
from heapsmith.tune.objective import compare_costs
from heapsmith.tune.race import outcomes_of
from heapsmith.tune.verdict import TOLERATED
from heapsmith.units import format_bytes, format_seconds, parse_seconds

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "tuning.md"
ANSWERS, CASES = "answers", "measured"
RECORDING_S = 20.0
RUNS = 5
STANDING_S, FEWEST_OTHERS = 40.0, 6
NUMPY = (
    "import sys, numpy; a = numpy.arange(100_000.0)\n"
    "for _ in range(int(sys.argv[1])): b = a * 2.5 + a * 1.5 - a\n"
    "print(b.sum())"
)
PERL = (
    "my (%h, %l); for my $i (1..shift) { my $k = $i * 7919 % 50021; $h{$k} .= chr(65 + $i % 26) x ($i % 40);"
    " push @{$l{length $h{$k}}}, $k if $i % 3 == 0 } print scalar(keys %h), q( ), scalar(keys %l), qq(\\n)"
)
JQ = "group_by(.tags | length) | map({n: length, ids: (map(.id) | add), first: (map(.name) | sort | .[0])})"


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
    options: dict[str, str] = field(default_factory=dict)
    """What else `tune` and `compare` are told of the command."""
    budget: str = "45s"
    """A replay of the service takes a second."""
    is_told: bool = False
    """It has a section of its own on the page; all have a row in the table."""


def _is_linked_with(program: str, library: str) -> bool:
    found = shutil.which(program)
    return (
        found is not None and library in subprocess.run(["ldd", found], capture_output=True, text=True).stdout
    )


def make_cases(folder: Path) -> list[Case]:
    orders = str(HERE / "orders.sql")
    python = str(Path(sys.executable))
    words = str(folder / "words")
    allocators = HERE.parent / "allocators"

    def sqlite(rows: int) -> list[str]:
        return ["sqlite3", ":memory:", f".parameter set :rows {rows}", f".read {orders}"]

    def service(seed: int, rounds: int) -> list[str]:
        return [python, str(HERE / "threads.py"), str(seed), str(rounds)]

    def compiler(*options: str) -> list[str]:
        return ["g++", *options, "-c", "-o", "/dev/null", str(HERE / "words.cc")]

    def jq(seed: int) -> list[str]:
        return ["jq", JQ, str(folder / f"rows-{seed}.json")]

    return [
        Case(
            "sqlite", "a database in memory: a few sizes make up all of it", "time",
            [sqlite(300_000), sqlite(180_000)], sqlite(300_000), is_told=True,
        ),
        Case(
            "service", "a threaded Python service with a spike, all of its objects on malloc", "memory",
            [service(1, 20), service(77, 14)], service(5, 20), {"PYTHONMALLOC": "malloc"}, budget="2m", is_told=True,
        ),
        Case(
            "redis", "the counter-example: sizes are spread, and what it has is hard to beat", "memory",
            [[str(HERE / "redis.sh"), "100000"], [str(HERE / "redis.sh"), "60000"]],
            ["redis-server", "--port", "{port}", "--save", "", "--appendonly", "no", "--loglevel", "warning"],
            has="jemalloc" if _is_linked_with("redis-server", "libjemalloc") else "glibc",
            options={
                "ready": "{port}", "settle": "1s",
                "load": "redis-benchmark -p {port} -q -n 100000 -r 100000 -d 100 -P 16 -t set,lpush,hset,zadd",
            },
            is_told=True,
        ),
        Case(
            "words", "a batch job in C++: maps, vectors and strings", "balanced",
            [[words, "1"], [words, "2"]], [words, "3"], is_told=True,
        ),
        Case(
            "compiler", "g++ on one file", "balanced", [compiler("-O2"), compiler("-O3", "-g")], compiler("-O2", "-g"),
        ),
        Case(
            "json", "Python dictionaries and JSON, all on malloc", "balanced",
            [[python, str(allocators / "dictionaries.py")]], [python, str(allocators / "dictionaries.py")],
            {"PYTHONMALLOC": "malloc"},
        ),
        Case(
            "numpy", "temporaries of NumPy", "time",
            [[python, "-c", NUMPY, "1200"], [python, "-c", NUMPY, "800"]], [python, "-c", NUMPY, "1000"],
        ),
        Case("jq", "groups and sorts JSON", "balanced", [jq(1), jq(2)], jq(3)),
        Case(
            "perl", "hashes of strings and lists", "memory",
            [["perl", "-e", PERL, "900000"], ["perl", "-e", PERL, "600000"]], ["perl", "-e", PERL, "800000"],
        ),
    ]  # fmt: skip


def prepare(cases: list[Case], folder: Path) -> None:
    """Make what the cases need in the folder."""
    names = {case.name for case in cases}
    if "words" in names:
        subprocess.run(["c++", "-O2", "-o", folder / "words", HERE / "words.cc"], check=True)
    if "jq" in names:
        for seed in (1, 2, 3):
            choose = random.Random(seed)
            rows = [
                {
                    "id": choose.randrange(1 << 30),
                    "name": f"user{choose.randrange(10**6)}",
                    "tags": [f"t{choose.randrange(999)}" for _ in range(choose.randrange(9))],
                    "text": "x" * choose.randrange(200),
                }
                for _ in range(choose.randrange(40_000, 60_000))
            ]
            (folder / f"rows-{seed}.json").write_text(json.dumps(rows))


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
    options = [word for name, value in case.options.items() for word in (f"--{name}", value)]
    done = run_heapsmith([*words, *options, "--", *case.command], case.environment, stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"{case.name}: tune ended with {done.returncode}")
    checked = run_heapsmith(
        ["replay", traces[0], "-a", case.has, "--runs", "1", "--validate", "--json"], case.environment,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    validation = json.loads(checked.stdout)["validation"] if checked.stdout else None
    return found | {"case": case.name, "validation": validation}


class Stand(NamedTuple):
    """How the answer of `tune` stood in fresh runs of the program.

    Attributes:
        gain: Its cost against that of the program as it is.
        others: How many others ran.
        nearest: Who of them costs least.
        nearest_cost: Their cost against that of the answer.
        beaten_by: Who is surely better by more than 2 %, and by what, in runs made for that question alone.
    """

    gain: Difference
    others: int
    nearest: str
    nearest_cost: Difference
    beaten_by: list[tuple[str, Difference]]


def stand(case: Case, found: dict[str, Any]) -> Stand:
    """Run the answer beside others, as many as there is time for: the best of the search, then allocators' defaults."""
    answer = found["spec"] if found["verdict"] == "tailored" else found["allocator"] or AS_IT_IS
    settings = [
        each["allocator"]
        for each in found["search"]
        if each["cost_ratio"] is not None and not each["allocator"].startswith("tailored ")
    ]
    # The search knows each allocator's settings well enough; between allocators it may err.
    firsts = {name.partition(":")[0]: name for name in reversed(settings)}
    names = dict.fromkeys(
        [answer, AS_IT_IS, found["spec"], *sorted(firsts.values(), key=settings.index), *settings]
    )
    candidates = {one.label: one for one in (*read_field(names), *choose_candidates(None))}
    workload = WorkloadOptions(**case.options).workload(tuple(case.command))
    workload = msgspec.structs.replace(workload, environment=os.environ | case.environment)
    rehearsal = rehearse(workload)
    laboratory = Laboratory(workload, rehearsal, Ledger(workload))
    seats = max(FEWEST_OTHERS, int(STANDING_S / (RUNS * rehearsal.duration_s)) - 1)
    first, *others = list(candidates.values())[: seats + 1]

    def compare(phase: str, one: Candidate, other: Candidate) -> Difference:
        outcomes = [outcomes_of(laboratory.outcomes, each.label, phase) for each in (one, other)]
        return compare_costs(*outcomes, workload, case.objective)

    laboratory.run_rounds([first, *others], range(RUNS), "stand")
    costs = {one.label: compare("stand", first, one) for one in others}
    known = {label: cost for label, cost in costs.items() if cost.ratio is not None}
    nearest = min(known, key=lambda label: known[label].ratio or 1.0)
    # Who of so many comes first is luck in part: only further runs tell whether they are better.
    seem = [one for one in others if (costs[one.label].ratio or 1.0) < 1 - TOLERATED]
    seem = sorted(seem, key=lambda one: costs[one.label].ratio or 1.0)[:3]
    again = {}
    seem = seem[: max(1, int(STANDING_S / (2 * RUNS * rehearsal.duration_s)) - 1)]
    if seem:
        laboratory.run_rounds([first, *seem], range(2 * RUNS), "again")
        again = {one.label: compare("again", first, one) for one in seem}
    beaten_by = [
        (label, cost)
        for label, cost in again.items()
        if cost.more_than_noise and (cost.ratio or 1.0) < 1 - TOLERATED
    ]
    today = next(one for one in (first, *others) if one.label == AS_IT_IS)
    return Stand(
        compare("stand", today, first), len(others), nearest, again.get(nearest, costs[nearest]), beaten_by
    )


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
                f"{words} {_ratio(trial[name]['ratio'])}"
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


def _ratio(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{ratio:.2f}"


def _predicted(choice: dict[str, Any]) -> str:
    peak, mean = choice["resident_bytes_peak"], choice["resident_bytes_mean"]
    return "" if peak is None else f" [{format_bytes(peak)}, {format_bytes(mean)}]"


def render_row(case: Case, found: dict[str, Any], stood: Stand) -> str:
    """Write one case as a row of the table of answers."""

    def name(label: str) -> str:
        return "the tailored heap" if label == found["spec"] else f"`{label}`"

    is_nothing = found["verdict"] == "nothing"
    answer = found["spec"] if found["verdict"] == "tailored" else found["allocator"]
    cells = [
        case.name,
        case.says,
        case.objective,
        "nothing to gain" if is_nothing else name(answer),
        "" if is_nothing else _ratio(stood.gain.ratio),
        f"{name(stood.nearest)}, {_ratio(stood.nearest_cost.ratio)}, of {stood.others}",
        "; ".join(f"{name(label)}, {_ratio(cost.ratio)}" for label, cost in stood.beaten_by) or "nobody",
    ]
    return "| " + " | ".join(cells) + " |"


def _between(text: str, marker: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {marker}: begin -->\n", f"<!-- {marker}: end -->"
    head, _, rest = text.partition(begin)
    middle, _, tail = rest.partition(end)
    return head + begin, middle, end + tail


def write_page(case: Case, row: str, section: str) -> None:
    """Put a row and a section between the markers of the page; those of cases that were not measured stay."""
    head, middle, tail = _between(PAGE.read_text(encoding="utf-8"), ANSWERS)
    heading, rule, *rows = middle.splitlines()
    of_case = {line.split(" | ")[0].strip("| "): line for line in rows} | {case.name: row}
    text = head + "\n".join([heading, rule, *of_case.values()]) + "\n" + tail
    if case.is_told:
        head, middle, tail = _between(text, CASES)
        known = {part.split(":")[0].strip(): "### " + part.strip() for part in middle.split("### ")[1:]}
        text = head + "\n\n".join((known | {case.name: section}).values()) + "\n" + tail
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--budget", help="of each case; else what it needs")
    parser.add_argument("--no-page", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heapsmith-tuned-") as name:
        folder = Path(name)
        cases = [case for case in make_cases(folder) if not chosen.cases or case.name in chosen.cases]
        prepare(cases, folder)
        each_s = parse_seconds(chosen.budget or "1m") + 3 * RECORDING_S
        began = time.monotonic()
        for number, case in enumerate(cases):
            left = format_seconds(each_s * (len(cases) - number))
            print(f"{case.name}: begins; about {left} left", file=sys.stderr, flush=True)
            found = measure(case, folder, chosen.budget or case.budget)
            row, section = render_row(case, found, stand(case, found)), render_case(case, found, folder)
            each_s = (time.monotonic() - began) / (number + 1)
            print(f"{section}\n\n{row}\n", flush=True)
            if not chosen.no_page:
                write_page(case, row, section)


if __name__ == "__main__":
    main()

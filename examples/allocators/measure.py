"""Measure the examples of docs/compare.md, and write their table there.

    python examples/allocators/measure.py --write docs/compare.md     # all of it, within about 23 minutes
    python examples/allocators/measure.py --resume --write docs/compare.md           # goes on where it was broken off
    python examples/allocators/measure.py --only b,e --minutes 5      # a part of it, to standard output

Each example is one call of `heapsmith advise` with nothing named but the command; some of them are asked again, to see
whether the answer stays the same; `noise` compares a program with itself 20 times. All that the docs say of these
programs in figures is written between two markers, anew after each part, so that nothing is lost when it is broken
off or a part fails. Needs flask for the second half of (a), redis-server and redis-benchmark for (c), g++ for (d);
what is not here is left out, and said.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"
PARTS = ("a", "b", "c", "d", "e", "noise")
NOISE_TRIALS = 20
NOISE_SECONDS = 95
"""Of the 23 minutes; the noise takes what it takes."""
FOLKLORE = ("glibc:arena_max=1", "glibc:arena_max=2", "jemalloc", "mimalloc2", "mimalloc3", "tcmalloc")
"""What people try first: the standings of these in the search are told."""
SPIKE = [
    "--ready", "{port}", "--load", f"{sys.executable} {HERE / 'spike.py'} {{port}}", "--settle", "1500ms",
    "--metric", "Requests/sec: ([0-9.]+)",
]  # fmt: skip
REDIS_LOAD = (
    "redis-benchmark -p {port} -q -n 20000 -r 20000 -d 400 -t set,lpush && redis-cli -p {port} flushall"
    " && redis-benchmark -p {port} -q -n 10000 -r 20000 -d 64 -t set"
)


class Example:
    """One call of `heapsmith advise`: what it is, its seconds of 23 minutes, and how often it is asked."""

    def __init__(self, key, title, seconds, options, command, *, asked=1, missing=None):
        self.key, self.title, self.seconds, self.asked, self.missing = key, title, seconds, asked, missing
        self.options, self.command = options, command


def examples(folder):
    """Return every example, in the order of the table."""
    python = sys.executable
    has_flask = importlib.util.find_spec("flask") is not None
    has_redis = shutil.which("redis-server") and shutil.which("redis-benchmark")
    source = folder / "large.cc"
    subprocess.run([python, HERE / "large_source.py", source], check=True)
    memory, time_ = ["--objective", "memory"], ["--objective", "time"]
    redis = ["redis-server", "--port", "{port}", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    redis_options = [
        "--ready", "{port}", "--load", REDIS_LOAD, "--settle", "600ms", "--metric", "SET: ([0-9.]+) requests"
    ]  # fmt: skip

    def numpy_arrays(title, size, seconds, asked=1):
        command = [python, str(HERE / "numpy_temporaries.py"), str(size)]
        return Example("b", f"(b) NumPy, {title} arrays", seconds, time_, command, asked=asked)

    def service(title, script, asked=1, missing=None):
        command = [python, str(HERE / script), "{port}"]
        return Example(
            "a", f"(a) web service, {title}", 165, [*memory, *SPIKE], command, asked=asked, missing=missing
        )

    return [
        service("standard library", "stdlib_service.py", asked=2),
        service("Flask", "flask_service.py", missing=None if has_flask else "flask"),
        numpy_arrays("100 KB", 100_000, 45),
        numpy_arrays("800 KB", 800_000, 150, asked=2),
        numpy_arrays("8 MB", 8_000_000, 70),
        numpy_arrays("64 MB", 64_000_000, 70),
        Example(
            "c", "(c) redis-server under redis-benchmark", 140, redis_options, redis,
            missing=None if has_redis else "redis-server and redis-benchmark",
        ),
        Example(
            "d", "(d) g++ -O1 on a large file", 105, [],
            ["g++", "-O1", "-c", str(source), "-o", str(folder / "large.o")],
            missing=None if shutil.which("g++") else "g++",
        ),
        Example(
            "e", "(e) dictionaries and JSON", 35, ["--same-output"], [python, str(HERE / "dictionaries.py")],
            asked=2,
        ),
    ]  # fmt: skip


def heapsmith(*words):
    """Run heapsmith and return its JSON document; what it says of its progress goes to standard error."""
    done = subprocess.run([sys.executable, "-m", "heapsmith", *words], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


class Documents:
    """What was measured, kept in a file after each part."""

    def __init__(self, path, *, resume):
        self.path = path
        self.kept = json.loads(path.read_text()) if resume and path.is_file() else {}

    def get(self, key, measure):
        """Return what is kept under a key, or measure it; None if that fails, which is said by heapsmith itself."""
        if key not in self.kept:
            try:
                self.kept[key] = measure()
            except (subprocess.CalledProcessError, json.JSONDecodeError):
                return None
            part = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            part.write_text(json.dumps(self.kept, indent=1))
            part.replace(self.path)
        return self.kept[key]


def answer_of(advice):
    """Write the answer of one call."""
    if advice["allocator"]:
        return f"`{advice['allocator']}`"
    if advice["without_a_try"]:
        return f"nothing better found ({advice['without_a_try']} settings without a try)"
    return "nothing to gain"


def change(results, figure, unit, scale=1):
    """Write what a figure was today, and what it is with the answer; nothing where it was not measured."""
    before, after = results
    old, new, difference = before[figure]["median"], after[figure]["median"], after["differences"].get(figure)
    if old is None or new is None or difference is None:
        return ""
    interval = "" if difference["low"] is None else f" ({difference['low']:.2f}–{difference['high']:.2f})"
    old, new = (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" for value in (old / scale, new / scale))
    return f"{old} → {new} {unit}: {difference['ratio']:.2f}{interval}"


def row(title, advice):
    """Write one row of the table of answers."""
    if advice["evidence"] is None:
        return f"| {title} | {answer_of(advice)} | | | |"
    results = advice["evidence"]["results"]
    settled = change(results, "resident_bytes_settled", "MiB", MIB)
    settled = settled or change(results, "resident_bytes_mean", "MiB", MIB)
    speed = change(results, "throughput", "/s") or change(results, "time_s", "s")
    tried = "" if advice["allocator"] else f" (best of the search: `{results[1]['allocator']}`)"
    peak = change(results, "resident_bytes_peak", "MiB", MIB)
    return f"| {title} | {answer_of(advice)}{tried} | {speed} | {settled} | {peak} |"


def story(title, advices):
    """Say in a sentence or three what an example showed, its repeats and the folklore among what was tried."""
    said = [advices[0]["recommendation"]]
    if len(advices) > 1:
        answers = [f"`{one['allocator']}`" if one["allocator"] else "to keep what is" for one in advices]
        same = "the same" if len(set(answers)) == 1 else "once each " + " and ".join(answers)
        said.append(f"asked {len(advices)} times, the answer was {same}")
    search = {one["allocator"]: one["cost_ratio"] for one in advices[0]["search"]}
    known = [f"`{name}` {search[name]:.2f}" for name in FOLKLORE if search.get(name)]
    if known:
        said.append(f"in the search (cost for {advices[0]['objective']}, today = 1): {', '.join(known)}")
    return f"- **{title}**: {'; '.join(said)}."


def measure_noise(documents, tell):
    """Compare a program with itself and count how often any figure seems to differ."""
    command = [sys.executable, str(HERE / "dictionaries.py")]
    pair = ["-a", "system", "-a", "system", "--runs", "6", "--json"]
    found = []
    for trial in range(NOISE_TRIALS):
        tell(f"noise: {trial + 1} of {NOISE_TRIALS}")
        document = documents.get(f"noise {trial}", lambda: heapsmith("compare", *pair, "--", *command))
        if document is not None:
            found.append(
                any(one["more_than_noise"] for one in document["results"][1]["differences"].values())
            )
    return (
        f"- **(e) compared with itself** {len(found)} times, six runs each: no figure differed in"
        f" {found.count(False)} of them, some figure seemed to in {found.count(True)}."
    )


def describe_machine():
    """One sentence of what the figures depend on."""
    document = heapsmith("allocators", "--json")
    versions = ", ".join(
        f"{one['name']} {one['version']}" for one in document if one["here"] and one["version"]
    )
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"Measured on {os.cpu_count()} processors ({model}), Linux {platform.release()}, "
        f"CPython {platform.python_version()}, {versions}; the load average was {os.getloadavg()[0]:.1f} before."
    )


class Report:
    """What has been measured so far, written after each part."""

    def __init__(self, machine, target):
        self.machine, self.target, self.rows, self.remarks = machine, target, [], []

    def render(self):
        """Make the text between the markers."""
        head = (
            "| program | answer | throughput or time | resident, after the load or average | resident, peak |"
        )
        lines = [self.machine, "", head, "|---|---|---|---|---|", *self.rows]
        lines += ["", *self.remarks] if self.remarks else []
        return "\n".join(lines)

    def write(self):
        """Put it between the markers of the target."""
        if self.target is None:
            return
        before, _, rest = self.target.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        self.target.write_text(f"{before}{BEGIN}\n{self.render()}\n{END}{after}")


def run(wanted, minutes, documents, report):
    """Measure the parts that are wanted."""
    began = time.monotonic()

    def tell(text):
        spent = (time.monotonic() - began) / 60
        print(f"[{spent:4.1f} of {minutes:g} min] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        chosen = [one for one in examples(Path(folder)) if one.key in wanted]
        planned = sum(one.seconds * one.asked for one in chosen if not one.missing)
        for_noise = NOISE_SECONDS * ("noise" in wanted)
        share = max(0.1, (60 * minutes - for_noise) / max(1, planned))
        for one in chosen:
            if one.missing:
                report.remarks.append(f"- **{one.title}**: left out, this machine lacks {one.missing}.")
                continue
            budget = f"{max(10, round(one.seconds * share))}s"
            words = ["advise", *one.options, "--budget", budget, "--json", "--", *one.command]
            advices = []
            for turn in range(one.asked):
                tell(f"{one.title}{' (again)' if turn else ''}, {budget}")
                advice = documents.get(f"{one.title}, {turn}", lambda words=words: heapsmith(*words))
                if advice is None:
                    report.remarks.append(f"- **{one.title}**: could not be measured.")
                    break
                advices.append(advice)
            if advices:
                report.rows.append(row(one.title, advices[0]))
                report.remarks.append(story(one.title, advices))
            report.write()
        if "noise" in wanted:
            report.remarks.append(measure_noise(documents, tell))
            report.write()
    tell("done")


def main():
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by letter")
    parser.add_argument("--minutes", type=float, default=23.0, help="for all of them together")
    parser.add_argument("--write", type=Path, help=f"a Markdown file with {BEGIN} and {END}")
    parser.add_argument(
        "--save",
        type=Path,
        default=Path(tempfile.gettempdir()) / "heapsmith-examples.json",
        help="keep all documents here (%(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="measure only what is not kept there")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    if arguments.write and not {BEGIN, END} <= set(arguments.write.read_text().splitlines()):
        parser.error(f"{arguments.write} has no lines {BEGIN} and {END}")
    report = Report(describe_machine(), arguments.write)
    try:
        run(wanted, arguments.minutes, Documents(arguments.save, resume=arguments.resume), report)
    except KeyboardInterrupt:
        print("broken off: --resume goes on from here", file=sys.stderr)
    print(report.render())


if __name__ == "__main__":
    main()

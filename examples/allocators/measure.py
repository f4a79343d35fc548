"""Measure the examples of docs/compare.md, and write their table there.

    python examples/allocators/measure.py --write docs/compare.md     # all of it, within 25 minutes
    python examples/allocators/measure.py --only b,e --minutes 5      # a part of it, to standard output

Each example is one call of `heapsmith advise` with nothing named but the command; two of them are asked again, to see
whether the answer stays the same; `noise` compares a program with itself 20 times. The table is written anew after
each, between two markers, so that nothing is lost when it is broken off. Needs flask for the second half of (a),
redis-server and redis-benchmark for (c), g++ for (d); what is not here is left out, and said.
"""

import argparse
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KIB = 1024
BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"
NOISE_TRIALS = 20
NOISE_SHARE = 9
"""Of the weights below, what the noise takes."""
SPIKE = [
    "--ready", "{port}", "--load", f"{sys.executable} {HERE / 'spike.py'} {{port}}", "--settle", "1500ms",
    "--metric", "Requests/sec: ([0-9.]+)",
]  # fmt: skip
REDIS_LOAD = (
    "redis-benchmark -p {port} -q -n 60000 -r 60000 -d 400 -t set,lpush && redis-cli -p {port} flushall"
    " && redis-benchmark -p {port} -q -n 30000 -r 60000 -d 64 -t set"
)


class Example:
    """One call of `heapsmith advise`: what it is, what it weighs of the time there is, and whether it is repeated."""

    def __init__(self, key, title, weight, options, command, *, repeats=1, missing=None):
        self.key, self.title, self.weight, self.repeats, self.missing = key, title, weight, repeats, missing
        self.options, self.command = options, command


def examples(folder):
    """Return every example, in the order of the table."""
    found = []
    for name, title in (("stdlib", "web service, standard library"), ("flask", "web service, Flask")):
        is_here = name != "flask" or importlib.util.find_spec("flask") is not None
        command = [sys.executable, str(HERE / f"{name}_service.py"), "{port}"]
        found.append(
            Example(
                "a", f"(a) {title}", 26, ["--objective", "memory", *SPIKE], command,
                missing=None if is_here else "flask",
            )
        )  # fmt: skip
    for size, title in ((100_000, "100 KB"), (800_000, "800 KB"), (8_000_000, "8 MB"), (64_000_000, "64 MB")):
        command = [sys.executable, str(HERE / "numpy_temporaries.py"), str(size)]
        repeats = 2 if size == 800_000 else 1
        found.append(
            Example("b", f"(b) NumPy, {title} arrays", 7, ["--objective", "time"], command, repeats=repeats)
        )
    service = ["--ready", "{port}", "--load", REDIS_LOAD, "--metric", "SET: ([0-9.]+) requests"]
    command = ["redis-server", "--port", "{port}", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    has_redis = shutil.which("redis-server") and shutil.which("redis-benchmark")
    found.append(
        Example(
            "c", "(c) redis-server under redis-benchmark", 14, service, command,
            missing=None if has_redis else "redis-server and redis-benchmark",
        )
    )  # fmt: skip
    source = folder / "large.cc"
    subprocess.run([sys.executable, str(HERE / "large_source.py"), str(source)], check=True)
    command = ["g++", "-O1", "-c", str(source), "-o", str(folder / "large.o")]
    found.append(
        Example(
            "d",
            "(d) g++ -O1 on a large file",
            12,
            [],
            command,
            missing=None if shutil.which("g++") else "g++",
        )
    )
    command = [sys.executable, str(HERE / "dictionaries.py")]
    found.append(Example("e", "(e) dictionaries and JSON", 6, ["--same-output"], command, repeats=2))
    return found


def heapsmith(*words):
    """Run heapsmith and return its JSON document; what it says of its progress goes to standard error."""
    done = subprocess.run([sys.executable, "-m", "heapsmith", *words], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def row(title, advice):
    """Write one row of the table of answers."""
    if advice["evidence"] is None:
        return f"| {title} | {advice['recommendation']} | | | |"
    before, after = advice["evidence"]["results"]

    def change(figure, scale, unit):
        old, new = before[figure]["median"], after[figure]["median"]
        difference = after["differences"].get(figure)
        if old is None or new is None or difference is None:
            return ""
        interval = "" if difference["low"] is None else f" ({difference['low']:.2f}–{difference['high']:.2f})"
        return f"{old / scale:.3g} → {new / scale:.3g} {unit}: {difference['ratio']:.2f}{interval}"

    settled = change("resident_bytes_settled", KIB**2, "MiB") or change("resident_bytes_mean", KIB**2, "MiB")
    speed = change("throughput", 1, "/s") or change("time_s", 1, "s")
    answer = f"`{advice['allocator']}`" if advice["allocator"] else "nothing to gain"
    tried = "" if advice["allocator"] else f" (best tried: `{after['allocator']}`)"
    peak = change("resident_bytes_peak", KIB**2, "MiB")
    return f"| {title} | {answer}{tried} | {speed} | {settled} | {peak} |"


def measure_noise(tell):
    """Compare a program with itself and count how often any figure seems to differ."""
    command = [sys.executable, str(HERE / "dictionaries.py")]
    found = 0
    for trial in range(NOISE_TRIALS):
        tell(f"noise: {trial + 1} of {NOISE_TRIALS}")
        pair = ["-a", "system", "-a", "system", "--runs", "6", "--json"]
        differences = heapsmith("compare", *pair, "--", *command)["results"][1]["differences"].values()
        found += any(difference["more_than_noise"] for difference in differences)
    return f"(e) compared with itself {NOISE_TRIALS} times, six runs each: a difference was seen in {found}."


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
    load = Path("/proc/loadavg").read_text().split()[0]
    return (
        f"Measured on {len(list(Path('/sys/devices/system/cpu').glob('cpu[0-9]*')))} processors ({model}), Linux "
        f"{platform.release()}, CPython {platform.python_version()}, {versions}; the load average was {load} before."
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


def main():
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="a,b,c,d,e,noise", help="parts, by letter")
    parser.add_argument("--minutes", type=float, default=23.0, help="for all of them together")
    parser.add_argument("--write", type=Path, help=f"a Markdown file with {BEGIN} and {END}")
    parser.add_argument("--save", type=Path, help="keep all documents here, as JSON")
    arguments = parser.parse_args()
    if arguments.write and not {BEGIN, END} <= set(arguments.write.read_text().splitlines()):
        parser.error(f"{arguments.write} has no lines {BEGIN} and {END}")
    wanted = set(arguments.only.split(","))
    began = time.monotonic()
    documents = []
    report = Report(describe_machine(), arguments.write)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [one for one in examples(Path(folder)) if one.key in wanted]
        weights = sum(one.weight * one.repeats for one in chosen) + NOISE_SHARE * ("noise" in wanted)

        def tell(text):
            spent = (time.monotonic() - began) / 60
            print(f"[{spent:4.1f} of {arguments.minutes:g} min] {text}", file=sys.stderr, flush=True)

        for one in chosen:
            if one.missing:
                report.remarks.append(f"{one.title}: left out, this machine lacks {one.missing}.")
                continue
            budget = f"{max(10, round(60 * arguments.minutes * one.weight / weights))}s"
            answers = []
            for turn in range(one.repeats):
                again = " (again)" if turn else ""
                tell(f"{one.title}{again}, {budget}")
                advice = heapsmith("advise", *one.options, "--budget", budget, "--json", "--", *one.command)
                documents.append({"example": one.title, "advice": advice})
                answers.append(advice["allocator"])
                if turn == 0:
                    report.rows.append(row(one.title, advice))
                report.write()
            if one.repeats > 1:
                same = (
                    "the same answer"
                    if len(set(answers)) == 1
                    else f"other answers: {', '.join(map(str, answers))}"
                )
                report.remarks.append(f"{one.title}, asked {one.repeats} times: {same}.")
        if "noise" in wanted:
            report.remarks.append(measure_noise(tell))
    report.write()
    print(report.render())
    if arguments.save:
        arguments.save.write_text(json.dumps(documents, indent=1))
    tell("done")


if __name__ == "__main__":
    main()

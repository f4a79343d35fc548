"""Measure the examples of docs/compare.md and print its tables.

    python examples/allocators/measure.py [--repeat 2] [--only a,b,c,d,e,noise] [--save figures.json]

Each example is one call of `heapsmith advise` with nothing named but the command; `noise` compares the
program with itself 20 times. Needs flask for the second half of (a), redis-server and redis-benchmark for
(c), g++ for
(d).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
KIB = 1024
SPIKE = [
    "--ready", "{port}", "--load", f"{sys.executable} {HERE / 'spike.py'} {{port}}", "--settle", "1500ms",
    "--metric", "Requests/sec: ([0-9.]+)",
]  # fmt: skip
REDIS_LOAD = (
    "redis-benchmark -p {port} -q -n 60000 -r 60000 -d 400 -t set,lpush && redis-cli -p {port} flushall"
    " && redis-benchmark -p {port} -q -n 30000 -r 60000 -d 64 -t set"
)


def examples(folder):
    """Yield (key, title, options, command) of every example."""
    for name, title in (("stdlib", "web service, standard library"), ("flask", "web service, Flask")):
        yield (
            "a", f"(a) {title}", ["--objective", "memory", "--budget", "8m", *SPIKE],
            [sys.executable, str(HERE / f"{name}_service.py"), "{port}"],
        )  # fmt: skip
    for size, title in (
        (100 * 1000, "100 KB"),
        (800 * 1000, "800 KB"),
        (8_000_000, "8 MB"),
        (64_000_000, "64 MB"),
    ):
        yield (
            "b", f"(b) NumPy, {title} arrays", ["--objective", "time", "--budget", "90s"],
            [sys.executable, str(HERE / "numpy_temporaries.py"), str(size)],
        )  # fmt: skip
    yield (
        "c", "(c) redis-server under redis-benchmark",
        ["--budget", "3m", "--ready", "{port}", "--load", REDIS_LOAD, "--metric", "SET: ([0-9.]+) requests"],
        ["redis-server", "--port", "{port}", "--save", "", "--appendonly", "no", "--dir", str(folder)],
    )  # fmt: skip
    source = folder / "large.cc"
    subprocess.run([sys.executable, str(HERE / "large_source.py"), str(source)], check=True)
    yield (
        "d", "(d) g++ -O1 on a large file", ["--budget", "3m"],
        ["g++", "-O1", "-c", str(source), "-o", str(folder / "large.o")],
    )  # fmt: skip
    yield (
        "e", "(e) dictionaries and JSON", ["--budget", "2m", "--same-output"],
        [sys.executable, str(HERE / "dictionaries.py")],
    )  # fmt: skip


def heapsmith(*words):
    """Run heapsmith and return its JSON document."""
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


def measure_noise(trials=20):
    """Compare a program with itself and count how often any figure seems to differ."""
    found = 0
    for _ in range(trials):
        command = [sys.executable, str(HERE / "dictionaries.py")]
        document = heapsmith(
            "compare", "-a", "system", "-a", "system", "--runs", "6", "--json", "--", *command
        )
        differences = document["results"][1]["differences"].values()
        found += any(difference["more_than_noise"] for difference in differences)
    return f"compared with itself {trials} times: a difference seen in {found}"


def main():
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", default="a,b,c,d,e,noise")
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    wanted = set(arguments.only.split(","))
    documents = []
    print("| program | answer | throughput or time | resident, after the load or average | resident, peak |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for key, title, options, command in examples(Path(folder)):
            for _ in range(arguments.repeat if key in wanted else 0):
                advice = heapsmith("advise", *options, "--json", "--", *command)
                documents.append({"example": title, "advice": advice})
                print(row(title, advice), flush=True)
    if "noise" in wanted:
        print(f"\n{measure_noise()}")
    if arguments.save:
        arguments.save.write_text(json.dumps(documents, indent=1))


if __name__ == "__main__":
    main()

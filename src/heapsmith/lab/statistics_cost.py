"""What the statistics call costs: asked in the program, read from another process, scraped by Prometheus.

Each way is measured beside what people use for the same question today, in turn and in the same run: the allocator's own
statistics for the call, psutil for another process.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil

from heapsmith.errors import CheckError
from heapsmith.lab.bench import Ratio
from heapsmith.lab.statistics import Spread, compute_difference, compute_spread
from heapsmith.native import library
from heapsmith.peers.candidate import Candidate, read_candidate
from heapsmith.peers.register import find
from heapsmith.run import kernel
from heapsmith.run.gauges import GaugeReader
from heapsmith.run.launch import WATCH_LIBRARY
from heapsmith.run.launched import PRELOAD_VARIABLE
from heapsmith.run.region import Region
from heapsmith.units import format_count
from heapsmith.wire.region import REGION_MEMFD

CASES: Final = ("call", "read", "scrape")
_PROGRAM: Final = "heapsmith_statistics_cost"
_FAST: Final = "FAST"
_THREADS: Final = (0, 1, 8, 64)
_BLOCKS: Final = (0, 100_000)
_FIELD: Final = ("glibc", "jemalloc", "tcmalloc")
_SCRAPED: Final = 50
_THREADS_OF_SCRAPED: Final = 2
_LOOKS: Final = 100
_TIMEOUT_S: Final = 120
_READY_S: Final = 30.0


class StatisticsCase(msgspec.Struct, frozen=True, kw_only=True):
    """One question, asked in one way.

    Args:
        name: The way and the question.
        way: How it is asked.
        question: What is asked about.
        allocator: Who answers malloc in the process that is asked about.
        time_s: Seconds for one answer.
        time_ratio: The same against `against`, in the same run.
        against: The case that it is compared with; empty where it is the one.
    """

    way: str
    question: str
    allocator: str
    time_s: Spread
    time_ratio: Ratio
    against: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        """Join the name."""
        msgspec.structs.force_setattr(self, "name", f"{self.way}, {self.question}")


OnCase = Callable[[StatisticsCase], None]


def select_cases(names: Sequence[str]) -> list[str]:
    """Choose what is measured; nothing named is all.

    Raises:
        CheckError: A name that is none.

    Example:
        >>> select_cases([]), select_cases(["read"])
        (['call', 'read', 'scrape'], ['read'])
    """
    for name in names:
        if name not in CASES:
            raise CheckError(
                f"there is nothing called {name!r} to measure", hint="there are " + ", ".join(CASES)
            )
    return [name for name in CASES if not names or name in names]


def measure_statistics_cost(
    names: Sequence[str],
    runs: int,
    on_case: OnCase = lambda _: None,
    begins: Callable[[str], None] = lambda _: None,
) -> list[StatisticsCase]:
    """Measure what was chosen.

    Args:
        names: Of `CASES`.
        runs: How often each is measured, in a process of its own.
        on_case: Told of each case when it is known.
        begins: Told what is being done.
    """
    measures = {"call": _measure_calls, "read": _measure_reading, "scrape": _measure_scrape}
    cases = list[StatisticsCase]()
    for name in names:
        for case in measures[name](runs, begins):
            on_case(case)
            cases.append(case)
    return cases


def _measure_calls(runs: int, begins: Callable[[str], None]) -> Generator[StatisticsCase]:
    """The call in the program, by threads and blocks, beside the allocator's own."""
    field = [read_candidate(name) for name in _FIELD if find(name).here]
    settings = [(threads, blocks) for blocks in _BLOCKS for threads in _THREADS]
    for candidate in field:
        seconds = defaultdict[tuple[int, int, str], list[float]](list)
        for run in range(runs):
            for place in range(len(settings)):
                threads, blocks = settings[(run + place) % len(settings)]
                begins(f"{candidate.label}: {threads} threads, {blocks} blocks, run {run + 1} of {runs}")
                for way, found_s in _ask(candidate, threads, blocks).items():
                    seconds[threads, blocks, way].append(found_s)
        plainest = f"{_FAST}, {_describe(*settings[0])}"
        for threads, blocks in settings:
            fast = f"{_FAST}, {_describe(threads, blocks)}"
            for way in dict.fromkeys(way for _, _, way in seconds):
                found = seconds[threads, blocks, way]
                against = (*settings[0], _FAST) if way == _FAST else (threads, blocks, _FAST)
                name = f"{way}, {_describe(threads, blocks)}"
                yield StatisticsCase(
                    way=way,
                    question=_describe(threads, blocks),
                    allocator=candidate.label,
                    time_s=compute_spread(found),
                    time_ratio=_ratio(seconds[against], found),
                    against="" if name == plainest else plainest if way == _FAST else fast,
                )


def _describe(threads: int, blocks: int) -> str:
    return f"{threads} other threads, {format_count(blocks)} blocks"


def _ask(candidate: Candidate, threads: int, blocks: int) -> dict[str, float]:
    done = subprocess.run(
        [library(_PROGRAM), str(threads), str(blocks)],
        env=_watched(candidate),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise CheckError(f"the call cannot be measured on {candidate.label}", f"exit code {done.returncode}")
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return {way: float(ns) / 1e9 for way, ns in rows}


def _watched(candidate: Candidate) -> dict[str, str]:
    environment = candidate.environment(os.environ)
    behind = environment.get(PRELOAD_VARIABLE)
    watch = str(library(WATCH_LIBRARY))
    return environment | {PRELOAD_VARIABLE: f"{watch}:{behind}" if behind else watch}


@contextlib.contextmanager
def _holding(count: int, threads: int) -> Generator[list[int]]:
    """Watched processes that have allocated in so many threads and stay: their pids."""
    environment = _watched(read_candidate("glibc"))
    children = list[subprocess.Popen[bytes]]()
    try:
        for _ in range(count):
            children.append(
                subprocess.Popen(
                    [library(_PROGRAM), "hold", str(threads)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
        for child in children:
            if child.stdout is None or child.stdout.readline().strip() != b"ready":
                raise CheckError("a process to look at could not be started")
        yield [child.pid for child in children]
    finally:
        for child in children:
            child.communicate()


def _measure_reading(runs: int, begins: Callable[[str], None]) -> Generator[StatisticsCase]:
    """Another process's region: finding and mapping it, and reading what operators follow."""
    attached, read, asked = list[float](), list[float](), list[float]()
    with _holding(1, threads=8) as (pid,):
        other = psutil.Process(pid)
        for run in range(runs):
            begins(f"another process: run {run + 1} of {runs}")
            a, r, p = list[float](), list[float](), list[float]()
            with (
                contextlib.closing(Region(_find_region(pid))) as region,
                contextlib.closing(GaugeReader(region)) as gauges,
            ):
                for _ in range(_LOOKS):
                    a.append(_time(lambda: Region(_find_region(pid)).close()))
                    r.append(_time(lambda g=gauges: _read(g)))
                    p.append(_time(other.memory_info))
            attached.append(statistics.median(a))
            read.append(statistics.median(r))
            asked.append(statistics.median(p))
    yield from _beside_psutil("another process", asked, {"attach": attached, "read live, peak, limit": read})


def _find_region(pid: int) -> Path:
    return kernel.open_memory_files(pid, REGION_MEMFD)[0]


def _read(gauges: GaugeReader) -> tuple[int, int, int]:
    return gauges.live_bytes(), gauges.number("live_bytes_peak"), gauges.number("limit_bytes")


def _time(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def _measure_scrape(runs: int, begins: Callable[[str], None]) -> Generator[StatisticsCase]:
    """What Prometheus waits for: the endpoint's whole answer, over HTTP."""
    scraped, asked = list[float](), list[float]()
    with _holding(_SCRAPED, _THREADS_OF_SCRAPED) as pids, _endpoint() as address:
        others = [psutil.Process(pid) for pid in pids]
        count = _wait_for_series(address, _SCRAPED)
        for run in range(runs):
            begins(f"scrape: run {run + 1} of {runs}")
            scraped.append(statistics.median(_time(lambda: _get(address)) for _ in range(5)))
            asked.append(
                statistics.median(_time(lambda: [other.memory_info() for other in others]) for _ in range(5))
            )
    yield from _beside_psutil(f"{count} watched processes", asked, {"scrape": scraped})


def _beside_psutil(
    question: str, asked: Sequence[float], ways: dict[str, list[float]]
) -> Generator[StatisticsCase]:
    baseline = "psutil memory_info"
    for way, found in ({baseline: asked} | ways).items():
        yield StatisticsCase(
            way=way,
            question=question,
            allocator="glibc",
            time_s=compute_spread(found),
            time_ratio=_ratio(asked, found),
            against="" if way == baseline else f"{baseline}, {question}",
        )


@contextlib.contextmanager
def _endpoint() -> Generator[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "heapsmith", "metrics", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        line = server.stderr.readline() if server.stderr is not None else ""
        found = re.search(r"http://\S+", line)
        if found is None:
            raise CheckError("the metrics endpoint did not start", line.strip())
        yield found[0]
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
        return answer.read()


def _wait_for_series(address: str, count: int) -> int:
    """How many processes the endpoint shows, once it shows at least so many."""
    until = time.monotonic() + _READY_S
    while True:
        seen = len(re.findall(rb"^heapsmith_info\{", _get(address), re.MULTILINE))
        if seen >= count:
            return seen
        if time.monotonic() > until:
            raise CheckError(f"the endpoint shows {seen} of {count} processes")
        time.sleep(0.1)


def _ratio(baseline: Sequence[float], found: Sequence[float]) -> Ratio:
    if not baseline or not found:
        return Ratio(None, None, None)
    difference = compute_difference({"here": baseline}, {"here": found})
    return Ratio(difference.ratio, difference.low, difference.high)

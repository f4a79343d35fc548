"""`heapsmith bench stats`: what the call, reading and scraping cost, as a suite."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from heapsmith.lab.statistics_cost import measure_statistics_cost

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_reading_another_process_is_measured_beside_psutil(heapsmith: Cli) -> None:
    done = heapsmith("bench", "stats", "read", "--runs", "1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "heapsmith.bench/1"
    (suite,) = document["suites"]
    cases = {case["way"]: case for case in suite["cases"]}
    assert set(cases) == {"psutil memory_info", "attach", "read live, peak, limit"}
    for case in cases.values():
        assert 0 < case["time_s"]["median"] < 1
        assert case["name"] == f"{case['way']}, another process" and case["time_ratio"]["ratio"] > 0
    shown = heapsmith("bench", "stats", "read", "--runs", "1").stdout
    assert "attach" in shown and "psutil memory_info" in shown


def test_the_call_is_measured_by_threads_and_blocks_beside_each_allocators_own() -> None:
    cases = measure_statistics_cost(["call"], 1)
    glibc = [case for case in cases if case.allocator == "glibc"]
    questions = {case.question for case in glibc}
    assert {"0 other threads, 0 blocks", "64 other threads, 100,000 blocks"} <= questions
    assert {case.way for case in glibc} == {"FAST", "EXACT", "mallinfo2"}
    # What walks the free blocks is thousands of times slower than what does not: far from any noise.
    walked = next(
        c for c in glibc if c.way == "mallinfo2" and c.question == "0 other threads, 100,000 blocks"
    )
    assert walked.time_ratio.ratio is not None and walked.time_ratio.ratio > 20


def test_what_cannot_be_measured_is_one_line(heapsmith: Cli) -> None:
    for words, says in ((["nope"], "there are call, read, scrape"), (["read", "--runs", "0"], "1 or more")):
        done = heapsmith("bench", "stats", *words)
        assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1

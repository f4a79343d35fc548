"""The page in a real browser, and rounds on a real cluster of two workers."""

import io
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from heapsmith.lab.compare import Laboratory, compare
from heapsmith.lab.executors import Workers
from heapsmith.lab.ledger import Ledger
from heapsmith.lab.rehearsal import rehearse
from heapsmith.lab.trials import Workload
from heapsmith.peers.candidate import read_candidates

PROGRAM = [sys.executable, "-I", "-S", "-c", "x = bytearray(8 << 20); import time; time.sleep(0.1)"]


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_the_page_shows_its_figures_and_asks_the_network_for_nothing(tmp_path) -> None:
    from playwright.sync_api import sync_playwright

    page = tmp_path / "page.html"
    words = [
        "compare",
        "-a",
        "glibc",
        "-a",
        "jemalloc",
        "-a",
        "glibc:python=mimalloc",
        "--runs",
        "6",
        "-o",
        str(page),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "heapsmith", *words, "--", sys.executable, *PROGRAM[3:]],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked, complaints = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("HEAPSMITH_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        tab = browser.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        tab.goto(page.as_uri())
        tab.wait_for_function("document.querySelectorAll('.bk-Figure').length >= 3", timeout=20000)
        text = tab.inner_text("body")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert complaints == []
    for words_there in (
        "jemalloc",
        "Time against resident bytes",
        "Resident bytes over time",
        "out: exit code",
    ):
        assert words_there in text


def test_a_page_survives_hostile_names(tmp_path) -> None:
    from heapsmith.lab.comparison import compute_comparison
    from heapsmith.show.compare_page import render_page

    workload = Workload(
        command=("echo", "<script>alert(1)</script>"), directory="/", environment=dict(os.environ)
    )
    candidates = read_candidates(["system", "glibc"])
    text = render_page(compute_comparison(workload, candidates, []), "</script><b>x", ["<i>"])
    assert "<script>alert(1)" not in text
    assert "</script><b>x" not in text


def test_labels_of_points_that_lie_together_do_not_cover_each_other() -> None:
    from heapsmith.show.compare_page import place_labels

    places = place_labels([(200.0 + 3 * number, 180.0) for number in range(6)], ["glibc:arena_max=1"] * 6)
    assert len(set(places)) == 6
    for side in (-1, 1):
        rises = sorted(rise for place, rise in places if place == side)
        assert all(higher - lower >= 14 for lower, higher in itertools.pairwise(rises))


def test_a_table_too_wide_for_the_terminal_becomes_several_that_fit() -> None:
    from rich.console import Console

    from heapsmith.lab.comparison import compute_comparison
    from heapsmith.show.compare import render_comparison, shown_figures

    with ThreadPoolExecutor(2) as executor:
        lab = laboratory(Workers(executor, 2))
        candidates = read_candidates(["system", "glibc:arena_max=1"])
        lab.run_rounds(candidates, range(2), "compare")
    comparison = compute_comparison(lab.workload, candidates, lab.outcomes)
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(render_comparison(comparison, "keep it"))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("allocator" in line for line in lines) > 1
    assert "…" not in capture.get()
    for figure in shown_figures(comparison):
        assert figure.title.split(", ")[-1] in capture.get()


def test_lines_to_paste_stay_whole_in_a_narrow_terminal(capsys) -> None:
    from rich.console import Group

    from heapsmith.show.terminal import Verbatim, print_text

    print_text(Group("found", Verbatim("[Service]\n" + "x" * 300)))
    assert capsys.readouterr().out.splitlines() == ["found", "[Service]", "x" * 300]


def laboratory(workers: Workers) -> Laboratory:
    workload = Workload(command=tuple(PROGRAM), directory="/", environment=dict(os.environ))
    return Laboratory(workload, rehearse(workload), Ledger(workload), workers=workers)


def test_rounds_run_on_any_executor_and_are_compared_within_a_worker() -> None:
    with ThreadPoolExecutor(2) as executor:
        lab = laboratory(Workers(executor, 2))
        result = compare(lab, read_candidates(["system", "glibc:arena_max=1"]), 8)
    assert [item.runs for item in result.results] == [8, 8]
    assert result.workers == 2
    rounds = {(outcome.round, outcome.worker) for outcome in lab.outcomes}
    assert len(rounds) == 8


def test_a_dask_cluster_of_two_workers_takes_part(two_dask_workers) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "heapsmith", "compare", "-a", "glibc", "-a", "glibc:arena_max=1",
            "--executor", two_dask_workers, "--runs", "10", "--json", "--", *PROGRAM,
        ],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["workers"] == 2
    assert [result["runs"] for result in document["results"]] == [10, 10]


def test_advice_uses_all_workers_of_a_cluster(two_dask_workers) -> None:
    words = [
        "advise",
        "--budget",
        "25s",
        "--executor",
        two_dask_workers,
        "--json",
        "--",
        "sleep",
        "0.1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "heapsmith", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "nothing"
    assert max(item["rounds"] for item in document["search"]) >= 2


def test_a_scheduler_that_does_not_answer_is_said_to() -> None:
    pytest.importorskip("distributed")
    done = subprocess.run(
        [
            sys.executable, "-m", "heapsmith", "compare", "-a", "glibc", "--runs", "1", "--executor",
            "dask://127.0.0.1:9", "--", "true",
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no Dask scheduler answers" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr

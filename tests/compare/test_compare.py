"""`heapsmith compare` as the person at the terminal meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GROW = "x = [bytearray(1 << 20) for _ in range({})]; import time; time.sleep(0.05)"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def heapsmith(*words: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heapsmith", *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **more,
    )


def program(code: str) -> list[str]:
    return ["--", sys.executable, "-I", "-S", "-c", code]


def test_the_document_has_every_candidate_with_intervals_and_verdicts() -> None:
    done = heapsmith(
        "compare", "-a", "glibc", "-a", "jemalloc", "--runs", "6", "--json", *program(GROW.format(8))
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "heapsmith.compare/1"
    assert [result["allocator"] for result in document["results"]] == ["glibc", "jemalloc"]
    for result in document["results"]:
        assert result["runs"] == 6
        assert result["failed"] is None
        for name in ("time_s", "cpu_s", "resident_bytes_peak", "resident_bytes_mean", "page_faults"):
            spread = result[name]
            assert spread["low"] <= spread["median"] <= spread["high"]
        assert result["throughput"]["median"] is None
    differences = document["results"][1]["differences"]
    assert differences["resident_bytes_peak"]["more_than_noise"] in (True, False)
    assert document["results"][1]["environment"] == {"LD_PRELOAD": document["results"][1]["library"]}
    assert isinstance(document["recommendation"], str)


def test_a_candidate_that_fails_is_out_with_its_reason_and_the_others_go_on() -> None:
    code = "import os, sys; sys.exit(5 if os.environ.get('PYTHONMALLOC') == 'malloc' else 0)"
    words = ["compare", "-a", "system", "-a", "glibc:python=malloc", "-a", "glibc", "--runs", "2"]
    command = ["--", sys.executable, "-S", "-c", code]
    done = heapsmith(*words, "--json", *command)
    assert done.returncode == 0, done.stderr
    results = {result["allocator"]: result for result in json.loads(done.stdout)["results"]}
    assert results["glibc:python=malloc"]["failed"] == "exit code 5"
    assert results["glibc:python=malloc"]["runs"] == 0
    assert results["glibc"]["runs"] == 2
    assert "glibc:python=malloc is out: exit code 5" in heapsmith(*words, *command).stdout


def test_same_output_puts_out_who_prints_something_else() -> None:
    code = "import os; print(os.environ.get('PYTHONMALLOC'))"
    done = heapsmith(
        "compare", "-a", "system", "-a", "glibc:python=malloc", "--same-output", "--runs", "2", "--json",
        "--", sys.executable, "-S", "-c", code,
    )  # fmt: skip
    failed = json.loads(done.stdout)["results"][1]["failed"]
    assert "standard output differs" in failed


def test_same_output_of_a_program_that_never_prints_the_same_is_refused() -> None:
    done = heapsmith(
        "compare", "-a", "glibc", "--same-output", *program("import time; print(time.time_ns())")
    )
    assert done.returncode == 2
    assert "differs from run to run" in done.stderr


def test_too_few_runs_are_said_to_be_too_few() -> None:
    done = heapsmith(
        "compare", "-a", "glibc", "-a", "glibc", "--runs", "3", "--json", *program(GROW.format(2))
    )
    document = json.loads(done.stdout)
    assert document["too_few_runs"] is True
    assert document["results"][0]["time_s"]["low"] is None
    assert "too few runs" in document["recommendation"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-a", "jemaloc", "--", "true"], "did you mean `jemalloc`"),
        (["-a", "glibc:arena_max=0,tcache_cnt=3", "--", "true"], "1 or more"),
        (["-a", "glibc:arena_max=0,tcache_cnt=3", "--", "true"], "`tcache_count`"),
        (["-a", "glibc", "--", "no-such-program-4711"], "there is no such program"),
        (["-a", "glibc", "--", "/etc/passwd"], "not executable"),
        (["-a", "glibc"], "no command"),
        (["-a", "glibc", "--runs", "0", "--", "true"], "--runs 0"),
        (["-a", "glibc", "--", "false"], "--expect-exit 1"),
        (["-a", "glibc", "--timeout", "300ms", "--", "sleep", "20"], "--ready"),
        (["-a", "glibc", "--load", "true", "--", "true"], "--ready"),
        (["-a", "glibc", "--settle", "1s", "--", "true"], "--ready"),
        (["-a", "glibc", "--metric", "x", "--", "true"], "groups"),
        (["-a", "glibc", "--metric", "([0-9]+)", "--", "echo", "none"], "--metric"),
        (["-a", "glibc", "--stop-signal", "BANANA", "--", "true"], "BANANA"),
        (["-a", "glibc", "-o", "/no/such/folder/x.html", "--", "true"], "folder"),
        (["-a", "glibc", "--executor", "spark://x", "--", "true"], "dask://"),
        (["-a", "glibc", "--settle", "soon", "--ready", "1", "--", "true"], "not a duration"),
        (["-a", "glibc", "--", sys.executable, "-c", "input()"], "no terminal"),
        (
            ["-a", "glibc", "--", "sh", "-c", "test -t 0 || { echo not a tty >&2; exit 3; }"],
            "needs a terminal",
        ),
        (["-a", "glibc", "--", "sh", "-c", "sleep 5 & exit 0"], "foreground"),
        (["-a", "defalt", "-a", "no.toml", "-a", "default:x=1", "--", "true"], "did you mean `default`"),
        (["-a", "defalt", "-a", "no.toml", "-a", "default:x=1", "--", "true"], "no.toml"),
        (["-a", "defalt", "-a", "no.toml", "-a", "default:x=1", "--", "true"], "no knob 'x'"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy_and_exit_code_2(words: list[str], says: str) -> None:
    done = heapsmith("compare", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("heapsmith: ")
    assert says in lines[0]


def test_arguments_and_variables_that_are_no_text_reach_the_program_as_they_are(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.exit(sys.argv[1:] != [os.environ['WORD']] or os.environb[b'WORD'] != b'\\xff')"
    )
    word = os.fsdecode(b"\xff")
    page = tmp_path / "x.html"
    done = heapsmith(
        "compare", "-a", "system", "-a", "glibc", "--runs", "2", "-o", str(page), *program(code), word,
        env={**os.environ, "WORD": word},
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert page.exists()


def wait_for_trials(state: Path, count: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if sum(len(path.read_bytes().splitlines()) for path in state.rglob("*.jsonl")) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no trials were kept")


def test_ctrl_c_gives_the_figures_so_far_and_resume_goes_on_from_there(state) -> None:
    words = [sys.executable, "-m", "heapsmith", "compare", "-a", "glibc", "-a", "glibc:arena_max=1", "--json"]
    command = program("import time; time.sleep(0.25)")
    process = subprocess.Popen([*words, "--runs", "40", *command], stdout=subprocess.PIPE, text=True)
    wait_for_trials(state, 6)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    document = json.loads(out)
    assert document["interrupted"] is True
    done_before = document["results"][0]["runs"]
    assert 1 <= done_before < 40
    runs = done_before + 1
    resumed = json.loads(heapsmith(*words[3:], "--resume", "--runs", str(runs), *command).stdout)
    assert resumed["results"][0]["runs"] == runs and resumed["workers"] == 1
    kept = [line for path in state.rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(kept) <= 2 * runs + 2


def test_a_second_call_without_resume_measures_anew(state) -> None:
    words = ["compare", "-a", "glibc", "-a", "glibc", "--runs", "1", "--json", *program("pass")]
    heapsmith(*words)
    first = [path.read_text() for path in (state / "state").rglob("*.jsonl")]
    heapsmith(*words)
    second = [path.read_text() for path in (state / "state").rglob("*.jsonl")]
    assert len(first) == len(second) == 1
    assert len(first[0].splitlines()) == len(second[0].splitlines()) == 2
    assert first != second


def test_rounds_are_in_random_order_and_the_same_in_every_call() -> None:
    from heapsmith.lab.trials import Job, Workload
    from heapsmith.peers.candidate import read_candidates

    candidates = tuple(read_candidates(["system", "glibc", "glibc:arena_max=1", "glibc:arena_max=2"]))
    workload = Workload(command=("true",), directory="/", environment=dict(os.environ))
    orders = [
        [
            [
                c.label
                for c in Job(workload=workload, candidates=candidates, phase="p", round=n, seed=1).in_order()
            ]
            for n in range(30)
        ]
        for _ in range(2)
    ]
    assert orders[0] == orders[1]
    firsts = {order[0] for order in orders[0]}
    assert firsts == {candidate.label for candidate in candidates}


def test_allocators_lists_versions_knobs_and_how_to_get_what_is_missing() -> None:
    document = json.loads(heapsmith("allocators", "--json").stdout)
    by_name = {item["name"]: item for item in document}
    assert by_name["glibc"]["here"] is True
    assert by_name["glibc"]["version"]
    assert {"glibc", "jemalloc", "mimalloc2", "mimalloc3", "tcmalloc", "tbb", "snmalloc", "pymalloc"} <= set(
        by_name
    )
    knob = next(knob for knob in by_name["jemalloc"]["knobs"] if knob["name"] == "dirty_decay_ms")
    assert knob["unit"] == "ms" and knob["default"] == 10000 and knob["lowest"] == -1
    assert set(by_name["jemalloc"]["fields"].values()) <= {"exact", "approximate", "unknown"}
    for item in document:
        if not item["here"]:
            assert item["path"] is None and item["version"] is None and (item["install"] or item["note"])
    assert "dirty_decay_ms" in heapsmith("allocators").stdout


def test_heaps_of_ours_take_part_by_preset_spec_and_library(tmp_path) -> None:
    from heapsmith.native import library
    from heapsmith.spec import load_spec, write_document

    spec = tmp_path / "mine.toml"
    spec.write_text(write_document(load_spec("small")))
    names = ["system", "default", str(spec), str(library("libheapsmith_small.so"))]
    words = [word for name in names for word in ("-a", name)]
    done = heapsmith("compare", *words, "--runs", "1", "--json", *program(GROW.format(2)))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [result["allocator"] for result in results] == names
    assert [result["failed"] for result in results] == [None] * 4
    assert results[0]["library"] is None and all(result["library"] for result in results[1:])


def test_what_is_live_is_counted_inside_only_when_that_is_asked_for() -> None:
    words = ["compare", "-a", "glibc", "-a", "jemalloc", "--runs", "1", "--json"]
    for probe in ([], ["--probe"]):
        done = heapsmith(*words, *probe, *program(GROW.format(32)))
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        for result in document["results"]:
            live, blowup = result["live_bytes_peak"]["median"], result["blowup"]["median"]
            if not probe:
                assert live is None and blowup is None
                continue
            assert 32 << 20 <= live < 48 << 20 and 1 < blowup < 2
        assert ("--probe" in document["accounting"]) == bool(probe)


def test_where_the_figures_of_memory_come_from_is_said() -> None:
    document = json.loads(
        heapsmith("compare", "-a", "glibc", "--runs", "1", "--json", *program(GROW.format(24))).stdout
    )
    charged = [result["charged_bytes_peak"]["median"] for result in document["results"]]
    if None in charged:
        assert "no cgroup can be made here" in document["accounting"]
    else:
        assert all(24 << 20 <= value < 80 << 20 for value in charged)
        assert "by a cgroup" in document["accounting"]

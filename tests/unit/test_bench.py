"""What a benchmark chooses, runs, judges and draws."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapsmith.errors import CheckError
from heapsmith.lab.bench import Case, Ratio, Suite, mean_ratios, run_workload
from heapsmith.lab.jobs import SUITES, command_for, select_workloads, workload_promises
from heapsmith.lab.statistics import compute_spread
from heapsmith.lab.subjects import Subject, select_subjects
from heapsmith.show.bench_figures import Point, draw_pareto
from heapsmith.show.bench_report import BEGIN, END, noise_line, render_page, write_report

RATIOS = st.floats(0.01, 100)


def make_case(
    name: str, allocator: str, ratio: float, *, failed: str | None = None, too_noisy: bool | None = None
) -> Case:
    spread = compute_spread([1.0, 2.0, 3.0])
    found = Ratio(None if failed else ratio, None, None)
    return Case(name, allocator, spread, spread, spread, spread, found, found, too_noisy, failed)


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heapsmith", "bench", *words],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_every_workload_says_what_it_does_and_can_be_asked_for() -> None:
    for suite, names in SUITES.items():
        for name in names:
            assert workload_promises()[name]
            assert command_for(name, Subject("system", None)).words
            assert name in select_workloads([name])[suite]


def test_an_unknown_workload_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(CheckError, match="did you mean `threads`"):
        select_workloads(["thread"])


def test_an_allocator_of_the_field_that_is_missing_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("heapsmith.lab.subjects.known_subjects", lambda: ["system", "default"])
    found, missing = select_subjects(None)
    assert [subject.name for subject in found] == ["default"]
    assert any(line.startswith("jemalloc is left out: it is not installed") for line in missing)


def test_a_peer_that_crashes_is_shown_with_its_signal(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler on this machine")
    source = tmp_path / "crash.c"
    source.write_text(
        "#include <stdlib.h>\nvoid* malloc(size_t n) { (void)n; *(volatile int*)0 = 1; return 0; }\n"
    )
    library = tmp_path / "crash.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-fno-builtin", source, "-o", library], check=True)
    assert run_workload("loop", Subject("crash", library)).failed == "ended by SIGSEGV"
    done = bench("loop", "--runs", "1", "--allocator", str(library), "--json")
    assert done.returncode == 0
    cases = json.loads(done.stdout)["suites"][0]["cases"]
    assert [case["failed"] for case in cases] == [None, "ended by SIGSEGV"]
    assert cases[1]["time_ratio"]["ratio"] is None


def test_a_document_keeps_what_was_written_around_the_figures(tmp_path: Path) -> None:
    suites = [Suite("local", [make_case("local", "system", 1.0), make_case("local", "default", 0.5)])]
    path = tmp_path / "benchmarks.md"
    path.write_text(f"# Ours\n\n{BEGIN}\nold\n{END}\n\n## Why\n")
    write_report(path, suites, {"kernel": "6"}, "heapsmith bench local")
    text = path.read_text()
    assert text.startswith("# Ours\n") and text.endswith("## Why\n") and "old" not in text
    assert "0.50" in text
    assert (tmp_path / "images" / "bench-local.svg").is_file()


def test_a_document_that_cannot_be_written_is_one_line_before_anything_runs(tmp_path: Path) -> None:
    done = bench("loop", "--report", str(tmp_path / "missing" / "b.md"))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) <= 3 and "Traceback" not in done.stderr


def test_noise_is_told() -> None:
    quiet = Suite("local", [make_case("local", "default", 1.0, too_noisy=False)])
    noisy = Suite("local", [make_case("local", "default", 1.0, too_noisy=True)])
    assert noise_line([quiet]) is None
    assert "1 of 2" in (noise_line([quiet, noisy]) or "")


@given(st.lists(RATIOS, min_size=1, max_size=6))
def test_the_mean_of_ratios_lies_between_them_and_forgets_workloads_that_failed(ratios: list[float]) -> None:
    cases = [make_case(str(i), "default", ratio) for i, ratio in enumerate(ratios)]
    cases += [make_case(str(i), "system", 1.0) for i in range(len(ratios))]
    mean = mean_ratios([Suite("x", cases)])["default"]
    assert min(ratios) * 0.999 <= mean <= max(ratios) * 1.001
    broken = [
        *cases,
        make_case("broken", "default", 1.0, failed="ended by SIGSEGV"),
        make_case("broken", "system", 9.0),
    ]
    assert mean_ratios([Suite("x", broken)])["default"] == pytest.approx(mean)


@given(st.lists(st.tuples(st.text("<&>'\"ab", max_size=5), RATIOS, RATIOS), min_size=1, max_size=8))
def test_a_picture_is_well_formed_and_shows_each_allocator_inside_its_frame(
    points: list[tuple[str, float, float]],
) -> None:
    picture = ElementTree.fromstring(draw_pareto("t", [Point(*point) for point in points]))
    circles = [item for item in picture.iter() if item.tag.endswith("circle")]
    assert len(circles) == len(points)
    for circle in circles:
        assert 0 <= float(circle.get("cx", "-1")) <= float(picture.get("width", "0"))
        assert 0 <= float(circle.get("cy", "-1")) <= float(picture.get("height", "0"))


def test_a_page_holds_tables_and_pictures_and_loads_nothing() -> None:
    suites = [Suite("field", [make_case("loop", "system", 1.0), make_case("loop", "default", 0.5)])]
    page = render_page(suites, {"kernel": "<6>"}, "heapsmith bench field")
    assert page.count("<svg") == 1 and page.count("<table") == 3 and "&lt;6&gt;" in page
    assert "src=" not in page and "http://" not in page.replace("http://www.w3.org", "")

"""The simulator holds what the forged heap holds; a tailored heap is recommended only where it has earned its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heapsmith.cli import main
from heapsmith.errors import ForgeError, HeapsmithError
from heapsmith.forge import preset_library
from heapsmith.lab.replay.plan import make_plan
from heapsmith.lab.replay.player import as_replay, play
from heapsmith.lab.replay.validation import has_sizes_of_glibc, validate
from heapsmith.lab.statistics import Difference
from heapsmith.peers.candidate import Candidate, read_candidate
from heapsmith.spec import HeapSpec, HugePages, OsPages, PurgeOnDemand, load_spec
from heapsmith.trace import Operation, open_trace
from heapsmith.tune import simulation
from heapsmith.tune.life import read_life
from heapsmith.tune.shadow import run_in_shadow
from heapsmith.tune.simulation import Walker, simulate, warm_up
from heapsmith.tune.tailor import check_weights
from heapsmith.tune.verdict import Tailored, Trying, decide
from made_traces import make_events, write_trace
from watched import needs


@pytest.fixture(scope="module")
def trace_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    events = make_events(120_000, threads=3, sizes=(24, 100, 1000, 4368, 20_000), live=4000, seed=3)
    return write_trace(tmp_path_factory.mktemp("t") / "x.heap", events, batch=50_000)


@pytest.mark.parametrize(("name", "within"), [("small", 0.03), ("pow2", 0.06)])
def test_the_simulator_predicts_the_forged_heap(trace_path: Path, name: str, within: float) -> None:
    # With huge pages (pow2) the kernel decides which of them it gives at once: the prediction is coarser.
    trace = open_trace(trace_path)
    found = simulate(load_spec(name), read_life(trace), ns_per_step=20)
    library = str(preset_library(name))
    with make_plan(trace) as plan:
        played = play(as_replay(plan), Candidate(name, name, library=library), dict(os.environ), 60)
    assert played.course is not None
    assert found.resident_bytes_peak == pytest.approx(played.course.resident_bytes.max(), rel=within)
    share = np.linspace(0.1, 1, 50)
    real = np.interp(share * plan.events, played.course.orders, played.course.resident_bytes)
    steps, held = found.samples.T.astype(float)
    ours = np.interp(share * steps[-1], steps, held)
    assert ours.mean() == pytest.approx(real.mean(), rel=within)


def test_a_change_in_any_file_the_walk_is_compiled_from_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called_by(function: Any) -> set[str]:
        code = function.py_func.__code__
        called = [function.py_func.__globals__.get(name) for name in code.co_names]
        inner = [called_by(one) for one in called if hasattr(one, "py_func")]
        return {function.py_func.__module__}.union(*inner)

    # numba keeps what it compiled by the function's own file, and by the values of what the function encloses.
    walk = simulation._make_walk(7)
    assert [cell.cell_contents for cell in walk.py_func.__closure__] == [7]
    for name in called_by(walk) - {simulation.__name__}:
        with monkeypatch.context() as patch:
            before = simulation._read_sources()
            module = sys.modules[name]
            changed = tmp_path / "changed.py"
            changed.write_text(Path(str(module.__file__)).read_text() + "# changed")
            patch.setattr(module, "__file__", str(changed))
            assert simulation._read_sources() != before


def test_large_blocks_come_in_huge_pages_once_one_was_filled(tmp_path: Path) -> None:
    size, live = 8 << 20, 6
    one = [(Operation.ALLOCATE, 0, size, -1, 0), (Operation.FREE, 0, 0, 0, 0)]
    several = [(Operation.ALLOCATE, 0, size, -1, 0)] * live
    life = read_life(open_trace(write_trace(tmp_path / "x.heap", one + several)))
    pages = {
        name: simulate(HeapSpec(pages=pipe), life).page_faults
        for name, pipe in (
            ("huge", OsPages() | HugePages(after_bytes=0)),
            ("small", OsPages() | PurgeOnDemand()),
        )
    }
    # The first is not known to be filled, the second has its pages; of the others each begins within a huge page.
    assert pages["small"] == live * size // 4096
    assert size // 4096 <= pages["huge"] <= size // 4096 + (live - 1) * (size // (2 << 20) + 2 * 512)


def test_a_simulation_in_parts_comes_to_the_same(trace_path: Path) -> None:
    from heapsmith.lab.replay.plan import Part, read_calls

    trace = open_trace(trace_path)
    whole = simulate(load_spec("small"), read_life(trace))
    walker = Walker(load_spec("small"), 1 << 16)
    for batch, kinds in read_calls(trace, 0, Part(), python_objects=False):
        walker.walk(batch, kinds)
    assert walker.resident_bytes_peak == pytest.approx(whole.resident_bytes_peak, rel=0.005)


def test_a_shadow_says_that_it_compiles_and_what_the_heap_would_have_held(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = threading.Event()
    # As at the first use on a machine, where it takes long enough to be told.
    monkeypatch.setattr("heapsmith.tune.shadow.warm_up", lambda: told.wait(60) and warm_up())
    program = "blocks = [bytes(5000) for _ in range(4000)]; print(len(blocks)); raise SystemExit(3)"
    result = run_in_shadow([sys.executable, "-c", program], load_spec("small"), compiles=told.set)
    assert told.is_set()
    assert capfd.readouterr().out == "4000\n"
    assert result.exit_code == 3
    assert result.complete
    assert 20e6 < result.shadow_bytes_peak < 30e6


def test_a_program_of_which_a_shadow_can_say_nothing_keeps_its_exit_code(tmp_path: Path) -> None:
    needs("gcc")
    source, program = tmp_path / "x.c", tmp_path / "x"
    source.write_text("int main(void) { return 3; }")
    subprocess.run(["gcc", "-static", str(source), "-o", str(program)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "heapsmith", "run", "--shadow", "small", "--", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "nothing can be said of the heap" in done.stderr


def test_the_life_knows_its_peak(trace_path: Path) -> None:
    trace = open_trace(trace_path)
    life = read_life(trace)
    with make_plan(trace) as plan:
        assert life.live_bytes_peak == plan.live_bytes_peak
    assert life.at_peak[1].sum() + life.large_bytes_at_peak == pytest.approx(life.live_bytes_peak)


def trying(memory: float, seconds: float, rival: float) -> Trying:
    from heapsmith.lab.comparison import Comparison
    from heapsmith.lab.trials import Workload

    workload = Workload(command=("x",), directory="/", environment={})
    return Trying(
        where="x",
        comparison=Comparison(workload=workload, results=[]),
        against="glibc:arena_max=1",
        memory=Difference(memory),
        time=Difference(seconds),
        cost=Difference((memory * seconds) ** 0.5),
        costs={"glibc:arena_max=1": Difference(rival, more_than_noise=True)},
    )


@pytest.mark.parametrize(
    ("trials", "verdict"),
    [
        ([trying(0.9, 1.0, 0.8)], "tailored"),
        ([trying(0.96, 1.0, 0.8)], "allocator"),
        ([trying(0.9, 1.03, 0.8)], "allocator"),
        ([trying(0.9, 1.0, 0.8), trying(0.97, 1.0, 0.9)], "allocator"),
        ([trying(0.97, 1.0, 0.99)], "nothing"),
        ([trying(0.9, 1.0, 0.8), trying(0.94, 1.02, 0.8)], "tailored"),
        ([], "nothing"),
    ],
)
def test_a_heap_must_earn_its_place_everywhere(trials: list[Trying], verdict: str) -> None:
    answer = Tailored(
        "nothing", "memory", "", HeapSpec(name="tailored"), ours=Candidate("tailored 1", "x", library="/x.so"),
        rival=read_candidate("glibc:arena_max=1"), trials=trials,
    )  # fmt: skip
    assert decide(answer)[0] == verdict


def test_weights_are_for_the_recordings_that_are_designed_for() -> None:
    check_weights([Path("a"), Path("b"), Path("c")], [1.0, 2.0])
    for weights in ([1.0], [1.0, -1.0]):
        with pytest.raises(HeapsmithError):
            check_weights([Path("a"), Path("b"), Path("c")], weights)


def test_a_replay_is_validated_against_the_recorded_run(tmp_path: Path) -> None:
    path = tmp_path / "x.heap"
    code = "import time\nx = []\nfor i in range(400):\n    x.append(bytes([i % 256]) * 2**16)\n    time.sleep(0.003)\n"
    words = [sys.executable, "-m", "heapsmith", "record", "-o", str(path), "--", sys.executable, "-c", code]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    trace = open_trace(path)
    with make_plan(trace) as plan:
        replay, glibc = as_replay(plan), read_candidate("glibc")
        found = validate(trace, replay, glibc, dict(os.environ), pid=None, timeout_s=60)
    assert found.samples >= 5
    assert found.ratio == pytest.approx(1, abs=0.1)


def test_a_recording_of_another_allocator_is_not_validated_on_glibc(trace_path: Path) -> None:
    # Made-up traces have usable sizes that glibc would not give.
    assert not has_sizes_of_glibc(open_trace(trace_path), 0)


def test_bad_input_is_one_line(tmp_path: Path, trace_path: Path) -> None:
    there = tmp_path / "there.toml"
    there.write_text("")
    out = str(tmp_path / "y.toml")
    for words, said in (
        ([], "no recording"),
        (["nothing.txt", "-o", out], "is no recording"),
        ([str(tmp_path / "none.heap"), "-o", out], "No such file"),
        ([str(trace_path), "-o", str(there)], "is there already"),
        ([str(trace_path), str(trace_path), "-o", out], "named twice"),
        ([str(trace_path), "-o", out, "--budget", "1s"], "too small"),
        ([str(trace_path), "-o", out, "--weight", "1", "--weight", "2"], "weights"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "heapsmith", "tune", *words], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2, words
        assert done.stderr.count("\n") == 1, done.stderr
        assert said in done.stderr or not words


def test_without_a_compiler_presets_and_knobs_are_tuned_all_the_same(
    tmp_path: Path, trace_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise ForgeError("there is no C++ compiler", "none is here", "install one")

    monkeypatch.setattr("heapsmith.tune.tailor.find_compiler", refuse)
    spec = tmp_path / "x.toml"
    assert main(["tune", str(trace_path), "-o", str(spec), "--budget", "30s", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "heapsmith.tune/1"
    assert document["verdict"] in {"preset", "allocator", "nothing"}
    assert any("no C++ compiler" in note for note in document["notes"])
    assert len(document["search"]) > 5
    assert spec.read_text().startswith("# Designed by")
    assert load_spec(spec) is not None
    assert "When not to use" in spec.with_suffix(".html").read_text()

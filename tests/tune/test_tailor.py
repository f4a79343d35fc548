"""The tailor: who races on what, and what is said where a recording, a compiler or the time is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from heapsmith.errors import ForgeError, TraceError
from heapsmith.lab.executors import HERE, Workers, open_executor
from heapsmith.lab.rehearsal import Rehearsal
from heapsmith.lab.trials import Outcome, Workload
from heapsmith.peers.candidate import Candidate, read_candidates
from heapsmith.run.outside import Watched
from heapsmith.spec import HeapSpec
from heapsmith.trace import Operation
from heapsmith.tune.race import PHASE, Race
from heapsmith.tune.tailor import Tailor
from heapsmith.tune.verdict import Tailored, decide
from made_traces import make_events, write_trace
from watched import needs


def refuse() -> None:
    raise ForgeError("there is no C++ compiler", "none is here", "install one")


class Laboratory:
    """A laboratory whose trials have happened already: costs by candidate and round."""

    def __init__(self, costs: Mapping[str, list[float]], phase: str = PHASE) -> None:
        self.workload = Workload(command=("x",), directory="/", environment={})
        self.rehearsal = Rehearsal(
            seen=Watched(failed=None), duration_s=1.0, python=None, linked_with=None, c_library=None,
            unreachable=None, reads_tunables=False, embedded=(), digest=None,
        )  # fmt: skip
        self.outcomes = [
            Outcome(
                candidate=label, phase=phase, round=number, worker="w",
                seen=Watched(
                    failed=None, code=0, duration_s=cost, user_s=cost, system_s=0.0, page_faults=0,
                    resident_bytes_peak=round(1e6 * cost), resident_bytes_mean=1e6 * cost, resident_bytes_end=1.0,
                ),
            )
            for label, numbers in costs.items()
            for number, cost in enumerate(numbers)
        ]  # fmt: skip

    def run_rounds(self, *_: object, **__: object) -> None:
        """They have run."""


@pytest.mark.parametrize(("weights", "first"), [([3.0, 1.0], 1), ([1.0, 3.0], 2), ([], 2)])
def test_every_recording_counts_in_the_race_by_its_weight(weights: list[float], first: int) -> None:
    names = ["system", "glibc:arena_max=1", "glibc:arena_max=2"]
    monday = Laboratory({names[0]: [1.0] * 3, names[1]: [0.8] * 3, names[2]: [1.0] * 3})
    tuesday = Laboratory({names[0]: [2.0] * 3, names[1]: [2.0] * 3, names[2]: [1.5] * 3})
    race = Race([monday, tuesday], read_candidates(names), "balanced", 0.0, weights=weights)
    assert race.ranked()[0].candidate.label == names[first]
    assert race.best_ratio(names[1]) == pytest.approx(
        0.8 ** (weights[0] / sum(weights) if weights else 0.5), rel=1e-6
    )


def test_who_did_not_finish_a_round_on_every_recording_has_no_ratio_for_it() -> None:
    monday = Laboratory({"system": [1.0], "glibc:arena_max=1": [0.5]})
    tuesday = Laboratory({"system": [1.0]})
    race = Race([monday, tuesday], read_candidates(["system", "glibc:arena_max=1"]), "time", 0.0)
    assert race.best_ratio("glibc:arena_max=1") is None


def test_a_design_that_leads_does_not_keep_the_knobs_of_others_from_being_moved() -> None:
    class Running(Laboratory):
        """Its trials happen when they are asked for."""

        workers = HERE

        def run_rounds(self, candidates: Sequence[Candidate], numbers: range, phase: str) -> None:
            for one in candidates:
                cost = {"system": 1.0, OURS.label: 0.8}.get(one.label, 0.9)
                (outcome,) = Laboratory({one.label: [cost]}, phase).outcomes
                self.outcomes += [msgspec.structs.replace(outcome, round=number) for number in numbers]

    def search(may_vary: Callable[[Candidate], bool]) -> set[str]:
        pool = [*read_candidates(["system", "glibc:arena_max=1"]), OURS]
        race = Race(Running({}), pool, "memory", time.monotonic() + 3600, may_vary=may_vary)
        race.run()
        return {standing.candidate.label for standing in race.standings()} - {one.label for one in pool}

    assert not search(lambda _: True)
    assert any("arena_max=1," in label for label in search(lambda one: one is not OURS))


def test_recordings_race_on_the_workers_of_an_executor_and_what_they_cannot_tell_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heapsmith.tune.tailor.find_compiler", refuse)
    traces = [
        write_trace(
            tmp_path / f"{seed}.heap", make_events(9000, sizes=(40, 200, 4368), seed=seed), program="python3"
        )
        for seed in (1, 2, 3)
    ]
    with ProcessPoolExecutor(2) as pool:
        answer = Tailor(traces, [1.0, 2.0], "memory", 12.0, workers=Workers(pool, 2)).make()
    notes = " ".join(answer.notes)
    assert answer.verdict in {"preset", "allocator", "nothing"}
    assert "no C++ compiler" in notes
    assert "record --python-objects" in notes or "PYTHONMALLOC=malloc" in notes
    assert "record 12 times as much" in notes
    assert answer.held_out == "3.heap was held out of the search"
    assert any((standing.rounds or 0) >= 2 for standing in answer.standings)
    assert answer.trials[0].comparison.results[0].runs >= 5


def test_a_recording_without_sizes_is_refused_before_anything_is_designed(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "x.heap", [(Operation.ALLOCATE, 0, 0, -1, 0)] * 3000)
    with pytest.raises(TraceError, match="no sizes"):
        Tailor([path], [], "memory", 60.0).make()


def test_a_ready_made_heap_that_earns_its_place_is_the_answer() -> None:
    from test_simulation import trying

    answer = Tailored(
        "nothing", "memory", "", HeapSpec(), ours=Candidate("small", "small", library="/x.so"), trials=[trying(0.9, 1.0, 1)]
    )  # fmt: skip
    assert decide(answer)[0] == "preset"


OURS = Candidate("tailored 1", "tailored 1", library="/x.so")


SMALL = Candidate("small", "small", library="/x.so")


def verified(
    costs: dict[str, list[float]],
    folder: Path,
    *others: Candidate,
    ready: Candidate | None = None,
    really: dict[str, list[float]] | None = None,
) -> Tailored:
    """What a verification makes of OURS, glibc:arena_max=1, others, and what is ready-made, whose costs are known."""
    proof = SimpleNamespace(laboratory=lambda **_: Laboratory(costs, "verify"))
    rivals = [*read_candidates(["glibc:arena_max=1"]), *others]
    answer = Tailored("nothing", "memory", "", HeapSpec(), ours=OURS, ready=ready, rivals=rivals)
    path = write_trace(folder / "x.heap", make_events(100, sizes=(40,)))
    real = None if really is None else Laboratory(really, "verify")
    Tailor([path], [], "memory", 60.0, real=real)._verify(proof, answer)
    return answer


@pytest.mark.parametrize(
    ("ready", "verdict"),
    [
        # By 5 % better than the best of the others; by 3 %, which is enough for what needs no compiler; by 1 %.
        (0.8, "preset"),
        (0.97, "preset"),
        (0.99, "allocator"),
    ],
)
def test_a_ready_made_heap_is_judged_where_the_design_falls_short(
    ready: float, verdict: str, tmp_path: Path
) -> None:
    costs = {
        "system": [1.0] * 8,
        "glibc:arena_max=1": [0.9] * 8,
        "tailored 1": [0.88] * 8,
        "small": [0.9 * ready] * 8,
    }
    answer = verified(costs, tmp_path, ready=SMALL)
    assert decide(answer)[0] == verdict
    assert answer.ours == (SMALL if verdict == "preset" else OURS)


def test_what_gains_where_no_other_does_is_not_called_nothing(tmp_path: Path) -> None:
    costs = {
        "system": [1.0] * 8,
        "glibc:arena_max=1": [0.96] * 8,
        "tailored 1": [0.95] * 8,
        "small": [0.93] * 8,
    }
    answer = verified(costs, tmp_path, ready=SMALL)
    verdict, reason = decide(answer)
    assert verdict == "preset"
    assert reason.startswith("use small, a ready-made heap: memory cost 7% lower than today's")


@pytest.mark.parametrize(
    ("glibc", "other", "verdict", "rival"),
    [
        # Replays rank them the other way round.
        ((0.7, 0.97), (0.9, 0.8), "allocator", "other"),
        ((0.7, 0.97), (0.7, 0.97), "nothing", "glibc:arena_max=1"),
        ((0.99, 0.8), (0.9, 0.9), "allocator", "glibc:arena_max=1"),
        # Another day's recording says that it may do harm.
        ((1.2, 0.8), (0.9, 0.96), "nothing", "glibc:arena_max=1"),
    ],
)
def test_of_other_allocators_the_real_program_tells_the_best(
    glibc: tuple[float, float], other: tuple[float, float], verdict: str, rival: str, tmp_path: Path
) -> None:
    replayed, real = (
        {
            "system": [1.0] * 8,
            "glibc:arena_max=1": [glibc[place]] * 8,
            "other": [other[place]] * 8,
            "tailored 1": [1.0] * 8,
        }
        for place in (0, 1)
    )
    answer = verified(replayed, tmp_path, Candidate("other", "other", library="/x.so"), really=real)
    assert decide(answer)[0] == verdict
    assert answer.rival.label == rival


@pytest.mark.parametrize(("other", "verdict"), [(0.85, "allocator"), (0.97, "tailored")])
def test_a_heap_has_to_beat_the_best_of_every_other_allocator(
    other: float, verdict: str, tmp_path: Path
) -> None:
    costs = {
        "system": [1.0] * 8,
        "glibc:arena_max=1": [0.95] * 8,
        "other": [other] * 8,
        "tailored 1": [0.84] * 8,
    }
    answer = verified(costs, tmp_path, Candidate("other", "other", library="/x.so"))
    assert decide(answer)[0] == verdict
    assert answer.rival.label == ("other" if other < 0.95 else "glibc:arena_max=1")
    assert answer.trials[0].against == answer.rival.label


def test_a_gain_that_may_be_noise_is_looked_at_again_and_then_said_to_be_unsure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[list[str], range]] = []
    monkeypatch.setattr(
        Laboratory,
        "run_rounds",
        lambda _, candidates, numbers, *__, **___: runs.append(([one.label for one in candidates], numbers)),
    )
    today = [1.0, 0.7, 1.3, 1.1, 0.8, 1.2, 0.9, 1.0]
    costs = {
        "system": today,
        "glibc:arena_max=1": [0.9 * cost for cost in today],
        "tailored 1": today,
    }
    verdict, reason = decide(verified(costs, tmp_path))
    assert verdict == "nothing"
    assert "0.90 times today's, which may be noise" in reason
    assert runs == [
        (["system", "glibc:arena_max=1", "tailored 1"], range(10)),
        (["system", "glibc:arena_max=1"], range(10, 20)),
    ]


def test_whoever_ran_further_rounds_is_compared_with_others_by_those_that_both_ran(tmp_path: Path) -> None:
    # The machine is slower later on, when `other` no longer runs.
    costs = {
        "system": [1.0] * 5 + [2.0] * 10,
        "glibc:arena_max=1": [0.94, 1.04, 0.92, 1.0, 0.9] + [2.0] * 10,
        "other": [0.99] * 5,
        "tailored 1": [1.0] * 5,
    }
    answer = verified(costs, tmp_path, Candidate("other", "other", library="/x.so"))
    assert decide(answer)[0] == "nothing"
    assert answer.trials[0].costs["other"].ratio == pytest.approx(0.99)
    assert answer.trials[0].cost.ratio == pytest.approx(1 / 0.99)


def test_a_design_that_crashes_is_out_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("cc")
    source = tmp_path / "bad.c"
    source.write_text(
        "#include <stdlib.h>\nvoid *__libc_malloc(size_t);\n"
        "void *malloc(size_t n) { if (n == 4368) abort(); return __libc_malloc(n); }\n"
    )
    library = tmp_path / "libbad.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr("heapsmith.tune.tailor.find_compiler", lambda: None)
    monkeypatch.setattr(
        "heapsmith.tune.tailor.candidate_of",
        lambda _, label: Candidate(label=label, allocator=str(library), library=str(library)),
    )
    path = write_trace(tmp_path / "x.heap", make_events(9000, sizes=(40, 200, 4368)))
    answer = Tailor([path], [], "memory", 12.0).make()
    assert any("tailored 1 is out" in note and "SIGABRT" in note for note in answer.notes), answer.notes
    assert answer.ours is None or not answer.ours.label.startswith("tailored")
    assert answer.verdict != "tailored"


def test_the_workers_of_a_dask_cluster_replay(
    two_dask_workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heapsmith.tune.tailor.find_compiler", refuse)
    path = write_trace(tmp_path / "x.heap", make_events(20_000, sizes=(40, 200, 4368)))
    with open_executor(two_dask_workers) as workers:
        answer = Tailor([path], [], "memory", 15.0, workers=workers).make()
    assert answer.race is not None
    assert answer.race.workers == 2
    assert [trial.comparison.workers for trial in answer.trials] == [2]
    assert all(result.failed is None for result in answer.trials[0].comparison.results)


def test_ctrl_c_gives_the_answer_so_far(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "x.heap", make_events(20_000, sizes=(40, 200, 4368)))
    spec = tmp_path / "x.toml"
    words = [
        sys.executable,
        "-m",
        "heapsmith",
        "tune",
        str(path),
        "-o",
        str(spec),
        "--budget",
        "5m",
        "--json",
    ]
    here = os.environ | {"TMPDIR": str(tmp_path), "CXX": "no-such-compiler", "PATH": "/nonexistent"}
    process = subprocess.Popen(words, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if sum(len(found.read_bytes().splitlines()) for found in tmp_path.rglob("*.jsonl")) >= 4:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    document = json.loads(out)
    assert document["interrupted"] is True
    assert document["verdict"] == "nothing"
    assert document["search"]
    assert "Broken off" in spec.read_text()

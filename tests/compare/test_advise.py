"""`heapsmith advise`: it finds what helps, says when nothing does, and knows what it cannot reach."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from heapsmith.lab.comparison import compute_comparison
from heapsmith.lab.field import read_field
from heapsmith.lab.rehearsal import Python, Rehearsal, fit
from heapsmith.lab.trials import Outcome, Workload
from heapsmith.peers import reach
from heapsmith.peers.candidate import Candidate, read_candidate, read_candidates
from heapsmith.run.outside import Watched
from heapsmith.show.advise import sentence
from heapsmith.show.service_lines import PLACES, render_lines
from heapsmith.tune.advise import Advice, _Confirming
from heapsmith.tune.candidates import choose_pool, neighbours, simplicity
from heapsmith.tune.objective import compute_cost
from heapsmith.tune.race import NO_TIME, PHASE, Race, Standing

TEMPORARIES = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
keep = libc.malloc(100)
for _ in range(250):
    blocks = [libc.malloc(1 << 20) for _ in range(3)]
    for block in blocks:
        libc.memset(block, 1, 1 << 20)
    for block in blocks:
        libc.free(block)
"""


HEAP_THAT_NEEDS = """
#include <stddef.h>
void *__libc_malloc(size_t bytes);
int needed(void);
void *malloc(size_t bytes) { return __libc_malloc(bytes + (needed() != 7)); }
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def heapsmith(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heapsmith", *words], capture_output=True, text=True, timeout=280, check=False
    )


def rehearsal(**more) -> Rehearsal:
    facts = {
        "seen": Watched(failed=None), "duration_s": 1.0, "python": None, "linked_with": None,
        "c_library": None, "unreachable": None, "reads_tunables": False, "embedded": (), "digest": None,
    }  # fmt: skip
    return Rehearsal(**(facts | more))


def test_large_temporaries_get_faster_and_the_answer_says_how_to_start_the_program() -> None:
    command = [sys.executable, "-I", "-S", "-c", TEMPORARIES]
    done = heapsmith("advise", "--objective", "time", "--budget", "75s", "--json", "--", *command)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "gain", document["recommendation"]
    assert document["evidence"]["cost_ratio"]["high"] < 0.9
    assert document["environment"]
    assert document["evidence"]["results"][1]["page_faults"]["median"] < (
        document["evidence"]["results"][0]["page_faults"]["median"] / 4
    )
    assert set(document["lines"]) == set(PLACES)


WINNER = "glibc:mmap_threshold=32MiB,trim_threshold=64MiB"
SHORT = TEMPORARIES.replace("range(250)", "range(60)")


def test_a_winner_is_confirmed_on_a_second_command_too(tmp_path) -> None:
    script = tmp_path / "other.py"
    script.write_text(SHORT.replace("1 << 20", "1 << 21"))
    words = [
        "advise",
        "-a",
        WINNER,
        "--objective",
        "time",
        "--budget",
        "9s",
        "--also",
        f"{sys.executable} -I -S {script}",
    ]
    done = heapsmith(*words, "--json", "--", sys.executable, "-I", "-S", "-c", SHORT)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "gain" and document["allocator"].startswith("glibc:"), document[
        "recommendation"
    ]
    (also,) = document["also"]
    assert also["results"][1]["allocator"] == document["allocator"]
    assert also["results"][1]["runs"] >= 6 and also["results"][1]["failed"] is None
    assert {item["allocator"].partition(":")[0] for item in document["search"]} == {"glibc"}


def test_a_winner_that_breaks_a_second_command_is_no_answer(tmp_path) -> None:
    other = "sh -c 'test -z \"$GLIBC_TUNABLES\"'"
    words = ["advise", "-a", WINNER, "--objective", "time", "--budget", "6s", "--also", other]
    done = heapsmith(*words, "--json", "--", sys.executable, "-I", "-S", "-c", SHORT)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "nothing" and document["also"][0]["results"][1]["failed"] == "exit code 1"


def test_a_program_that_only_sleeps_has_nothing_to_gain(tmp_path) -> None:
    page = tmp_path / "page.html"
    words = [
        "--objective",
        "time",
        "--budget",
        "20s",
        "-a",
        "glibc:arena_max=1",
        "-a",
        "jemalloc",
        "-o",
        str(page),
    ]
    done = heapsmith("advise", *words, "--", "sleep", "0.15")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing to gain: keep what you have")
    assert "nothing to gain" in page.read_text() and "The search" in page.read_text()


def test_ctrl_c_gives_the_best_so_far_and_says_that_it_is_not_confirmed(tmp_path) -> None:
    words = [sys.executable, "-m", "heapsmith", "advise", "--budget", "5m", "--json", "--", "sleep", "0.3"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if sum(len(path.read_bytes().splitlines()) for path in tmp_path.rglob("*.jsonl")) >= 4:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    document = json.loads(out)
    assert document["interrupted"] is True
    assert document["verdict"] == "unconfirmed"
    assert document["search"]


def test_a_static_program_is_said_to_be_out_of_reach_of_preloads(tmp_path) -> None:
    source, program = tmp_path / "wait.c", tmp_path / "wait"
    source.write_text("#include <unistd.h>\nint main(void) { usleep(100000); return 0; }\n")
    subprocess.run(["cc", "-static", source, "-o", program], check=True)
    document = json.loads(heapsmith("advise", "--budget", "10s", "--json", "--", str(program)).stdout)
    assert any("linked statically" in note for note in document["notes"])
    assert {item["allocator"].partition(":")[0] for item in document["search"]} == {"glibc"}


def test_an_allocator_linked_into_the_program_is_named() -> None:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not on this machine")
    from heapsmith.lab.rehearsal import rehearse
    from heapsmith.run.outside import Service

    seen = rehearse(
        Workload(
            command=(server, "--port", "{port}", "--save", ""),
            directory="/tmp",
            environment=dict(os.environ),
            service=Service(ready="{port}", settle_s=0.2),
        )
    )
    assert seen.linked_with is not None and seen.linked_with[0] == "jemalloc"
    (glibc,) = fit([read_candidate("glibc")], seen)
    assert glibc.library == seen.c_library is not None


def test_allocators_inside_libraries_are_found_by_what_they_leave_in_the_file(tmp_path) -> None:
    inner = tmp_path / "polars.abi3.so"
    inner.write_bytes(b"\0" * 100 + b"<jemalloc>: Invalid conf pair" + b"\0" * 100)
    plain = tmp_path / "plain.so"
    plain.write_bytes(b"\0" * 200)
    found = reach.find_embedded([str(inner), str(plain), str(tmp_path / "gone.so")])
    assert [(item.file, item.allocator) for item in found] == [(str(inner), "jemalloc")]
    assert "_RJEM_MALLOC_CONF" in found[0].advice


def test_a_library_with_two_allocators_inside_gets_one_note(tmp_path) -> None:
    inner = tmp_path / "libarrow.so.99"
    inner.write_bytes(b"<jemalloc>: Invalid" + b"\0" * 10 + b"mimalloc: warning: x")
    (note,) = rehearsal(embedded=tuple(reach.find_embedded([str(inner)]))).notes()
    assert note.startswith("libarrow.so.99 has jemalloc and mimalloc inside")
    assert "ARROW_DEFAULT_MEMORY_POOL=system" in note


@pytest.mark.parametrize(("where", "said"), [("pymalloc", True), ("malloc", False)])
def test_pymalloc_is_only_spoken_of_where_it_serves_the_objects(where: str, said: bool) -> None:
    from heapsmith.lab.rehearsal import rehearse

    workload = Workload(
        command=(sys.executable, "-c", "pass"),
        directory="/tmp",
        environment=dict(os.environ) | {"PYTHONMALLOC": where},
    )
    assert any("pymalloc" in note for note in rehearse(workload).notes()) is said


def test_a_program_with_anothers_rights_is_said_to_be_out_of_reach_and_nothing_is_tried(tmp_path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a program setuid to another user")
    program = tmp_path / "program"
    shutil.copy("/bin/sleep", program)
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    done = heapsmith("advise", "--budget", "10s", "--json", "--", str(program), "0.1")
    document = json.loads(done.stdout)
    assert document["verdict"] == "unreachable" and document["search"] == []
    assert any("setuid" in note for note in document["notes"])


def test_a_preload_that_the_loader_would_ignore_is_not_tried() -> None:
    pool = choose_pool(rehearsal(unreachable="x is linked statically"), {})
    assert [candidate.label for candidate in pool] == ["system"]


def test_python_settings_are_tried_on_python_alone() -> None:
    def labels(interpreter: Python | None) -> str:
        return " ".join(candidate.label for candidate in choose_pool(rehearsal(python=interpreter), {}))

    assert "python=malloc" in labels(Python((3, 11, 2), False, False))
    assert "pymimalloc" not in labels(Python((3, 11, 2), False, False))
    assert "pymimalloc" in labels(Python((3, 13, 0), True, False))
    assert "python=" not in labels(None)
    assert "python=" not in labels(Python((3, 13, 0), True, True))
    assert "pymalloc" not in labels(Python((3, 11, 2), False, False))
    assert "pymalloc" in labels(Python((3, 11, 2), False, False, objects_on_malloc=True))


def test_the_search_starts_with_what_is_made_for_the_objective() -> None:
    labels = [candidate.label for candidate in choose_pool(rehearsal(), {}, "memory")]
    assert labels[0] == "system"
    assert labels.index("glibc:arena_max=1") < labels.index("glibc:hugetlb=1")


def test_where_time_is_short_a_python_programs_search_starts_with_what_reaches_its_objects() -> None:
    pool = choose_pool(rehearsal(python=Python((3, 11, 2), False, False)), {}, "memory")
    labels = [candidate.label for candidate in pool]
    assert labels.index("jemalloc:dirty_decay_ms=0,python=malloc") < labels.index("glibc:arena_max=1")


def test_neighbours_are_one_step_away_and_all_can_be_read() -> None:
    start = read_candidate("glibc:arena_max=2,trim_threshold=128KiB")
    steps = neighbours(start, rehearsal())
    labels = {step.label for step in steps}
    assert {"glibc:arena_max=2", "glibc:trim_threshold=128KiB"} <= labels
    assert start.label not in labels
    for step in steps:
        assert read_candidate(step.label) == step
        changed = set(step.knobs) ^ set(start.knobs)
        assert len({name for name, _ in changed}) == 1


def test_among_equals_what_needs_no_library_and_fewer_knobs_is_simpler() -> None:
    labels = ["glibc:arena_max=1", "glibc:arena_max=1,hugetlb=1", "system"]
    ranked = sorted(read_candidates(labels), key=simplicity)
    assert [candidate.label for candidate in ranked] == ["system", *labels[:2]]


def outcome(time_s: float, resident: float) -> Outcome:
    seen = Watched(
        failed=None, duration_s=time_s, user_s=time_s, system_s=0.0, resident_bytes_peak=int(resident),
        resident_bytes_mean=resident,
    )  # fmt: skip
    return Outcome(candidate="x", phase="p", round=0, worker="w", seen=seen)


def test_the_objective_decides_what_halving_is_worth() -> None:
    workload = Workload(command=("x",), directory="/", environment={})

    def ratio(first: Outcome, second: Outcome, objective) -> float:
        costs = [compute_cost(item, workload, objective) for item in (first, second)]
        assert costs[0] is not None and costs[1] is not None
        return costs[1] / costs[0]

    half_time, half_resident = outcome(0.5, 1e6), outcome(1.0, 5e5)
    base = outcome(1.0, 1e6)
    assert ratio(base, half_time, "balanced") == pytest.approx(ratio(base, half_resident, "balanced"))
    assert ratio(base, half_time, "time") < ratio(base, half_resident, "time")
    assert ratio(base, half_resident, "memory") < ratio(base, half_time, "memory")


@pytest.mark.parametrize("place", PLACES)
def test_lines_are_ready_to_paste(place) -> None:
    candidate = read_candidate("jemalloc:dirty_decay_ms=0,narenas=1,python=malloc")
    text = render_lines(candidate, place)
    assert "libjemalloc.so.2" in text
    assert "dirty_decay_ms:0,narenas:1" in text
    if place == "shell":
        shown = subprocess.run(
            ["/bin/sh", "-c", f"{text}\necho $MALLOC_CONF $PYTHONMALLOC"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.split() == ["dirty_decay_ms:0,narenas:1", "malloc"]
    if place == "docker":
        assert "apt-get install -y --no-install-recommends libjemalloc2" in text


@pytest.mark.parametrize(
    ("label", "made_by"),
    [
        ("default:purge_delay=0", "heapsmith forge default -o libheapsmith_default.so"),
        ("{copy}", "cp '{copy}' libjemalloc_copied.so"),
    ],
)
def test_a_library_that_no_package_brings_gets_into_the_image_by_a_command(tmp_path, label, made_by) -> None:
    copy = tmp_path / "with space" / "libjemalloc copied.so"
    copy.parent.mkdir()
    shutil.copy(read_candidate("jemalloc").library or "", copy)
    (candidate,) = read_field([label.format(copy=copy)])
    made_by = made_by.format(copy=copy)
    name = made_by.split()[-1]
    there = f"/usr/local/lib/{name}"
    docker = render_lines(candidate, "docker")
    assert f"# beforehand: {made_by}\nCOPY {name} {there}\n" in docker
    assert f'LD_PRELOAD="{there}"' in docker
    assert made_by in render_lines(candidate, "k8s") and f'value: "{there}"' in render_lines(candidate, "k8s")
    here = render_lines(candidate, "env")
    # What has to be written with a space in it cannot be preloaded from where it is.
    assert f"LD_PRELOAD={there if copy.name in label.format(copy=copy) else candidate.library}" in here
    assert (
        made_by.replace(name, there) in here
        if "forge" not in made_by
        else "for good: heapsmith forge" in here
    )


def test_what_a_library_needs_beside_it_is_preloaded_and_copied_with_it(tmp_path) -> None:
    for name, text in (("needed", "int needed(void) { return 7; }"), ("heap", HEAP_THAT_NEEDS)):
        (tmp_path / f"{name}.c").write_text(text)
    folder = tmp_path / "lib"
    folder.mkdir()
    needed, heap = folder / "libneeded.so.2", folder / "libheap.so"
    build = ["cc", "-shared", "-fPIC"]
    subprocess.run([*build, "-Wl,-soname,libneeded.so.2", tmp_path / "needed.c", "-o", needed], check=True)
    subprocess.run([*build, tmp_path / "heap.c", needed, "-ldl", "-o", heap], check=True)
    (candidate,) = read_candidates([str(heap)])
    assert candidate.environment({})["LD_PRELOAD"] == f"{needed}:{heap}"
    docker = render_lines(candidate, "docker")
    assert f"cp {needed} libneeded.so.2 && cp {heap} libheap.so" in docker
    assert "COPY libneeded.so.2 /usr/local/lib/libneeded.so.2\nCOPY libheap.so" in docker
    assert 'LD_PRELOAD="/usr/local/lib/libneeded.so.2:/usr/local/lib/libheap.so"' in docker


def test_nothing_to_gain_is_not_said_while_settings_were_not_tried() -> None:
    plain, tuned = read_candidates(["glibc:arena_max=1", "glibc:arena_max=2"])
    standings = [Standing(plain, 1.0, 3, None), Standing(tuned, None, 0, NO_TIME)]
    advice = Advice(
        verdict="nothing",
        objective="memory",
        candidate=None,
        evidence=None,
        also=[],
        standings=standings,
        search=compute_comparison(Workload(command=("x",), directory="/", environment={}), [plain], []),
        notes=[],
    )
    assert sentence(advice).startswith("nothing better was found, but 1 setting(s) were not tried")
    assert "--budget" in sentence(advice)
    advice = msgspec.structs.replace(advice, standings=standings[:1])
    assert sentence(advice) == "nothing to gain: keep what you have"


class Laboratory:
    """A laboratory whose trials have happened already."""

    def __init__(self, costs: dict[str, list[float]]) -> None:
        self.workload = Workload(command=("x",), directory="/", environment={})
        self.rehearsal = rehearsal()
        self.outcomes = [
            msgspec.structs.replace(outcome(cost, 1e6 * cost), candidate=label, phase=PHASE, round=number)
            for label, numbers in costs.items()
            for number, cost in enumerate(numbers)
        ]


def contenders_of(costs: dict[str, list[float]]) -> list[str]:
    costs = {"system": [1.0] * 6, **costs}
    race = Race(Laboratory(costs), read_candidates(costs), "balanced", 0.0)
    return [candidate.label for candidate in race.contenders()]


PLAIN, TUNED, LIBRARY = "glibc:arena_max=1", "glibc:arena_max=1,hugetlb=1", "default"


def test_the_simplest_that_may_be_alike_the_best_is_run_off_first() -> None:
    assert contenders_of({PLAIN: [0.52] * 4, TUNED: [0.5] * 4}) == [PLAIN, TUNED]
    assert contenders_of({PLAIN: [0.58] * 4, LIBRARY: [0.5] * 4}) == [PLAIN, LIBRARY]
    assert contenders_of({PLAIN: [0.8] * 4, TUNED: [0.5] * 4}) == [TUNED]


def test_who_is_no_better_than_a_simpler_one_has_only_a_seat_that_is_left() -> None:
    plain = {PLAIN: [0.52] * 4, TUNED: [0.52] * 4, LIBRARY: [0.5] * 4}
    assert contenders_of(plain) == [PLAIN, TUNED, LIBRARY]
    assert contenders_of({**plain, "jemalloc:narenas=1": [0.48] * 4}) == [
        PLAIN,
        LIBRARY,
        "jemalloc:narenas=1",
    ]


def test_who_is_slow_now_and_then_keeps_nobody_from_the_run_off() -> None:
    costs = {PLAIN: [0.52, 0.5, 0.9, 0.5, 0.5, 0.5], TUNED: [0.52] * 6, LIBRARY: [0.5] * 6}
    assert contenders_of(costs) == [PLAIN, TUNED, LIBRARY]


def test_whoever_was_the_only_one_so_good_in_the_search_does_not_stand_alone() -> None:
    assert contenders_of({PLAIN: [0.5] * 4, LIBRARY: [0.52] * 4}) == [PLAIN, LIBRARY]


class Fresh(Laboratory):
    """A laboratory whose search has happened already, and whose fresh runs cost what is told."""

    def __init__(self, searched: dict[str, float], fresh: dict[str, float], slow: str = "") -> None:
        super().__init__({label: [cost] * 4 for label, cost in searched.items()})
        self._fresh = fresh
        self._slow = slow

    def run_rounds(self, candidates, numbers, phase, *, enough) -> None:
        for number in numbers:
            for candidate in candidates:
                cost = self._fresh[candidate.label] * (1 + 0.002 * (number % 5))
                cost *= 1.4 if candidate.label == self._slow and number % 3 == 0 else 1
                seen = outcome(cost, 1e6 * cost)
                self.outcomes.append(
                    msgspec.structs.replace(seen, candidate=candidate.label, phase=phase, round=number)
                )


def answer_after(searched: dict[str, float], fresh: dict[str, float], slow: str = "") -> Candidate | None:
    laboratory = Fresh({"system": 1.0, **searched}, {"system": 1.0, **fresh}, slow)
    race = Race(laboratory, read_candidates(["system", *searched]), "balanced", 0.0)
    return _Confirming(laboratory, [], "balanced", time.monotonic() + 600).decide(race, []).candidate


@pytest.mark.parametrize(("in_fresh_runs", "answer"), [(0.51, LIBRARY), (0.54, PLAIN), (0.57, PLAIN)])
@pytest.mark.parametrize("in_the_search", [0.5, 0.54, 0.56, 0.57])
def test_fresh_runs_and_not_the_search_choose_between_the_simplest_and_the_best(
    in_the_search, in_fresh_runs, answer
) -> None:
    found = answer_after({PLAIN: 0.58, LIBRARY: in_the_search}, {PLAIN: 0.58, LIBRARY: in_fresh_runs})
    assert found is not None and found.label == answer


def test_who_beats_the_simplest_is_not_the_answer_where_a_simpler_one_does_as_well() -> None:
    plain, library, tuned = "glibc:hugetlb=1", "default", "jemalloc:dirty_decay_ms=-1,oversize_threshold=0"
    searched = {plain: 0.66, library: 0.6, tuned: 0.58}
    found = answer_after(searched, {plain: 0.66, library: 0.58, tuned: 0.56})
    assert found is not None and found.label == library


def test_where_the_simplest_promises_too_little_another_that_is_alike_is_confirmed() -> None:
    costs = {"glibc:arena_max=1": 0.976, "default": 0.97}
    found = answer_after(costs, {"glibc:arena_max=1": 0.976, "default": 0.9})
    assert found is not None and found.label == "default"


def test_who_is_slow_in_every_third_run_is_not_alike() -> None:
    costs = {"glibc:hugetlb=1": 0.65, "default": 0.63}
    found = answer_after(costs, costs, slow="glibc:hugetlb=1")
    assert found is not None and found.label == "default"


def test_who_failed_once_is_not_the_answer() -> None:
    costs = {"system": [1.0], "glibc:arena_max=1": [0.9], "glibc:arena_max=2": [0.5]}
    laboratory = Laboratory(costs)
    broken = msgspec.structs.replace(laboratory.outcomes[-1].seen, failed="signal 11 (SIGSEGV)")
    laboratory.outcomes.append(msgspec.structs.replace(laboratory.outcomes[-1], round=1, seen=broken))
    race = Race(laboratory, read_candidates(costs), "balanced", 0.0)
    assert [candidate.label for candidate in race.order()] == [PLAIN]

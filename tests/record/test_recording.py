"""A recording holds every event of its program, whatever becomes of the program."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heapsmith.native import library
from heapsmith.run.record import Recording
from heapsmith.trace import Operation, open_trace
from recorded import count_born, record

Build = Callable[..., Path]


def test_a_known_program_gives_exactly_its_events(built: Build, tmp_path: Path) -> None:
    made = record(tmp_path / "a.heap", built("known_events.c"))
    assert made.code == 7
    rows = made.rows()
    sizes = [size for _, size, _, _ in rows]
    rows = rows[sizes.index(7001) : sizes.index(7002)]
    named = dict[int, str]()

    def name(number: int, size: int) -> str | None:
        if number == -1:
            return None
        return named.setdefault(number, str(size))

    said = [
        (operation.name, size, name(born, size), name(died, size)) for operation, size, born, died in rows
    ]
    assert said == [
        ("ALLOCATE", 7001, "7001", None),
        ("FREE", 0, None, "7001"),
        ("ALLOCATE", 100, "100", None),
        ("ALLOCATE_ZEROED", 300, "300", None),
        ("ALLOCATE_ALIGNED", 512, "512", None),
        ("ALLOCATE_ALIGNED", 1000, "1000", None),
        (said[6][0], 5000, "5000", "100"),
        ("REALLOCATE_IN_PLACE", 5001, "5001", "5000"),
        ("FREE", 0, None, "300"),
        ("FREE", 0, None, "512"),
        ("FREE", 0, None, "1000"),
        ("ALLOCATE", 48, "48", None),
        ("ALLOCATE", 60, "60", None),
        ("FREE", 0, None, "60"),
        ("MAP", 12288, "12288", None),
        # A part of it goes: what is left are two.
        ("UNMAP", 0, None, "12288"),
        ("MAP", 4096, said[16][2], None),
        ("MAP", 4096, said[17][2], None),
        ("UNMAP", 0, None, said[16][2]),
        ("UNMAP", 0, None, said[17][2]),
        ("ALLOCATE", 3 << 30, str(3 << 30), None),
        ("FREE", 0, None, str(3 << 30)),
        ("FREE", 0, None, "5001"),
    ]
    assert said[6][0] in {"REALLOCATE_MOVED", "REALLOCATE_IN_PLACE"}
    batch = made.events()[0]
    aligned = batch.alignment[(batch.operation == Operation.ALLOCATE_ALIGNED)]
    assert aligned.tolist()[-2:] == [8, 6]
    born = batch.born >= 0
    assert (batch.usable_bytes[born] >= batch.size_bytes[born]).all()
    end = made.trace.processes[0].end
    assert end is not None
    assert end.exit_code == 7


def test_threads_by_the_thousand_are_all_there(built: Build, tmp_path: Path) -> None:
    made = record(tmp_path / "a.heap", built("many_threads.c"), "2000")
    batches = made.events()
    assert count_born(batches, 3000, 3050) == 2000 * 50
    operations = np.concatenate([batch.operation for batch in batches])
    assert np.count_nonzero(operations == Operation.THREAD_START) == 2001
    assert np.count_nonzero(operations == Operation.THREAD_END) == 2000
    threads = made.trace.processes[0].threads
    assert len(threads) == 2001
    assert all(thread.ended_ns is not None for index, thread in threads.items() if index)
    assert "DROPPED" not in made.errors


def test_what_threads_give_back_after_their_end_is_recorded(tmp_path: Path) -> None:
    # The C library keeps the stacks of a few ended threads; of more it frees the tables, in the threads themselves.
    program = """
import threading
meet = threading.Barrier(41)
for _ in range(40):
    threading.Thread(target=meet.wait, daemon=True).start()
meet.wait()
while threading.active_count() > 1:
    pass
"""
    made = record(tmp_path / "a.heap", sys.executable, "-c", program)
    assert "DROPPED" not in made.errors
    names = [thread.name for thread in made.trace.processes[0].threads.values()]
    assert names.count("ended threads") == 1


def test_a_program_may_limit_its_own_address_space(tmp_path: Path) -> None:
    limits_itself = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
print(len([bytearray(1 << 20) for _ in range(500)]))
"""
    made = record(tmp_path / "a.heap", sys.executable, "-c", limits_itself)
    assert (made.code, made.output) == (0, "500\n")
    assert sum(size >= 1 << 20 for size in made.sizes()) >= 500
    in_little = """
import os, resource
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
os.execvp("echo", ["echo"])
"""
    made = record(tmp_path / "b.heap", sys.executable, "-c", in_little)
    assert made.code == 0
    assert len(made.trace.processes) == 1


def test_a_block_that_another_thread_frees_is_one_object(built: Build, tmp_path: Path) -> None:
    made = record(tmp_path / "a.heap", built("hand_over.c"))
    alive = set[int]()
    died = 0
    for batch in made.events():
        for size, born, dead in zip(
            batch.size_bytes.tolist(), batch.born.tolist(), batch.died.tolist(), strict=True
        ):
            if size == 2000:
                alive.add(born)
            if dead in alive:
                alive.remove(dead)
                died += 1
            assert dead != -2
    assert died == 20000
    assert not alive


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_before_a_kill_at_a_random_moment(built: Build, tmp_path: Path, seed: int) -> None:
    done = tmp_path / "done"
    done.write_bytes(bytes(4096))
    path = tmp_path / "a.heap"
    recording = Recording([str(built("until_killed.c")), str(done)], path)
    moment = time.monotonic() + random.Random(seed).uniform(0.05, 0.4)

    def kill(_: object) -> None:
        if time.monotonic() > moment:
            recording.send_signal(signal.SIGKILL)

    result = recording.wait(kill)
    assert result.exit is not None
    assert result.exit.signal == signal.SIGKILL
    number = int(np.frombuffer(done.read_bytes(), np.uint64)[0])
    assert number > 100
    batches = list(open_trace(path).batches())
    # The last one may have been allocated and not yet been told of.
    assert count_born(batches, 10000, 11000) in {number, number + 1}
    assert result.dropped_events == 0


def test_forked_children_are_processes_of_their_own(built: Build, tmp_path: Path) -> None:
    made = record(tmp_path / "a.heap", built("forks.c"), "200")
    children = [process for process in made.trace.processes if process.start.forked_from is not None]
    assert len(children) == 200
    assert len(made.trace.processes) == 201
    assert {process.start.forked_from for process in children} == {0}
    by_process = dict[int, int]()
    for batch in made.trace.batches():
        by_process[batch.process] = by_process.get(batch.process, 0) + count_born([batch], 5000, 5020)
    assert [by_process[process.index] for process in children] == [20] * 200
    codes = sorted(
        process.end.exit_code for process in children if process.end and process.end.exit_code is not None
    )
    assert codes == sorted(child % 100 for child in range(200))


def test_executed_programs_are_processes_of_their_own(tmp_path: Path) -> None:
    made = record(tmp_path / "a.heap", "sh", "-c", "/bin/true; exec cat /dev/null")
    names = [process.start.name for process in made.trace.processes]
    assert "true" in names
    assert "cat" in names
    first = made.trace.processes[0]
    assert first.end is not None
    assert first.end.replaced


def test_dropped_events_are_counted_and_said(built: Build, tmp_path: Path) -> None:
    # The recorder sleeps between looks longer than a ring of its first size lasts.
    made = record(tmp_path / "a.heap", built("hand_over.c"), options=("--on-full", "drop"))
    dropped = sum(drops.events for process in made.trace.processes for drops in process.drops)
    recorded = sum(len(batch) for batch in made.events())
    assert made.code == 0
    assert (dropped > 0) == ("DROPPED" in made.errors)
    assert recorded + dropped >= 40000
    # A free that was dropped is found out when its address is used again: nothing lives twice.
    for batch in made.events():
        assert len(np.unique(batch.born[batch.born >= 0])) == np.count_nonzero(batch.born >= 0)


def test_the_program_goes_on_when_the_recorder_is_killed(built: Build, tmp_path: Path) -> None:
    path = tmp_path / "a.heap"
    words = [sys.executable, "-m", "heapsmith", "record", "-o", str(path), "--", "sh", "-c"]
    script = f"echo $$; sleep 0.3; {built('hand_over.c')} && echo finished"
    process = subprocess.Popen([*words, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    while not path.exists() or not open_trace(path).processes:
        time.sleep(0.02)
    process.kill()
    assert process.stdout.read().strip() == "finished"
    process.wait()
    assert open_trace(path).processes[0].start.name == "sh"
    for left in Path(f"/dev/shm/heapsmith-{os.getuid()}").glob(f"run-{process.pid}-*"):
        shutil.rmtree(left)


def test_a_full_disk_ends_the_recording_and_not_the_program(tmp_path: Path) -> None:
    path = tmp_path / "a.heap"
    code = "blocks = [bytes(at % 3000) for at in range(100_000)]"
    recording = Recording([sys.executable, "-c", code], path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The running program keeps the limit that it was started with.
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        result = recording.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert result.exit is not None
    assert result.exit.code == 0
    assert any("recording stopped" in note for note in result.notes)
    trace = open_trace(path)
    assert trace.damage is None
    assert path.stat().st_size <= 30_000
    # One batch would be larger: as much of it as there was room for is there.
    assert 0 < trace.events == result.events
    assert result.dropped_events > 0


def test_ctrl_c_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.heap"
    words = [sys.executable, "-m", "heapsmith", "record", "-o", str(path), "--", "sleep", "100"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    with contextlib.suppress(FileNotFoundError):
        while not path.exists() or path.stat().st_size < 500:
            time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT
    assert "events" in errors
    trace = open_trace(path)
    assert trace.damage is None
    end = trace.processes[0].end
    assert end is not None
    assert end.signal == signal.SIGINT


def test_a_file_that_is_there_is_refused_without_force(tmp_path: Path) -> None:
    path = tmp_path / "a.heap"
    path.write_text("precious")
    words = [sys.executable, "-m", "heapsmith", "record", "-o", str(path)]
    refused = subprocess.run([*words, "--", "true"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert path.read_text() == "precious"
    assert subprocess.run([*words, "--force", "--", "true"], capture_output=True, check=False).returncode == 0
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    into_a_pipe = [*words[:-1], str(pipe), "--force", "--", "true"]
    refused = subprocess.run(into_a_pipe, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2 and "is a pipe" in refused.stderr
    assert open_trace(path).processes[0].start.name == "true"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-o", "DIR/a.heap", "--", "no-such-program"], 127, "command not found"),
        (["-o", "DIR/none/a.heap", "--", "true"], 2, "cannot be written"),
        (["-o", "DIR", "--", "true"], 2, "is a directory"),
        (["-o", "DIR/a.heap"], 2, "no command"),
        (["-o", "DIR/a.heap", "--sample-every", "1KiB", "--", "true"], 2, "--stacks sampled"),
        (["-o", "DIR/a.heap", "--attach", "me"], 2, "takes a whole number"),
        (["--", "true"], 2, "--output"),
    ],
)
def test_bad_input_gets_one_line(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    words = [word.replace("DIR", str(tmp_path)) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "heapsmith", "record", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "a.heap").exists()


def test_a_recorder_without_the_address_space_to_read_says_so_and_does_not_begin(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heapsmith", "record", "-o", str(tmp_path / "a.heap"), "--", "echo", "ran"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "address space" in done.stderr and not (tmp_path / "a.heap").exists()


def test_a_report_of_a_threshold_is_replaced_with_force_alone(tmp_path: Path) -> None:
    path, report = tmp_path / "a.heap", tmp_path / "a.heap.html"
    report.write_text("precious")
    words = [sys.executable, "-m", "heapsmith", "record", "-o", str(path), "--dump-above", "1MiB"]
    command = ["--", "python3", "-S", "-c", "import time; kept = bytes(4 << 20); time.sleep(0.5)"]
    refused = subprocess.run([*words, *command], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert report.read_text() == "precious" and not path.exists()
    done = subprocess.run([*words, "--force", *command], capture_output=True, text=True, check=False)
    assert f"the report of that moment is {report}" in done.stderr
    assert report.read_text() != "precious"


def test_names_that_are_no_text_are_recorded_and_told(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    script = folder / "p.py"
    script.write_text("import sys\nkept = [bytes(1000) for _ in range(5000)]\nprint(ascii(sys.argv[1]))\n")
    made = record(folder / "a.heap", "python3", script, os.fsdecode(b"\xff"), options=("--stacks", "all"))
    assert (made.code, made.output) == (0, "'\\udcff'\n")
    for words in (["report"], ["report", "--json"], ["leaks"], ["report", "-o", folder / "a.html"]):
        done = subprocess.run(
            [sys.executable, "-m", "heapsmith", *words, folder / "a.heap"], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert b"p.py" in done.stderr + (folder / "a.html").read_bytes()


def test_nothing_is_left_in_memory(tmp_path: Path) -> None:
    before = set(Path(f"/dev/shm/heapsmith-{os.getuid()}").glob(f"run-{os.getpid()}-*"))
    Recording(["true"], tmp_path / "a.heap").wait()
    assert set(Path(f"/dev/shm/heapsmith-{os.getuid()}").glob(f"run-{os.getpid()}-*")) == before
    assert library("libheapsmith_record.so").exists()


def test_a_python_block_that_shrinks_where_malloc_has_it_stays_mallocs(tmp_path: Path) -> None:
    code = """
blocks = [bytearray(600 + size) for size in range(300)]
for block in blocks:
    del block[:]
    block += b"x" * 300
    del block[20:]
"""
    for _ in range(3):
        made = record(tmp_path / "a.heap", sys.executable, "-c", code, options=("--force",))
        assert made.code == 0


def test_the_memory_of_the_program_is_told_without_what_recording_its_stacks_takes(tmp_path: Path) -> None:
    script = tmp_path / "deep.py"
    script.write_text(
        "import time\n"
        "def go(depth, path, kept):\n"
        "    kept.append(bytes(40))\n"
        "    if depth:\n"
        + "".join(f"        go(depth - 1, path + 'x', kept)  # {i}\n" for i in range(6))
        + "\n"
        "kept = []\n"
        "go(6, '', kept)\n"
        "time.sleep(0.3)\n"
    )
    highest = list[int]()
    for stacks in ("none", "all"):
        made = record(tmp_path / f"{stacks}.heap", "python3", "-S", script, options=("--stacks", stacks))
        highest.append(int(made.trace.processes[0].memory["anonymous_bytes"].max()))
    without, with_stacks = highest
    assert with_stacks < without + (4 << 20)

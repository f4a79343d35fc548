"""A part of a program recorded by itself, a running one entered, a report before the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from heapsmith.run import threshold
from heapsmith.run.record import Recording
from heapsmith.trace import Trace, open_trace
from recorded import count_born, record

PART = """
import sys, threading
import heapsmith

before = [bytearray(41000) for _ in range(10)]
with heapsmith.record(sys.argv[1], stacks=sys.argv[3]) as recording:
    kept = [bytearray(42000) for _ in range(100)]
    objects = [object() for _ in range(5000)]
    recording.mark("in the middle")
    thread = threading.Thread(target=lambda: [bytearray(43000) for _ in range(20)])
    thread.start()
    thread.join()
    import sqlite3  # loaded only now
    sqlite3.connect(":memory:").execute("create table t (x)")
    before.clear()
outside = [bytearray(44000) for _ in range(10)]
with heapsmith.record(sys.argv[2]) as recording:
    again = [bytearray(45000) for _ in range(30)]
    kept.clear()
print(recording.result.events)
"""


def run_part(tmp_path: Path, stacks: str, *before: str) -> tuple[Trace, Trace]:
    first, second = tmp_path / "first.heap", tmp_path / "second.heap"
    words = [*before, sys.executable, "-c", PART, str(first), str(second), stacks]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return open_trace(first), open_trace(second)


@pytest.mark.parametrize("under_run", [False, True])
def test_a_part_of_a_program_is_recorded_and_nothing_else(tmp_path: Path, under_run: bool) -> None:
    before = [sys.executable, "-m", "heapsmith", "run", "--no-summary", "--"] if under_run else []
    first, second = run_part(tmp_path, "all", *before)
    batches = list(first.batches())
    assert first.damage is None
    assert count_born(batches, 42001, 42002) == 100
    assert count_born(batches, 43001, 43002) == 20
    assert count_born(batches, 41001, 41002) == 0
    assert count_born(batches, 44001, 44002) == 0
    # The blocks from before the recording were freed in it.
    assert sum(int(np.count_nonzero(batch.died == -2)) for batch in batches) >= 10
    marks = [mark.name for mark in first.processes[0].marks]
    assert "in the middle" in marks
    # Python's small objects come from arenas that were there before.
    assert sum(int(np.count_nonzero(batch.size_bytes == 16)) for batch in batches) >= 5000
    frames = {first.strings[int(frame["a"])] for frame in first.frames[1:] if frame["kind"] == 2}
    assert "<lambda>.<locals>.<listcomp>" in frames or "<lambda>" in frames
    assert any("sqlite" in Path(module.path).name for module in first.modules)
    again = list(second.batches())
    assert count_born(again, 45001, 45002) == 30
    assert count_born(again, 42001, 42002) == 0
    assert sum(int(np.count_nonzero(batch.died == -2)) for batch in again) >= 100


def test_inside_a_recording_a_part_is_marked(tmp_path: Path) -> None:
    program = tmp_path / "part.py"
    program.write_text(
        "import heapsmith\nwith heapsmith.record('part.heap') as part:\n    part.mark('inside')\n    x = bytearray(5000)\n"
    )
    made = record(tmp_path / "whole.heap", sys.executable, program)
    assert made.code == 0, made.errors
    assert [mark.name for mark in made.trace.processes[0].marks] == [
        "begin part.heap",
        "inside",
        "end part.heap",
    ]
    assert not Path("part.heap").exists()


def test_a_part_that_cannot_be_recorded_says_why_in_one_error_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import heapsmith, sys\n"
        "try:\n"
        "    with heapsmith.record(sys.argv[1]): pass\n"
        "except heapsmith.errors.RunError as error: print(error)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "none" / "a.heap"), os.fsdecode(b"\xff")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot be written: No such file or directory" in done.stdout


def test_a_report_is_written_when_live_bytes_cross_a_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.heap"
    readable_events = list[int]()

    def begin(words: list[str], **_: object) -> subprocess.Popen[bytes]:
        # What the report is made from is there in this moment.
        assert words[2:] == ["heapsmith", "report", str(path), "-o", f"{path}.html", "--force"]
        readable_events.append(sum(len(batch) for batch in open_trace(path).batches()))
        return subprocess.Popen(["true"])

    monkeypatch.setattr(threshold, "_begin", begin)
    watching = threshold.Threshold(20 << 20, path)
    code = "x = [bytearray(100000) for _ in range(300)]\nimport time; time.sleep(0.3)"
    Recording([sys.executable, "-c", code], path).wait(watching.look)
    assert len(readable_events) == 1
    assert readable_events[0] > 200
    assert [mark.name for mark in open_trace(path).processes[0].marks] == ["live bytes over 20.0 MiB"]
    assert f"{path}.html" in watching.wait()


IDLE = """
import time, sys
print("ready", flush=True)
end = time.monotonic() + 30
kept = []
while time.monotonic() < end:
    kept.append(bytearray(46000))
    if len(kept) > 20:
        kept.pop(0)
    time.sleep(0.005)
"""


def test_a_running_process_is_entered_and_left(tmp_path: Path) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("there is no gdb on this machine")
    path = tmp_path / "a.heap"
    process = subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        words = [sys.executable, "-m", "heapsmith", "record", "-o", str(path), "--attach", str(process.pid)]
        recorder = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 40
        while recorder.poll() is None and time.monotonic() < until:
            if path.exists() and open_trace(path).processes:
                break
            time.sleep(0.05)
        time.sleep(0.5)
        recorder.send_signal(signal.SIGINT)
        _, errors = recorder.communicate(timeout=30)
        if "not permitted" in errors:
            pytest.skip(errors)
        assert recorder.returncode == 0, errors
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    trace = open_trace(path)
    batches = list(trace.batches())
    assert trace.damage is None
    assert count_born(batches, 46001, 46002) > 20
    # What was alive before is not known.
    assert sum(int(np.count_nonzero(batch.died == -2)) for batch in batches) >= 1


def test_entering_nobody_is_refused_in_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "heapsmith", "record", "-o", str(tmp_path / "a.heap"), "--attach"]
    for pid, said in (("999999", "no process"), ("1", "cannot be entered" if os.getuid() else "")):
        if not said:
            continue
        done = subprocess.run([*words, pid], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

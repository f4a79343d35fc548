from __future__ import annotations

import time

from heapsmith.run.launch import Run
from heapsmith.run.values import Exit


def test_how_a_program_ended_is_told_also_to_who_saw_its_end_before_the_launcher() -> None:
    with Run(["sh", "-c", "sleep 0.3; kill -9 $$"]) as run:
        deadline_s = time.monotonic() + 20
        while not (seen := [p for p in run.watcher.poll() if p.pid == run.pid]) or any(p.alive for p in seen):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert seen[-1].exit == Exit(code=None, signal=None, oom_killed=None)
        result = run.wait()
    assert result.processes[0].exit == Exit(code=None, signal=9, oom_killed=False)

"""Regions that are damaged, of another version, gone or another user's: one line, never a traceback."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heapsmith.run.directory import RunDirectory
from heapsmith.run.watch import Watcher
from heapsmith.show.text import render_process
from heapsmith.wire.region import PAGE_BYTES, SLOT, SLOTS_OFFSET_BYTES
from heapsmith.wire.render import HEADER, RECORDING_HEADER, render_header, render_recording_header
from watched import preloaded, run_directory

Heapsmith = Callable[..., subprocess.CompletedProcess[str]]


def test_the_generated_header_is_the_wire() -> None:
    assert HEADER.read_text() == render_header()
    assert RECORDING_HEADER.read_text() == render_recording_header()


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[str], RunDirectory]]:
    """A watched program that runs for as long as the test."""
    with run_directory() as directory:
        code = "import time; keep = [bytes(1000) for _ in range(100)]; print('ready', flush=True); time.sleep(60)"
        program = subprocess.Popen(
            [sys.executable, "-c", code], env=preloaded(directory), stdout=subprocess.PIPE, text=True
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        try:
            yield program, directory
        finally:
            program.kill()
            program.communicate()


def region_of(directory: RunDirectory) -> Path:
    return next(directory.path.glob("*.region"))


def poke(path: Path, offset: int, raw: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(raw)


def test_a_region_of_another_version_is_named(
    heapsmith: Heapsmith, sleeper: tuple[subprocess.Popen[str], RunDirectory]
) -> None:
    program, directory = sleeper
    poke(region_of(directory), 8, (77).to_bytes(4, "little"))
    finished = heapsmith("info", str(program.pid))
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "layout 77" in finished.stderr
    listed = heapsmith("ps")
    assert listed.returncode == 0
    assert "layout 77" in listed.stderr


@pytest.mark.parametrize("raw", [b"", b"x" * 100, b"\0" * 20000, b"\xff" * 20000])
def test_what_is_no_region_is_named(
    heapsmith: Heapsmith, sleeper: tuple[subprocess.Popen[str], RunDirectory], raw: bytes
) -> None:
    program, directory = sleeper
    path = region_of(directory)
    path.unlink()
    path.write_bytes(raw)
    finished = heapsmith("info", str(program.pid))
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "not a region" in finished.stderr


@pytest.fixture(scope="module")
def sound_region(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The first pages of the region of a real program."""
    with run_directory() as directory:
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import threading; [threading.Thread(target=str).start() for _ in range(3)]",
            ],
            env=preloaded(directory),
            check=True,
        )
        with region_of(directory).open("rb") as file:
            return file.read(SLOTS_OFFSET_BYTES + 12 * PAGE_BYTES)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_in_a_region_is_shown_or_refused(sound_region: bytes, data: st.DataObject) -> None:
    """Any bytes, and bytes that are nearly right: a process or one error, and it can be printed."""
    raw = np.frombuffer(sound_region, np.uint8).copy()
    edges = st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\x7f" * 8, b"\0" * 7 + b"\x80"]) | st.binary(
        min_size=8, max_size=8
    )
    for _ in range(data.draw(st.integers(1, 12))):
        offset = 16 + 8 * data.draw(st.integers(0, (len(raw) - 24) // 8))
        raw[offset : offset + 8] = np.frombuffer(data.draw(edges), np.uint8)
    with run_directory() as directory:
        (directory.path / "1.1.region").write_bytes(raw.tobytes())
        with contextlib.closing(Watcher(directory.path)) as watcher:
            found = watcher.poll()
            if found:
                render_process(found[0])
            else:
                assert len(watcher.problems) == 1


def test_a_truncated_region_shows_what_it_has(sound_region: bytes) -> None:
    with run_directory() as directory:
        (directory.path / "1.1.region").write_bytes(sound_region[: SLOTS_OFFSET_BYTES + SLOT.size_bytes])
        with contextlib.closing(Watcher(directory.path)) as watcher:
            assert len(watcher.poll()) == 1


def test_a_process_that_is_not_watched_is_told_apart_from_one_that_is_gone(heapsmith: Heapsmith) -> None:
    with subprocess.Popen(["sleep", "20"]) as sleep:
        finished = heapsmith("info", str(sleep.pid))
        sleep.kill()
    assert finished.returncode == 2
    assert "not watched" in finished.stderr
    finished = heapsmith("info", str(sleep.pid))
    assert finished.returncode == 2
    assert "there is no process" in finished.stderr


def test_another_users_process_is_said_to_be_so(
    heapsmith: Heapsmith, sleeper: tuple[subprocess.Popen[str], RunDirectory]
) -> None:
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can ask as another user, with setpriv")
    source = Path(sys.modules["heapsmith"].__file__ or "").parent.parent
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    interpreter = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    probe = subprocess.run([*as_nobody, interpreter, "-c", "import numpy"], capture_output=True, check=False)
    if probe.returncode != 0:
        interpreter = sys.executable
        probe = subprocess.run(
            [*as_nobody, interpreter, "-c", "import numpy"], capture_output=True, check=False
        )
    if probe.returncode != 0:
        pytest.skip("no interpreter with NumPy that another user may run")
    finished = subprocess.run(
        [*as_nobody, interpreter, "-m", "heapsmith", "info", str(sleeper[0].pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(source), "PATH": os.environ["PATH"]},
        cwd="/",
    )
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.count("\n") == 1
    assert "another user" in finished.stderr


def test_a_region_can_only_be_read_from_outside(compiled: Callable[..., Path]) -> None:
    """The descriptor is sealed: nobody can write it or change its size."""
    nowhere = preloaded(RunDirectory(Path("/nowhere"), in_memory=False, why_not=""))
    program = subprocess.Popen(
        [compiled("plain.c"), "0", "wait"], env=nowhere, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    try:
        assert program.stdout.readline() == "plain 0\n"
        with contextlib.closing(Watcher(pids=[program.pid])) as watcher:
            assert [process.pid for process in watcher.poll()] == [program.pid]
        files = Path(f"/proc/{program.pid}/fd")
        region = next(file for file in files.iterdir() if "heapsmith-region" in str(file.readlink()))
        with region.open("r+b", buffering=0) as file:
            with pytest.raises(PermissionError):
                file.write(b"x")
            with pytest.raises(PermissionError):
                file.truncate(0)
    finally:
        program.kill()
        program.communicate()

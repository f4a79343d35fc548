"""What cannot be seen: another user's processes, a /proc that hides them, no /proc at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .conftest import behind_watch

NOBODY = 65534
AS_NOBODY = f"""
import os, sys
import heapsmith.cli as cli
cli.main(["ps"]); cli.main(["metrics", "--once"]); cli.main(["info", "1"])  # what has to be loaded is loaded as root
os.setgroups([]); os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
sys.stderr.write("now\\n")
for words in sys.argv[1:]:
    sys.stderr.write(f"exit {{cli.main(words.split())}}\\n")
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def watched_pid() -> Iterator[int]:
    """A watched process of this user."""
    child = subprocess.Popen(["sleep", "60"], env=behind_watch())
    yield child.pid
    child.kill()
    child.wait()


def as_nobody(*commands: str, before: str = "true") -> list[str]:
    """What is said on standard error, after becoming nobody, in a mount namespace where `before` has run."""
    script = f'{before} && exec "$0" -c "$1" "${{@:2}}"'
    words = ["bash", "-c", script, sys.executable, AS_NOBODY, *commands]
    if before != "true":
        words = ["unshare", "-m", *words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if before != "true" and done.returncode != 0 and "now" not in done.stderr:
        pytest.skip(f"no mount namespace can be had here: {done.stderr.strip()}")
    return done.stderr.partition("now\n")[2].splitlines()


@needs_root
def test_another_users_process_is_said_to_be_that(watched_pid: int) -> None:
    said = as_nobody(f"info {watched_pid}", "ps", "metrics --once", f"info {watched_pid} --set limit=1GiB")
    refusal = f"heapsmith: process {watched_pid} is another user's (ask as that user)"
    assert said == [refusal, "exit 2", "exit 0", "exit 0", refusal, "exit 2"]


@needs_root
def test_a_proc_that_hides_others_is_no_trouble(watched_pid: int) -> None:
    hide = "mount -t proc -o hidepid=2 proc /proc"
    said = as_nobody(f"info {watched_pid}", "ps", "metrics --once", "info 4194000", before=hide)
    assert said == [
        f"heapsmith: process {watched_pid} is another user's (ask as that user)", "exit 2", "exit 0", "exit 0",
        "heapsmith: there is no process 4194000 (see `heapsmith ps`)", "exit 2",
    ]  # fmt: skip


@needs_root
def test_programs_run_and_are_told_what_is_known_without_proc() -> None:
    code = "import heapsmith; i = heapsmith.mallinfo(); print(i.live_bytes is not None, i.resident_bytes, i.picture())"
    script = 'mount -t tmpfs none /proc && "$0" -m heapsmith run --no-summary -- "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace can be had here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "True None []\n"), done.stderr
    assert "Traceback" not in done.stderr

"""A watched program behaves as without heapsmith: what it says, how it ends, what is open."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from heapsmith.run.directory import RunDirectory
from heapsmith.units import MiB
from watched import PROGRAMS, Watched, preloaded

SCENARIOS = re.findall(r'\{"(\w+)", \w+\}', (PROGRAMS / "behaviour.c").read_text())


def unwatched(
    command: list[str | Path], environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    finished = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    return finished.returncode, finished.stdout, finished.stderr


def seen(watched: Watched) -> tuple[int, str, str]:
    return watched.code, watched.output, watched.errors


BOUNDED = ("grows_until_null", "forks_under_limit")
"""Not without a bound of the shell's, or a limit."""


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in BOUNDED])
def test_a_program_does_the_same_watched_and_unwatched(
    watch: Callable[..., Watched], compiled: Callable[..., Path], scenario: str
) -> None:
    program = compiled("behaviour.c", "-ldl")
    expected = unwatched([program, scenario])
    full = watch([program, scenario])
    assert seen(full) == expected
    assert expected[0] not in (2, 6, 8, 9, -31)
    for process in full.processes:
        assert process.lost == 0
        assert process.live_bytes >= 0
        assert all(row.live_blocks >= 0 and row.live_bytes >= 0 for row in process.size_classes)


@pytest.mark.parametrize(
    "scenario", ["list_descriptors", "daemon_with_own_files", "fork_under_load", "exec_chain"]
)
def test_a_program_that_keeps_its_region_in_a_descriptor_does_the_same(
    compiled: Callable[..., Path], scenario: str
) -> None:
    """As when it is preloaded by hand, or where no memory file system can be written."""
    program = compiled("behaviour.c", "-ldl")
    code, output, errors = unwatched([program, scenario])
    without_directory = preloaded(RunDirectory(Path("/nowhere"), in_memory=False, why_not=""))
    watched = unwatched([program, scenario], without_directory)
    if scenario == "list_descriptors":
        # They lie beyond what programs use, and only there.
        more = set(watched[1].split()) - set(output.split())
        assert len(more) == 2
        assert all(int(number) >= 1000 for number in more)
    else:
        assert watched == (code, output, errors)


@pytest.mark.parametrize(
    "bound",
    [
        "ulimit -v 300000",
        "ulimit -f 0",
        "ulimit -f 100",
        "ulimit -n 8",
        "ulimit -l 0",
        "ulimit -s 256",
        "exec <&-",
        "exec >&-",
        "exec 2>&-",
        "exec <&- >&- 2>&-",
        "trap '' PIPE TERM INT",
        "umask 777",
        "cd / ; unset HOME PATH",
    ],
)
def test_a_bound_of_the_shell_changes_nothing(
    watch: Callable[..., Watched], compiled: Callable[..., Path], bound: str
) -> None:
    program = compiled("behaviour.c", "-ldl")
    for scenario in ("handlers_at_exit", "names_and_limits", "dlopen_loop"):
        command: list[str | Path] = ["/bin/sh", "-c", f"{bound}; exec {program} {scenario}"]
        assert seen(watch(command)) == unwatched(command), scenario


def test_a_bound_on_address_space_is_met_as_without(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    program = compiled("behaviour.c", "-ldl")
    command: list[str | Path] = ["/bin/sh", "-c", f"ulimit -v 100000; exec {program} grows_until_null"]
    full = watch(command)
    assert seen(full) == unwatched(command) == (0, "enough\n", "")
    assert full.first.failures == 1
    assert full.first.live_bytes_peak > 50 * MiB


def test_children_of_a_fork_begin_with_what_they_inherit(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    full = watch([compiled("behaviour.c", "-ldl"), "fork_under_load"])
    parent, *children = full.processes
    assert len(children) == 500
    for number, child in enumerate(sorted(children, key=lambda process: process.start_time_s)):
        assert child.ppid == parent.pid
        assert child.exit is not None
        assert child.exit.code == number % 7
        # It freed the inherited block of 5000 bytes, and its own; what other threads held is left.
        assert child.frees >= 1
        assert 0 <= child.live_bytes <= child.live_bytes_peak
        assert child.live_bytes < 5 * MiB
    assert parent.live_bytes < 64 * 1024


def test_a_bare_fork_leaves_the_parents_counters_alone(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    full = watch([compiled("behaviour.c", "-ldl"), "bare_forks"])
    parent, *children = full.processes
    assert parent.allocations < 100
    assert [child.allocations for child in children] == [1000] * 5


def test_every_program_of_an_exec_chain_has_its_own_region(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    full = watch([compiled("behaviour.c", "-ldl"), "exec_chain"])
    assert [process.image for process in full.processes] == [1, 2, 3, 4, 5, 6]
    assert len({process.pid for process in full.processes}) == 1
    assert full.first.exit is not None
    assert full.first.exit.code == 42


def test_threads_are_called_what_they_are_called_at_the_end(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    full = watch([compiled("behaviour.c", "-ldl"), "late_names"])
    assert sorted(thread.name for thread in full.first.threads) == ["main-late"] + ["named-late"] * 3


def test_a_library_that_waits_for_a_thread_under_the_linkers_lock_loads(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    waiting = compiled("waits_in_constructor.c", "-shared", "-fPIC")
    program = compiled("behaviour.c", "-ldl")
    full = watch(
        [program, "waits_in_constructor"], environment={"WAITING_LIBRARY": str(waiting)}, timeout_s=20
    )
    assert full.code == 15


def test_children_are_under_the_limit_of_their_parent_and_warned_of_once(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    full = watch([compiled("behaviour.c", "-ldl"), "forks_under_limit"], limit=60 << 20, warn_at=20 << 20)
    assert full.code == 16
    assert [process.refused for process in full.processes] == [0, 1, 1, 1]
    assert [process.warnings for process in full.processes] == [1, 0, 0, 0]
    assert all(process.limit_bytes == 60 << 20 for process in full.processes)
    # Each generation inherits what the one before it held.
    live = [round(process.live_bytes / MiB) for process in full.processes]
    assert live == [30, 34, 38, 42]


def test_a_sandbox_does_not_kill_for_what_the_watch_does(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    full = watch([compiled("behaviour.c", "-ldl"), "sandboxed"])
    assert (full.code, full.output) == (21, "sandboxed\n")
    assert full.first.exit is not None
    assert full.first.exit.code == 21
    assert full.first.allocations > 10_000


@pytest.mark.parametrize(
    ("scenario", "code"),
    [
        ("handlers_at_exit", 7),
        ("quick", 11),
        ("leaves_at_once", 12),
        ("another_thread_leaves", 13),
        ("main_thread_ends", 0),
        ("aborts", None),
        ("crashes", None),
    ],
)
def test_the_exit_code_is_noted_where_the_process_chose_it(
    watch: Callable[..., Watched], compiled: Callable[..., Path], scenario: str, code: int | None
) -> None:
    full = watch([compiled("behaviour.c", "-ldl"), scenario])
    assert full.first.exit is not None
    assert full.first.exit.code == code

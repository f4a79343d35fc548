"""What of heapsmith works on this machine, found by trying it, and what to do about what does not."""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heapsmith.errors import HeapsmithError
from heapsmith.run.directory import create_run_directory
from heapsmith.run.launch import Run, Wishes
from heapsmith.units import format_bytes, parse_bytes

_TRIAL_S: Final = 20.0
_THP: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PARANOID: Final = Path("/proc/sys/kernel/perf_event_paranoid")
_PTRACE_SCOPE: Final = Path("/proc/sys/kernel/yama/ptrace_scope")


class Verdict(enum.StrEnum):
    """How well something works here."""

    WORKS = "works"
    LIMITED = "limited"
    FAILS = "fails"


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Args:
        subject: What was tried.
        verdict: How well it works.
        detail: What was found, in one clause.
        remedy: What to do about it; empty where nothing needs doing.
        is_essential: Whether heapsmith's main job needs it.
    """

    subject: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    is_essential: bool = False


def examine() -> Iterator[Finding]:
    """Try everything, the essential first; findings come as they are made.

    Example:
        >>> next(examine()).subject
        'watching a program'
    """
    yield _watching()
    yield _limiting()
    yield _python_objects()
    yield _shared_memory()
    yield _compiler()
    yield _cgroup()
    yield _huge_pages()
    yield _perf()
    yield _attaching()
    yield _kernel()


def _trial(command: list[str], wishes: Wishes) -> tuple[int | None, int, int, str]:
    """Run a small program; answer exit code, allocations, failures and the note on Python's objects."""
    with contextlib.closing(Run(command, wishes)) as run:
        result = run.wait()
    process = result.processes[0] if result.processes else None
    note = process.python.note if process and process.python else ""
    return result.exit.code, process.allocations if process else 0, process.failures if process else 0, note


def _watching() -> Finding:
    subject = "watching a program"
    try:
        code, allocations, _, _ = _trial(["sh", "-c", "exit 3"], Wishes())
    except HeapsmithError as error:
        return Finding(subject, Verdict.FAILS, str(error), "install heapsmith again", is_essential=True)
    if code != 3 or not allocations:
        return Finding(
            subject,
            Verdict.FAILS,
            f"`sh -c 'exit 3'` ended with {code}, {allocations} allocations seen",
            "see whether LD_PRELOAD is forbidden here, or the C library is not glibc 2.34 or newer",
            is_essential=True,
        )
    return Finding(subject, Verdict.WORKS, f"{allocations} allocations of `sh` seen", is_essential=True)


def _limiting() -> Finding:
    subject = "limiting a program"
    script = "try:\n    x = bytearray(1 << 30)\nexcept MemoryError:\n    raise SystemExit(7)"
    try:
        code, _, failures, _ = _trial(
            [sys.executable, "-I", "-c", script], Wishes(limit_bytes=parse_bytes("256MiB"))
        )
    except HeapsmithError as error:
        return Finding(subject, Verdict.FAILS, str(error), is_essential=True)
    if code != 7 or not failures:
        return Finding(
            subject, Verdict.FAILS, f"1 GiB was not refused under 256 MiB (exit {code})", is_essential=True
        )
    return Finding(subject, Verdict.WORKS, "Python met MemoryError at 256 MiB", is_essential=True)


def _python_objects() -> Finding:
    subject = "counting Python's objects"
    version = platform.python_version()
    try:
        _, allocations, _, note = _trial(
            [sys.executable, "-I", "-c", "x = [str(i) for i in range(9999)]"], Wishes()
        )
    except HeapsmithError as error:
        return Finding(subject, Verdict.FAILS, str(error))
    if note:
        return Finding(
            subject, Verdict.LIMITED, f"not in Python {version}: {note}", "use CPython 3.11 to 3.15"
        )
    return Finding(subject, Verdict.WORKS, f"{allocations} allocations of Python {version} seen")


def _shared_memory() -> Finding:
    subject = "memory to share with programs"
    try:
        directory = create_run_directory()
    except HeapsmithError as error:
        return Finding(subject, Verdict.FAILS, str(error), error.hint)
    directory.remove()
    if not directory.in_memory:
        return Finding(
            subject,
            Verdict.LIMITED,
            directory.why_not,
            "mount a tmpfs at /dev/shm (containers: --shm-size); without it a killed process's last values are lost",
        )
    free = shutil.disk_usage(directory.path.parent).free
    return Finding(subject, Verdict.WORKS, f"{directory.path.parent}, {format_bytes(free)} free")


def _compiler() -> Finding:
    subject = "a C++ compiler, to forge heaps"
    source = "template <class T> concept C = sizeof(T) > 0; template <C T> int f() { return 0; } int main() { f<int>(); }"
    for command in _compilers():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trial.cc")
            path.write_text(source)
            arguments = [*command, "-std=c++20", str(path), "-o", str(Path(folder, "trial"))]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                if subprocess.run(arguments, capture_output=True, timeout=120, check=False).returncode == 0:
                    return Finding(subject, Verdict.WORKS, " ".join(command))
    return Finding(
        subject,
        Verdict.LIMITED,
        "none that knows C++20; presets still work",
        "apt-get install g++, or pip install ziglang",
    )


def _compilers() -> Iterator[list[str]]:
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if shutil.which(name):
            yield [name]
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "c++"]


def _cgroup() -> Finding:
    subject = "memory of the container"
    for version, path in (
        ("v2", "/sys/fs/cgroup/memory.events"),
        ("v1", "/sys/fs/cgroup/memory/memory.oom_control"),
    ):
        if Path(path).exists():
            return Finding(subject, Verdict.WORKS, f"cgroup {version} tells of limits and kills")
    own = Path("/proc/self/cgroup")
    if own.exists() and "memory" in own.read_text():
        return Finding(subject, Verdict.WORKS, "cgroup v1")
    return Finding(
        subject,
        Verdict.LIMITED,
        "no memory cgroup is visible: OOM kills cannot be told from other SIGKILLs",
        "mount /sys/fs/cgroup",
    )


def _huge_pages() -> Finding:
    subject = "huge pages"
    try:
        text = _THP.read_text()
    except OSError:
        return Finding(subject, Verdict.LIMITED, "the kernel has no transparent huge pages")
    mode = text.partition("[")[2].partition("]")[0]
    if mode == "never":
        return Finding(subject, Verdict.LIMITED, "transparent ones are off", f"echo madvise > {_THP}")
    return Finding(subject, Verdict.WORKS, f"transparent, mode {mode}")


def _perf() -> Finding:
    subject = "perf, to explain benchmarks"
    if not shutil.which("perf"):
        return Finding(subject, Verdict.LIMITED, "not installed", "apt-get install linux-perf")
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        trial = subprocess.run(
            ["perf", "stat", "-x,", "-e", "instructions:u", "true"],
            capture_output=True,
            text=True,
            timeout=_TRIAL_S,
            check=False,
        )
        if (
            trial.returncode == 0
            and "not supported" not in trial.stderr
            and "not counted" not in trial.stderr
        ):
            return Finding(subject, Verdict.WORKS, "counts instructions")
    level = _PARANOID.read_text().strip() if _PARANOID.exists() else "?"
    return Finding(
        subject,
        Verdict.LIMITED,
        f"no hardware counters here (perf_event_paranoid is {level})",
        "instructions can be counted by valgrind --tool=callgrind",
    )


def _attaching() -> Finding:
    subject = "attaching to running programs"
    scope = _PTRACE_SCOPE.read_text().strip() if _PTRACE_SCOPE.exists() else "0"
    if not shutil.which("gdb"):
        return Finding(subject, Verdict.LIMITED, "gdb is not installed", "apt-get install gdb")
    if scope != "0" and os.geteuid() != 0:
        return Finding(
            subject,
            Verdict.LIMITED,
            f"ptrace_scope is {scope}",
            "echo 0 > /proc/sys/kernel/yama/ptrace_scope",
        )
    return Finding(subject, Verdict.WORKS, "gdb and ptrace are there")


def _kernel() -> Finding:
    libc = " ".join(platform.libc_ver())
    return Finding("the system", Verdict.WORKS, f"Linux {platform.release()}, {libc}, {platform.machine()}")

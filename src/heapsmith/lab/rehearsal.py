"""The rehearsal: the program once as it is today, before anything is compared.

It shows that the command works at all, how long a run takes, what the program is made of, and hence what a
preloaded library can reach in it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from heapsmith.errors import RunError
from heapsmith.lab.trials import Workload, run_once
from heapsmith.peers import reach
from heapsmith.peers.candidate import Candidate, as_it_is
from heapsmith.peers.knobs import Version
from heapsmith.run.outside import Watched, find_program
from heapsmith.run.program import judge_privilege

_ASK_PYTHON = (
    "import json, sys, sysconfig; print(json.dumps([list(sys.version_info[:3]),"
    " bool(sysconfig.get_config_var('WITH_MIMALLOC')), bool(sysconfig.get_config_var('Py_GIL_DISABLED')),"
    " sys.implementation.name]))"
)


class Python(msgspec.Struct, frozen=True):
    """The Python interpreter a program runs on.

    Args:
        version: Its version.
        has_mimalloc: It can serve its objects from its own mimalloc (CPython 3.13 and later).
        free_threaded: It does so always, and ``PYTHONMALLOC`` cannot change it.
        objects_on_malloc: ``PYTHONMALLOC`` has malloc serve them.
    """

    version: Version
    has_mimalloc: bool
    free_threaded: bool
    objects_on_malloc: bool = False


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What the rehearsal showed.

    Args:
        seen: The run itself.
        duration_s: How long one trial takes, start and stop included.
        python: The interpreter, when it is a CPython program.
        linked_with: The allocator library the program is linked with, as (name, file), or None.
        c_library: The file of the C library, or None.
        reads_tunables: A statically linked program that still reads glibc's tunables.
        unreachable: Why no preloaded library can reach the program; None when one can.
        embedded: Allocators inside the program's own libraries, which a preload leaves alone.
        digest: Of its standard output, where that has to stay the same.
    """

    seen: Watched
    duration_s: float
    python: Python | None
    linked_with: tuple[str, str] | None
    c_library: str | None
    unreachable: str | None
    reads_tunables: bool
    embedded: tuple[reach.Embedded, ...]
    digest: str | None

    def notes(self) -> list[str]:
        """Say in sentences what a person has to know about this program."""
        lines: list[str] = []
        if self.unreachable:
            lines.append(self.unreachable)
        if self.seen.killed:
            lines.append("it did not end on its signal and was killed each time: --stop-signal names another")
        if self.linked_with:
            name, file = self.linked_with
            lines.append(f"the program is linked with {name} ({Path(file).name}): that is its default")
        for file in dict.fromkeys(inner.file for inner in self.embedded):
            inside = [inner for inner in self.embedded if inner.file == file]
            names = " and ".join(inner.allocator for inner in inside)
            advice = f": {inside[0].advice}" if inside[0].advice else ""
            lines.append(f"{Path(file).name} has {names} inside, which no preload replaces{advice}")
        if self.python is not None and self.python.free_threaded:
            lines.append(
                "free-threaded Python keeps its objects in its own mimalloc, whatever PYTHONMALLOC says"
            )
        elif self.python is not None and not self.python.objects_on_malloc:
            lines.append(
                "CPython takes blocks up to 512 bytes from pymalloc, whose arenas a preload leaves alone"
                " unless python=malloc goes with it"
            )
        return lines


def rehearse(workload: Workload) -> Rehearsal:
    """Run the workload once as it is today.

    Raises:
        RunError: It cannot be started, fails, hangs or goes into the background: nothing can be compared then.
    """
    program = find_program(workload.command[0], workload.directory, workload.environment.get("PATH"))
    seen, _ = run_once(workload, as_it_is(), scan=True)
    if seen.failed is not None:
        raise RunError(
            f"`{workload.words()}` does not work as it is, without any change",
            seen.failed + _last_words(seen),
            _hint(seen, workload),
        )
    executables = seen.executables or [str(program.resolve())]
    return Rehearsal(
        seen=seen,
        duration_s=seen.duration_s or 0.0,
        python=_ask_python(executables, workload),
        linked_with=reach.linked_allocator(seen.objects),
        c_library=next(
            (file for file in seen.objects if Path(file).name.startswith(("libc.so", "libc-2"))), None
        ),
        unreachable=_why_unreachable(executables),
        reads_tunables=reach.reads_tunables(executables[-1]),
        embedded=tuple(reach.find_embedded(seen.objects)),
        digest=seen.output_digest if workload.same_output else None,
    )


def _last_words(seen: Watched) -> str:
    lines = seen.complaint.strip().splitlines()
    return f"; it said: {lines[-1].strip()[:200]}" if lines else ""


def _hint(seen: Watched, workload: Workload) -> str:
    failed = seen.failed or ""
    if "still running" in failed:
        return "give it a longer --timeout, or for a server --ready and --load"
    if "the time for a trial" in failed:
        return "give it a longer --timeout, or check the port or pattern of --ready and the load command"
    if "it ended while" in failed:
        return "it has to serve until it is stopped: run it by hand under that load"
    if "background" in failed or "foreground" in failed:
        return "most servers have an option for the foreground"
    if "get ready" in failed:
        return "check the port or pattern of --ready"
    if "load command" in failed:
        return "try the load command by hand against the running server"
    if "matches" in failed:
        return "check the pattern of --metric against the real output"
    said = seen.complaint.lower()
    if "tty" in said or "terminal" in said or "not a typewriter" in said:
        return "it needs a terminal, and a measured program gets none: find its option for batch use"
    if workload.service is None and seen.code is not None and seen.code > 0:
        return (
            f"it gets no terminal and no standard input; if the exit code is good, --expect-exit {seen.code}"
        )
    return "run it by hand first"


def _why_unreachable(executables: Iterable[str]) -> str | None:
    """Say why no preload reaches the program that was run last: what came before were shells and wrappers."""
    programs = [file for file in executables if Path(file).is_file()]
    if not programs:
        return None
    program = programs[-1]
    linkage = reach.read_linkage(program)
    name = Path(program).name
    if linkage == "static":
        return f"{name} is linked statically: no preload reaches it, its allocator is built in"
    if linkage == "musl":
        return f"{name} uses musl: a library built for the GNU C library cannot be preloaded into it"
    problem = judge_privilege(Path(program), Path(program).stat())
    return f"{name}: {problem}" if problem else None


def _ask_python(executables: Iterable[str], workload: Workload) -> Python | None:
    for file in executables:
        if not reach.is_python(file):
            continue
        try:
            done = subprocess.run(
                [file, "-I", "-c", _ASK_PYTHON],
                capture_output=True,
                timeout=20,
                check=True,
                env=workload.environment,
                stdin=subprocess.DEVNULL,
            )
            version, has_mimalloc, free_threaded, implementation = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
        if implementation == "cpython":
            return Python(
                tuple(version),
                has_mimalloc and tuple(version) >= (3, 13),
                free_threaded,
                objects_on_malloc=workload.environment.get("PYTHONMALLOC") in {"malloc", "malloc_debug"},
            )
    return None


def fit(candidates: Iterable[Candidate], rehearsal: Rehearsal) -> list[Candidate]:
    """Fit candidates to the program: linked with another malloc, glibc's has to be preloaded too."""
    if rehearsal.linked_with is None or rehearsal.c_library is None:
        return list(candidates)
    return [
        msgspec.structs.replace(candidate, library=rehearsal.c_library)
        if candidate.library is None and not candidate.changes_nothing
        else candidate
        for candidate in candidates
    ]

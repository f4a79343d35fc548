"""Watch one run of a program from outside: nothing of ours is inside it, so looking costs it nothing."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.errors import HeapsmithError, RunError

_KEEPER: Final = Path(__file__).with_name("keeper.py")
_TAIL_CHARACTERS: Final = 2000
_END_SHARE: Final = 0.05
_POINTS: Final = 240


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A program that serves until it is stopped, and what is done with it meanwhile.

    Args:
        ready: A port (``8000``, ``localhost:8000``) that answers, or a pattern in its output, when it can take
            load.
        load: A shell command run against it once it is ready; None to load it with nothing.
        settle_s: Seconds of quiet after the load, before what stays resident is measured.
        stop_signal: The signal that stops it politely.
        ready_within_s: Seconds until it has to be ready.
        stop_within_s: Seconds it has for stopping before it is killed.
    """

    ready: str
    load: str | None = None
    settle_s: float = 2.0
    stop_signal: int = signal.SIGTERM
    ready_within_s: float = 60.0
    stop_within_s: float = 10.0

    @property
    def port(self) -> tuple[str, int] | None:
        """Host and port where ``ready`` names them, else None."""
        match = re.fullmatch(r"(?:(?P<host>[\w.-]+|\[[0-9a-f:]+\]):|:)?(?P<port>\d{1,5})", self.ready)
        return ((match["host"] or "127.0.0.1").strip("[]"), int(match["port"])) if match else None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A program and how it is started.

    Args:
        command: The words of the command.
        directory: Its working directory.
        environment: All of its environment.
        library: The preloaded library whose arrival is to be seen, or None.
        service: How it serves, or None for a program that ends by itself.
        timeout_s: Seconds after which the run is ended as hung; None: never.
        keep_output: Keep its standard output, for its digest and for a pattern.
        scan: Note which files it has mapped.
    """

    command: tuple[str, ...]
    directory: str
    environment: dict[str, str]
    library: str | None = None
    service: Service | None = None
    timeout_s: float | None = None
    keep_output: bool = False
    scan: bool = False


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one run; None is *unknown*.

    Args:
        failed: Why the run is worthless, in one clause; None when it is not.
        code: The exit code, or minus the signal's number; None when it had to be ended.
        duration_s: From the start to the end of the started process.
        load_s: How long the load command took, or None.
        user_s: Processor time in user mode, of all processes.
        system_s: Processor time in the kernel, of all processes.
        page_faults: Minor and major faults, of all processes.
        major_faults: Those that had to read a disk.
        context_switches: Voluntary and involuntary ones, of all processes.
        resident_bytes_peak: The largest resident sum of the tree: exact for one process, sampled for several.
        charged_bytes_peak: The most that the kernel charged to a cgroup of the run's own, page cache included; None
            where no cgroup could be made.
        no_group: Why none could; empty where one could.
        resident_bytes_mean: Its average over time.
        resident_bytes_end: Its median over the last 20th of the run (for a service: before it was stopped).
        resident_bytes_settled: Of a service, its median over the last second of settling.
        resident_bytes_ready: Of a service, when it was ready.
        times_s: When the points of ``resident_bytes`` were taken, at most 240 of them.
        resident_bytes: The resident sum of the tree at those times.
        output_digest: SHA-256 of standard output, where it was kept.
        output: The end of standard output, or of the load command's where there is one.
        complaint: The end of standard error.
        objects: Executable files it had mapped, where that was asked for.
        executables: What its processes ran.
        reached: Whether the preloaded library was seen in it.
        live_bytes_peak: Of the process that had the most, where the run was probed.
        allocations: Of all processes, where the run was probed.
        killed: A service that did not end on its signal, and was killed.
    """

    failed: str | None
    code: int | None = None
    duration_s: float | None = None
    load_s: float | None = None
    user_s: float | None = None
    system_s: float | None = None
    page_faults: int | None = None
    major_faults: int | None = None
    context_switches: int | None = None
    resident_bytes_peak: int | None = None
    charged_bytes_peak: int | None = None
    no_group: str = ""
    resident_bytes_mean: float | None = None
    resident_bytes_end: float | None = None
    resident_bytes_settled: float | None = None
    resident_bytes_ready: float | None = None
    times_s: list[float] = []
    resident_bytes: list[int] = []
    output_digest: str | None = None
    output: str = ""
    complaint: str = ""
    objects: list[str] = []
    executables: list[str] = []
    reached: bool | None = None
    live_bytes_peak: int | None = None
    allocations: int | None = None
    killed: bool = False


def find_program(word: str, directory: str, path: str | None) -> Path:
    """Find the program that a command starts with.

    Raises:
        RunError: There is none, or it cannot be executed.
    """
    place = word if "/" not in word or word.startswith("/") else str(Path(directory) / word)
    found = shutil.which(place, path=path)
    if found is None:
        exists = Path(place).exists() if "/" in place else False
        raise RunError(
            f"cannot start {word!r}",
            "it is not executable" if exists else "there is no such program",
            "chmod +x it, or name its interpreter" if exists else "check the name and PATH",
        )
    return Path(found)


def refuse_taken_port(service: Service) -> None:
    """Refuse a service whose port another program answers on already: it would be measured instead.

    Raises:
        RunError: The port is taken.
    """
    if service.port is None:
        return
    try:
        socket.create_connection(service.port, 0.2).close()
    except OSError:
        return
    host, port = service.port
    raise RunError(
        f"port {port} on {host} is taken",
        "another program answers there already",
        "stop it, or use another port",
    )


def watch(subject: Subject) -> Watched:
    """Run a program once and watch it, its children and theirs from outside.

    Args:
        subject: What to run; its processes get no terminal, and standard input is empty.

    Returns:
        What was seen. A run that failed, hung or went astray has ``failed`` set; it is not an error here.

    Raises:
        RunError: The watching itself did not work.

    Example:
        >>> import os
        >>> seen = watch(Subject(command=("true",), directory="/", environment=dict(os.environ)))
        >>> seen.failed, seen.code
        (None, 0)
    """
    with tempfile.TemporaryDirectory(prefix="heapsmith-trial-") as folder:
        answer = _keep(subject, Path(folder))
        return _read_answer(subject, answer, Path(folder))


def _keep(subject: Subject, folder: Path) -> dict[str, object]:
    service = subject.service
    pattern = service is not None and service.port is None
    request = {
        "command": subject.command,
        "directory": subject.directory,
        "environment": subject.environment,
        "library": subject.library,
        "scan": subject.scan,
        "timeout_s": subject.timeout_s,
        "stdout": str(folder / "stdout") if subject.keep_output or pattern else None,
        "stderr": str(folder / "stderr"),
        "server": None if service is None else _server_request(service, subject, folder),
    }
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_KEEPER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdin is not None and keeper.stdout is not None and keeper.stderr is not None
    try:
        # json, not msgspec: words and variables may hold bytes that are no text, and arrive as they are.
        keeper.stdin.write(json.dumps(request).encode() + b"\n")
        keeper.stdin.flush()
        answer = keeper.stdout.read()
        complaint = keeper.stderr.read()
    finally:
        # Also on Ctrl-C: the keeper ends the tree when its standard input closes.
        keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()
        keeper.stderr.close()
    if not answer:
        last = complaint.decode(errors="replace").strip().splitlines()
        raise RunError("the watching process broke off", last[-1] if last else "it said nothing")
    return json.loads(answer)


def _server_request(service: Service, subject: Subject, folder: Path) -> dict[str, object]:
    # The load generator is no subject: it runs as heapsmith itself does, without the candidate's variables.
    return {
        "ready_port": service.port,
        "ready_pattern": service.ready if service.port is None else None,
        "ready_within_s": service.ready_within_s,
        "load": None if service.load is None else ["/bin/sh", "-c", service.load],
        "load_environment": dict(os.environ),
        "load_stdout": str(folder / "load-stdout"),
        "load_stderr": str(folder / "load-stderr"),
        "settle_s": service.settle_s,
        "stop_signal": service.stop_signal,
        "stop_within_s": service.stop_within_s,
    }


class _Answer(msgspec.Struct):
    failed: str | None
    code: int | None = None
    duration_s: float | None = None
    user_s: float | None = None
    system_s: float | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    resident_bytes_peak: int | None = None
    charged_bytes_peak: int | None = None
    no_group: str = ""
    samples: list[tuple[float, int]] = []
    marks: dict[str, float] = {}
    killed: bool = False
    objects: list[str] = []
    executables: list[str] = []
    reached: bool | None = None


def _read_answer(subject: Subject, raw: dict[str, object], folder: Path) -> Watched:
    answer = msgspec.convert(raw, _Answer)
    marks = answer.marks
    stop = marks.get("settled_s", answer.duration_s or 0.0)
    samples = [(when, value) for when, value in answer.samples if when <= stop] or answer.samples
    failed = answer.failed
    load_s = None
    if "load_end_s" in marks:
        load_s = marks["load_end_s"] - marks["load_start_s"]
    loaded = subject.service is not None and subject.service.load is not None
    faults = None if answer.minor_faults is None else answer.minor_faults + (answer.major_faults or 0)
    switches = (
        None
        if answer.voluntary_switches is None
        else answer.voluntary_switches + (answer.involuntary_switches or 0)
    )
    times, values = _thin(samples)
    complaint = _tail(folder / "stderr")
    if failed is not None and failed.startswith("the load command"):
        complaint = _tail(folder / "load-stderr") or _tail(folder / "load-stdout")
    return Watched(
        failed=failed,
        code=answer.code,
        duration_s=answer.duration_s,
        load_s=load_s,
        user_s=answer.user_s,
        system_s=answer.system_s,
        page_faults=faults,
        major_faults=answer.major_faults,
        context_switches=switches,
        resident_bytes_peak=answer.resident_bytes_peak,
        charged_bytes_peak=answer.charged_bytes_peak,
        no_group=answer.no_group,
        resident_bytes_mean=_mean(samples),
        resident_bytes_end=_median_since(samples, stop - max(_END_SHARE * stop, 0.0)),
        resident_bytes_settled=_median_since(samples, max(stop - 1.0, marks.get("load_end_s", 0.0)))
        if "settled_s" in marks
        else None,
        resident_bytes_ready=_median_since(
            [sample for sample in samples if sample[0] <= marks["ready_s"]], marks["ready_s"] - 0.1
        )
        if "ready_s" in marks
        else None,
        times_s=times,
        resident_bytes=values,
        output_digest=_digest(folder / "stdout") if subject.keep_output else None,
        output=_tail(folder / ("load-stdout" if loaded else "stdout"), 20 * _TAIL_CHARACTERS),
        complaint=complaint,
        objects=answer.objects,
        executables=answer.executables,
        reached=answer.reached,
        killed=answer.killed,
    )


def _mean(samples: Sequence[tuple[float, int]]) -> float | None:
    """Average over time: each value holds until the middle between its neighbours."""
    if not samples:
        return None
    if len(samples) == 1:
        return float(samples[0][1])
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(samples))
    return area / (samples[-1][0] - samples[0][0])


def _median_since(samples: Sequence[tuple[float, int]], since: float) -> float | None:
    if not samples:
        return None
    values = sorted(value for when, value in samples if when >= since) or [samples[-1][1]]
    middle = len(values) // 2
    return float(values[middle]) if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _thin(samples: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Keep the largest sample of each of 240 equal stretches of time, so that no peak gets lost."""
    if len(samples) <= _POINTS:
        chosen = list(samples)
    else:
        width = samples[-1][0] / _POINTS or 1.0
        best: dict[int, tuple[float, int]] = {}
        for sample in samples:
            key = int(sample[0] / width)
            if key not in best or sample[1] > best[key][1]:
                best[key] = sample
        chosen = list(best.values())
    return [round(when, 4) for when, _ in chosen], [value for _, value in chosen]


def _tail(path: Path, characters: int = _TAIL_CHARACTERS) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - characters))
        return file.read().decode(errors="replace")


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def signal_number(name: str) -> int:
    """Read a signal's name or number.

    Raises:
        HeapsmithError: There is no such signal.

    Example:
        >>> signal_number("INT"), signal_number("SIGTERM"), signal_number("2")
        (2, 15, 2)
    """
    text = name.upper().removeprefix("SIG")
    try:
        return int(signal.Signals(int(text)) if text.isdigit() else signal.Signals[f"SIG{text}"])
    except (ValueError, KeyError):
        raise HeapsmithError(
            f"there is no signal {name!r}", hint="write TERM, INT, QUIT, HUP or a number"
        ) from None

"""Recording a program: every allocation event of its processes, in one trace file.

The program writes records into shared memory and does no I/O; this process reads them, orders and pairs them, and
writes the file. Whatever happens to the program, what it had done is in the file; whatever happens here, the program
goes on.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, ParamSpec, TypeVar

import numpy as np

import heapsmith
from heapsmith.errors import RunError
from heapsmith.native import library
from heapsmith.run.directory import RunDirectory, create_run_directory
from heapsmith.run.drain import TICK_NS, Drain, DrainedProcess, ThreadLife
from heapsmith.run.launched import Launched, judge_command
from heapsmith.run.stacks import FileTables, StackTables
from heapsmith.run.values import Exit
from heapsmith.trace import (
    Drops,
    End,
    Manifest,
    Mark,
    ModuleRecord,
    ProcessEnd,
    ProcessStart,
    ThreadRecord,
    TraceWriter,
)
from heapsmith.trace.layout import MEMORY_SAMPLE
from heapsmith.units import format_bytes
from heapsmith.wire.recording import RECORD_VARIABLE, RECORDING_BYTES, RECORDING_SUFFIX, OnFull, StackMode
from heapsmith.wire.region import format_python_version

P = ParamSpec("P")
T = TypeVar("T")

RECORD_LIBRARY: Final = "libheapsmith_record.so"
LOOK_NS: Final = 20_000_000
WRITE_AFTER_S: Final = 1.0
MEMORY_EVERY_S: Final = 0.05
_MEMORY_COST: Final = 30
"""At most a thirtieth of a processor goes into looking at the program's memory."""
_REST_S: Final = 0.5
_FULL_BATCH: Final = (1 << 18) * 3 // 4
STACKS: Final[dict[StackMode, Literal["none", "sampled", "all"]]] = {
    StackMode.NONE: "none",
    StackMode.SAMPLED: "sampled",
    StackMode.ALL: "all",
}
_OWN_ADDRESS_BYTES: Final = 1 << 30
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class RecordWishes:
    """What is wanted of a recording.

    Args:
        stacks: Which allocations have a stack.
        sample_every_bytes: Mean bytes between two sampled stacks.
        on_full: What a thread does whose ring is full.
        python_objects: Record CPython's own objects.
        names_s: How long to look for lines of native frames when the recording has ended; 0: write no names at all.
        environment: Further variables of the program.
    """

    stacks: StackMode = StackMode.NONE
    sample_every_bytes: int = 512 * 1024
    on_full: OnFull = OnFull.WAIT
    python_objects: bool = True
    names_s: float = 10.0
    environment: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class RecordResult:
    """What a recording came to.

    Args:
        exit: How the program ended; None where none was launched or it still runs.
        events: Events in the file.
        dropped_events: That found no room, or came when nothing more could be written.
        unknown_frees: Of blocks from before the recording.
        processes: Process images recorded.
        threads: Threads recorded.
        live_bytes_peak: The largest of all processes' own peaks, in usable bytes.
        waited_s: What the program's threads waited for room, in sum.
        file_bytes: Size of the trace.
        notes: What a person should know.
    """

    exit: Exit | None
    events: int
    dropped_events: int
    unknown_frees: int
    processes: int
    threads: int
    live_bytes_peak: int
    waited_s: float
    file_bytes: int
    notes: list[str]


@dataclass
class _Image:
    """A process image that is being read."""

    path: Path
    pid: int
    image: int
    drained: DrainedProcess
    stacks: StackTables
    index: int
    start_ns: int
    pidfd: int | None
    since_s: float
    batch_since_s: float
    samples: list[tuple[int, int, int, int]] = field(default_factory=list[tuple[int, int, int, int]])
    seen_lost: int = 0
    has_told_python: bool = False
    lost_since_ns: int = 0


class Recorder:
    """Reads the rings of all processes of a run directory into one trace file.

    Args:
        directory: The run directory.
        output: The trace file.
        wishes: What is wanted.
        command: What the manifest says was launched.

    Raises:
        RunError: The file or the recorder's page cannot be made, or the recorder has too little address space.
    """

    def __init__(self, directory: Path, output: Path, wishes: RecordWishes, command: Sequence[str]) -> None:
        self.output = output
        self.exit_of: Callable[[int], Exit | None] = lambda _: None
        """Tells how a process ended, where somebody knows better than the process could say."""
        self.on_module: Callable[[ModuleRecord, int, int], None] | None = None
        """Called before the frames of each module get their names."""
        self.notes = list[str]()
        limit_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit_bytes != resource.RLIM_INFINITY and limit_bytes < RECORDING_BYTES + _OWN_ADDRESS_BYTES:
            raise RunError(
                f"`ulimit -v` leaves the recorder {format_bytes(limit_bytes)} of address space",
                f"each process that it reads takes {format_bytes(RECORDING_BYTES)}",
                "limit the program alone: -- sh -c 'ulimit -v ...; exec COMMAND'",
            )
        self._directory = directory
        self._wishes = wishes
        self._drain = Drain(
            directory,
            stacks=wishes.stacks,
            sample_every_bytes=wishes.sample_every_bytes,
            on_full=wishes.on_full,
            python_objects=wishes.python_objects,
        )
        started_unix_ns = time.time_ns() - (time.monotonic_ns() - self._drain.start_ns)
        manifest = Manifest(
            command=[os.fsencode(word).decode(errors="replace") for word in command],
            started_unix_ns=started_unix_ns,
            tick_ns=TICK_NS,
            stacks=STACKS[wishes.stacks],
            sample_every_bytes=wishes.sample_every_bytes if wishes.stacks is StackMode.SAMPLED else None,
            python_objects=wishes.python_objects,
            heapsmith=heapsmith.__version__,
            machine=_describe_machine(),
        )
        try:
            self._writer = TraceWriter(output, manifest)
        except OSError as error:
            self._drain.close()
            raise RunError(f"{output} cannot be written", error.strerror or str(error)) from error
        self._tables = FileTables(self._writer)
        self._images = dict[tuple[int, int], _Image]()
        self._index_of = dict[int, int]()
        self._poll = select.poll()
        self._failed = False
        self._processes = self._threads = self._unknown = self._dropped = self._waited_ns = self._peak = 0
        self._next_memory_s = 0.0
        _raise_file_limit()

    @property
    def live_bytes(self) -> int:
        """Of all processes that are being read; estimated from the samples where not every event is recorded."""
        return sum(image.drained.totals().live_bytes for image in self._images.values())

    def mark(self, name: str) -> None:
        """Name this moment, in the first process that is being read; what came before it is in the file."""
        for number, image in enumerate(self._images.values()):
            self._write(image)
            if number == 0:
                self._put(self._writer.write_marks, image.index, [Mark(time_ns=self.now_ns(), name=name)])

    def now_ns(self) -> int:
        """Time since the start of the trace."""
        return time.monotonic_ns() - self._drain.start_ns

    def look(self, longest_ns: int = LOOK_NS) -> None:
        """Read for a while, and write what has come together."""
        self._drain.run([image.drained for image in self._images.values()], longest_ns)
        self._discover()
        self._find_ended()
        now_s = time.monotonic()
        for image in self._images.values():
            # A program may delete its file, or be replaced, before its first events are written.
            if now_s - image.since_s < WRITE_AFTER_S:
                self._put(image.stacks.write_modules)
            waiting = image.drained.batch_events()
            if waiting == 0:
                image.batch_since_s = now_s
            if waiting >= _FULL_BATCH or (waiting and now_s - image.batch_since_s > WRITE_AFTER_S):
                self._write(image)
                self._sample_memory()  # much may have happened meanwhile
        self._sample_memory()

    def finish(self, *, tell_running: bool = True) -> None:
        """Read what is left, and close the file; processes that still run go on unrecorded.

        Args:
            tell_running: Whether a note should say that some do.
        """
        self._discover()
        self._find_ended()
        self._drain.stop()
        running = len(self._images)
        if running and tell_running:
            self.notes.append(
                f"{running} process{'es' * (running > 1)} of the run still ran when the recording ended"
            )
        if running:
            self._read_rest()
        for image in list(self._images.values()):
            self._close_image(image, None, still_runs=True)
        self._put(self._writer.write_end, End(ended_ns=self.now_ns(), events=self._writer.events))
        self._drain.close()
        self._write_names()
        self.close()

    def _write_names(self) -> None:
        """The recording is whole without them, so nothing that goes wrong here ends it."""
        if not self._wishes.names_s:
            return
        try:
            self._put(self._tables.write_names, self._wishes.names_s, self.on_module)
        except Exception as error:  # noqa: BLE001 (files of other people, in any state)
            self.notes.append(f"the names of native frames could not be written: {error}")

    def close(self) -> None:
        """Let go of the file and of the programs, whatever has been read."""
        self._writer.close()
        self._tables.close()
        self._drain.close()

    def _read_rest(self) -> None:
        """Read what processes that still run have written; threads in the middle of a record finish it."""
        until_s = time.monotonic() + _REST_S
        while True:
            self._drain.run([image.drained for image in self._images.values()], 2_000_000)
            for image in self._images.values():
                if image.drained.batch_events() >= _FULL_BATCH:
                    self._write(image)
            busy = any(image.drained.totals().rings_busy for image in self._images.values())
            if not busy or time.monotonic() > until_s:
                return

    def result(self, exit: Exit | None) -> RecordResult:
        """What it came to."""
        return RecordResult(
            exit=exit,
            events=self._writer.events,
            dropped_events=self._dropped,
            unknown_frees=self._unknown,
            processes=self._processes,
            threads=self._threads,
            live_bytes_peak=self._peak,
            waited_s=self._waited_ns / 1e9,
            file_bytes=self._writer.bytes_written,
            notes=self.notes,
        )

    def _discover(self) -> None:
        for entry in sorted(os.scandir(self._directory), key=lambda entry: entry.name):
            if not entry.name.endswith(RECORDING_SUFFIX):
                continue
            pid, _, number = entry.name.removesuffix(RECORDING_SUFFIX).partition(".")
            key = int(pid), int(number)
            if key in self._images:
                continue
            with contextlib.suppress(RunError):  # not yet complete: at the next look
                self._begin_image(Path(entry.path), *key)

    def _begin_image(self, path: Path, pid: int, number: int) -> None:
        drained = self._drain.open(path)
        header = drained.header()
        before = self._images.get((pid, number - 1))
        if before:
            self._close_image(before, None, replaced=True)
        command = header["command"][: int(header["command_bytes"])].split(b"\0")
        words = [word.decode(errors="replace") for word in command if word]
        start_ns = max(0, int(header["start_ns"]) - self._drain.start_ns)
        parent = self._index_of.get(int(header["parent_pid"]))
        start = ProcessStart(
            pid=pid,
            ppid=int(header["parent_pid"]),
            name=Path(words[0]).name if words else "",
            command=words,
            started_ns=start_ns,
            forked_from=parent if header["forked"] else None,
        )
        index = self._put(self._writer.add_process, start)
        if index is None:
            drained.close()
            return
        self._index_of[pid] = index
        pidfd = None
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            self._poll.register(pidfd, select.POLLIN)
        now_s = time.monotonic()
        self._images[pid, number] = _Image(
            path,
            pid,
            number,
            drained,
            StackTables(self._tables, drained, pid),
            index,
            start_ns,
            pidfd,
            since_s=now_s,
            batch_since_s=now_s,
            lost_since_ns=start_ns,
        )
        self._processes += 1
        if header["is_blind"]:
            self.notes.append(f"process {pid} has a malloc of its own: nothing native of it is recorded")

    def _find_ended(self) -> None:
        ended = {fd for fd, _ in self._poll.poll(0)}
        for image in list(self._images.values()):
            if image.pidfd is None or image.pidfd in ended:
                self._close_image(image, self.exit_of(image.pid))

    def _close_image(
        self, image: _Image, end: Exit | None, *, replaced: bool = False, still_runs: bool = False
    ) -> None:
        self._write(image)
        if not still_runs:
            while self._drain.finish(image.drained):
                self._write(image)
        self._write(image)
        self._write_notes(image, at_end=True)
        header = image.drained.header()
        totals = image.drained.totals()
        self._unknown += totals.unknown_deaths
        self._dropped += totals.lost_events
        self._waited_ns += totals.waited_ns
        self._threads += totals.threads
        self._peak = max(self._peak, totals.live_bytes_peak)
        exit_code = int(header["exit_code"]) if header["exit_known"] else None
        if not still_runs:
            end_ns = max(totals.last_tick * TICK_NS, image.start_ns)
            if header["exit_known"]:
                end_ns = max(0, int(header["exit_ns"]) - self._drain.start_ns)
            self._put(
                self._writer.end_process,
                image.index,
                ProcessEnd(
                    ended_ns=end_ns,
                    exit_code=end.code if end else exit_code,
                    signal=end.signal if end else None,
                    replaced=replaced,
                ),
            )
        image.drained.close()
        image.path.unlink(missing_ok=True)
        if image.pidfd is not None:
            self._poll.unregister(image.pidfd)
            os.close(image.pidfd)
        del self._images[image.pid, image.image]

    def _write(self, image: _Image) -> None:
        image.batch_since_s = time.monotonic()
        threads = image.drained.take_threads()
        self._put(image.stacks.write_new)
        batch = image.drained.take_batch()
        if threads:
            self._put(self._writer.write_threads, image.index, [_thread_record(life) for life in threads])
        if batch:
            before = self._writer.events
            self._put(self._writer.write_encoded_events, image.index, *batch)
            self._dropped += batch[1] - (self._writer.events - before)
        marks = image.drained.take_marks()
        if marks:
            self._put(
                self._writer.write_marks,
                image.index,
                [Mark(time_ns=time_ns, name=name) for time_ns, name in marks],
            )
        self._write_drops(image)
        self._write_notes(image)
        if image.samples:
            self._put(self._writer.write_memory, image.index, np.array(image.samples, MEMORY_SAMPLE))
            image.samples.clear()

    def _write_drops(self, image: _Image) -> None:
        lost = image.drained.totals().lost_events
        now_ns = self.now_ns()
        if lost > image.seen_lost:
            drops = Drops(
                events=lost - image.seen_lost,
                since_ns=image.lost_since_ns,
                until_ns=now_ns,
                reason="the rings were full, or there was none",
            )
            self._put(self._writer.write_drops, image.index, drops)
        image.seen_lost = lost
        image.lost_since_ns = now_ns

    def _write_notes(self, image: _Image, *, at_end: bool = False) -> None:
        header = image.drained.header()
        notes: list[str] = []
        objects, frames = header["python_note"].decode(), header["frames_note"].decode()
        if (objects or frames) and not image.has_told_python:
            image.has_told_python = True
            number = int(header["python_version"])
            python = f"CPython {format_python_version(number)}" if number else "this CPython"
            if objects and self._wishes.python_objects:
                notes.append(f"the objects of {python} are not recorded: {objects}")
            if frames and self._wishes.stacks is not StackMode.NONE:
                notes.append(f"no stack has frames of {python}: {frames}")
        if at_end and header["stacks_lost"]:
            notes.append(f"{int(header['stacks_lost']):,} stacks found no room in the table, and end early")
        if notes:
            self._put(self._writer.write_notes, image.index, notes)

    def _sample_memory(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_memory_s:
            return
        now_ns = self.now_ns()
        for image in self._images.values():
            with contextlib.suppress(OSError, ValueError, IndexError):
                resident, shared = map(int, Path(f"/proc/{image.pid}/statm").read_bytes().split()[1:3])
                fields = Path(f"/proc/{image.pid}/stat").read_bytes().rpartition(b")")[2].split()
                faults = int(fields[7]) + int(fields[9])
                # 0 would say that it is unknown.
                private = max(1, resident - shared - int(image.drained.header()["own_pages"]))
                image.samples.append((now_ns, resident * _PAGE_BYTES, private * _PAGE_BYTES, faults))
        spent_s = time.monotonic() - now_s
        self._next_memory_s = now_s + max(MEMORY_EVERY_S, _MEMORY_COST * spent_s)

    def _put(self, write: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
        """Write; a file that cannot be written any more ends the recording, not the program."""
        if self._failed:
            return None
        try:
            return write(*arguments, **named)
        except OSError as error:
            self._failed = True
            self._drain.stop()
            self.notes.append(
                f"recording stopped: {self.output}: {error.strerror or error}; the file holds what came before"
            )
            return None


class Recording:
    """A program being recorded.

    Args:
        command: The program and its arguments.
        output: The trace file.
        wishes: What is wanted.
        force: Replace a file that is there.

    Raises:
        RunError: The command cannot be run, or the file not be written, or is there already.
    """

    def __init__(
        self, command: Sequence[str], output: Path, wishes: RecordWishes | None = None, *, force: bool = False
    ) -> None:
        if not command:
            raise RunError("there is no command to run", hint="heapsmith record -o FILE.heap -- COMMAND")
        wishes = wishes or RecordWishes()
        check_output(output, force=force)
        watchability = judge_command(command)
        self._directory: RunDirectory = create_run_directory()
        try:
            self.recorder = Recorder(self._directory.path, output, wishes, command)
        except RunError:
            self._directory.remove()
            raise
        if watchability.problem:
            self.recorder.notes.append(f"{command[0]} cannot be recorded: {watchability.problem}")
        try:
            self._launched = Launched(
                command,
                [library(RECORD_LIBRARY)] if watchability.preload else [],
                self._directory.path,
                wishes.environment | {RECORD_VARIABLE: str(self._directory.path)},
            )
        except RunError:
            self.recorder.finish()
            output.unlink(missing_ok=True)
            self._directory.remove()
            raise

        self.recorder.exit_of = self._exit_of

    def _exit_of(self, pid: int) -> Exit | None:
        return self._launched.wait(1.0) if pid == self._launched.pid else None

    def send_signal(self, number: int) -> None:
        """Pass a signal on to the launched process, if it still runs."""
        self._launched.send_signal(number)

    def wait(self, on_look: Callable[[Recorder], None] | None = None) -> RecordResult:
        """Record until the launched process ends.

        Args:
            on_look: Called a few times a second.
        """
        try:
            while self._launched.wait(0) is None:
                self.recorder.look()
                if on_look:
                    on_look(self.recorder)
            self.recorder.finish()
        finally:
            self.recorder.close()
            self._launched.close()
            self._directory.remove()
        return self.recorder.result(self._launched.exit)


def check_output(output: Path, *, force: bool) -> None:
    """Refuse a file that is there, unless it may be replaced.

    Raises:
        RunError: It is there, or is a directory or a pipe.
    """
    if output.is_dir():
        raise RunError(f"{output} is a directory", hint="name a file: -o FILE.heap")
    if output.is_fifo():
        raise RunError(f"{output} is a pipe", hint="name a file: -o FILE.heap")
    if output.exists() and not force:
        raise RunError(f"{output} is there already", hint="choose another name, or replace it with --force")


def _thread_record(life: ThreadLife) -> ThreadRecord:
    return ThreadRecord(
        index=life.index,
        tid=life.tid,
        name=life.name.decode(errors="replace"),
        started_ns=life.start_tick * TICK_NS,
        ended_ns=life.end_tick * TICK_NS if life.has_ended else None,
    )


def _describe_machine() -> dict[str, str | int]:
    return {
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "page_bytes": _PAGE_BYTES,
        "processors": os.cpu_count() or 0,
    }


def _raise_file_limit() -> None:
    """Each process holds a descriptor here; a thousand children are more than most limits allow at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))


def exit_code_of(end: Exit | None) -> int:
    """The exit code that a shell would show: 128 and the signal's number where one ended it."""
    if end is None:
        return 0
    return 128 + end.signal if end.signal is not None else end.code or 0

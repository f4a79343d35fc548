"""Running a libosmem.so, anybody's, in a process of its own and seeing every system call it makes.

The native driver (``native/osmem/driver.c``) is started with the library preloaded and shares one piece of
memory with us: the operations go in, answers and system calls come out, and what was written stays when the
driver crashes.
"""

from __future__ import annotations

import mmap
import os
import platform
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from heapsmith.errors import CheckError
from heapsmith.native import library
from heapsmith.osmem.blocks import Step, SystemCall
from heapsmith.osmem.script import Played
from heapsmith.osmem.trace_text import signal_name

# The bytes of native/osmem/driver.h.
HEAD: Final = struct.Struct("<10IQ")
OPERATION: Final = struct.Struct("<IiQQ")
ANSWER: Final = struct.Struct("<QIIII")
SYSTEM_CALL: Final = struct.Struct("<II6Qq")
HEAP_BLOCK: Final = struct.Struct("<QQq")
_MAGIC: Final = 0x6F736D31
_NOT_STARTED, _SYMBOL_MISSING, _NO_FILTER, _RUNNING, _FINISHED = range(5)
_UNREACHED, _IN_CALL, _IN_PAYLOAD, _DONE = range(4)

FUNCTIONS: Final = ("os_malloc", "os_calloc", "os_realloc", "os_free")
_FINDINGS: Final = {
    1: "calloc answered memory that is not all zero",
    2: "content was lost: something wrote into a live block",
    4: "realloc did not keep the content",
    8: "realloc wrote into the payload that it left behind",
}
_NAMES_OF_NUMBERS: Final[dict[str, dict[int, str]]] = {
    "x86_64": {
        0: "read",
        1: "write",
        2: "open",
        3: "close",
        5: "fstat",
        9: "mmap",
        10: "mprotect",
        11: "munmap",
        12: "brk",
        13: "rt_sigaction",
        14: "rt_sigprocmask",
        16: "ioctl",
        24: "sched_yield",
        25: "mremap",
        28: "madvise",
        35: "nanosleep",
        39: "getpid",
        56: "clone",
        57: "fork",
        58: "vfork",
        59: "execve",
        60: "exit",
        186: "gettid",
        200: "tkill",
        202: "futex",
        228: "clock_gettime",
        231: "exit_group",
        234: "tgkill",
        257: "openat",
        262: "newfstatat",
        302: "prlimit64",
        318: "getrandom",
        435: "clone3",
    },
    "aarch64": {
        29: "ioctl",
        56: "openat",
        57: "close",
        63: "read",
        64: "write",
        79: "newfstatat",
        80: "fstat",
        93: "exit",
        94: "exit_group",
        98: "futex",
        101: "nanosleep",
        113: "clock_gettime",
        124: "sched_yield",
        130: "tkill",
        131: "tgkill",
        134: "rt_sigaction",
        135: "rt_sigprocmask",
        172: "getpid",
        178: "gettid",
        214: "brk",
        215: "munmap",
        216: "mremap",
        220: "clone",
        221: "execve",
        222: "mmap",
        226: "mprotect",
        233: "madvise",
        261: "prlimit64",
        278: "getrandom",
        435: "clone3",
    },
}
_ARGUMENT_COUNTS: Final = {"brk": 1, "munmap": 2}

Ending = Literal["finished", "exited", "killed", "out of time"]


@dataclass(frozen=True, slots=True)
class Call:
    """An operation; ``source`` is the one whose result is the pointer argument, -1 for NULL."""

    function: str
    source: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """The content that a realloc had to keep, as the driver found it."""

    bytes: int
    checksum: int


@dataclass(frozen=True, slots=True)
class NativeRun:
    """What a library did.

    Attributes:
        steps: One for each operation that was begun; the last one's ``result`` is None if it never returned.
        findings: What is wrong with memory or content, by operation.
        kept: The content found after each realloc of a live block, by operation.
        heap_start: The break before the first operation.
        heap: ``(address, payload bytes, status)`` by the library's own headers; empty if it was not walked.
        ending: How the process ended.
        return_code: Its exit status, or minus the signal; None when it ran out of time.
        in_payload: Whether it died while a returned payload was written or compared, not inside the library.
        messages: What the library wrote to standard error.
        dropped_count: System calls that were made but not recorded.
    """

    steps: tuple[Step, ...]
    findings: dict[int, tuple[str, ...]]
    kept: dict[int, Kept]
    heap_start: int
    heap: tuple[tuple[int, int, int], ...]
    ending: Ending
    return_code: int | None
    in_payload: bool
    messages: str
    dropped_count: int


def calls_of(played: Sequence[Played]) -> list[Call]:
    """Turn a played script into what the driver carries out."""
    return [Call(one.step.function, one.source, one.operation.numbers) for one in played]


def run_native(
    library_path: Path, calls: Sequence[Call], *, header_bytes: int = 0, time_limit_s: float = 2.0
) -> NativeRun:
    """Carry out operations on a library in a fresh process.

    Args:
        library_path: Any shared object with the four functions.
        calls: What to do.
        header_bytes: The size of the library's headers, to walk its heap at the end; 0: do not look.
        time_limit_s: After this the process is killed.

    Raises:
        CheckError: The library cannot be loaded or lacks a function, or this system lets no process filter
            its own system calls.
    """
    system_call_room = 16 * len(calls) + 1024
    block_room = 4 * len(calls) + 64 if header_bytes else 0
    size = (
        HEAD.size
        + len(calls) * (OPERATION.size + ANSWER.size)
        + system_call_room * SYSTEM_CALL.size
        + block_room * HEAP_BLOCK.size
    )
    shared = os.memfd_create("osmem-driver")
    messages = os.memfd_create("osmem-messages")
    preload, opened = _preload_name(library_path)
    try:
        os.truncate(shared, size)
        head = HEAD.pack(_MAGIC, 0, 0, header_bytes, len(calls), system_call_room, 0, 0, block_room, 0, 0)
        operations = b"".join(
            OPERATION.pack(FUNCTIONS.index(call.function), call.source, *(*call.numbers, 0, 0)[:2])
            for call in calls
        )
        os.pwrite(shared, head + operations, 0)
        process = subprocess.Popen(
            [library("osmem_driver"), str(shared)],
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            pass_fds=[shared, *opened],
            env={
                "LD_PRELOAD": preload,
                "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
                "LC_ALL": "C",
            },
        )
        return_code: int | None
        try:
            return_code = process.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            return_code = None
        finally:
            process.kill()
            process.wait()
        with mmap.mmap(shared, size, prot=mmap.PROT_READ) as view:
            return _read(view, calls, library_path, return_code, _read_messages(messages))
    finally:
        for fd in (shared, messages, *opened):
            os.close(fd)


def _preload_name(path: Path) -> tuple[str, list[int]]:
    """Name a library for LD_PRELOAD, which splits at spaces and colons: such a path goes as an open file."""
    name = str(path.resolve())
    if not any(character in name for character in " :\t\n$"):
        return name, []
    fd = os.open(path, os.O_RDONLY)
    return f"/proc/self/fd/{fd}", [fd]


def _read_messages(fd: int) -> str:
    return os.pread(fd, 1 << 16, 0).decode(errors="replace")


def _read(
    view: mmap.mmap, calls: Sequence[Call], path: Path, return_code: int | None, messages: str
) -> NativeRun:
    head = HEAD.unpack_from(view, 0)
    _, state, error, _, _, system_call_room, system_call_count, dropped, _, block_count, heap_start = head
    if state in {_NOT_STARTED, _SYMBOL_MISSING, _NO_FILTER}:
        raise _not_run(state, error, path, return_code, messages)

    answers_at = HEAD.size + len(calls) * OPERATION.size
    system_calls_at = answers_at + len(calls) * ANSWER.size
    blocks_at = system_calls_at + system_call_room * SYSTEM_CALL.size
    answers = list(ANSWER.iter_unpack(view[answers_at:system_calls_at]))
    made: dict[int, list[SystemCall]] = {}
    end = system_calls_at + system_call_count * SYSTEM_CALL.size
    for index, number, *arguments, result in SYSTEM_CALL.iter_unpack(view[system_calls_at:end]):
        made.setdefault(index, []).append(_system_call(number, arguments, result))

    steps: list[Step] = []
    findings: dict[int, tuple[str, ...]] = {}
    kept: dict[int, Kept] = {}
    in_payload = state != _FINISHED
    for index, (call, (result, phase, found, kept_bytes, kept_checksum)) in enumerate(
        zip(calls, answers, strict=True)
    ):
        if found:
            findings[index] = tuple(text for bit, text in _FINDINGS.items() if found & bit)
        if kept_bytes:
            kept[index] = Kept(kept_bytes, kept_checksum)
        if phase == _UNREACHED:
            break
        takes_pointer = call.function in {"os_realloc", "os_free"}
        pointer = (answers[call.source][0] if call.source >= 0 else 0,) if takes_pointer else ()
        returned = None if phase == _IN_CALL or call.function == "os_free" else result
        steps.append(Step(call.function, (*pointer, *call.numbers), returned, tuple(made.get(index, ()))))
        if phase == _IN_CALL:
            in_payload = False
    ending: Ending
    if return_code is None:
        ending = "out of time"
    elif state == _FINISHED:
        ending = "finished"
    else:
        ending = "killed" if return_code < 0 else "exited"
    heap = tuple(HEAP_BLOCK.iter_unpack(view[blocks_at : blocks_at + block_count * HEAP_BLOCK.size]))
    return NativeRun(
        tuple(steps), findings, kept, heap_start, heap, ending, return_code, in_payload, messages, dropped
    )


def _not_run(state: int, error: int, path: Path, return_code: int | None, messages: str) -> CheckError:
    refused = re.search(r"cannot be preloaded \((.*)\): ignored", messages)
    reason = (
        refused[1]
        if refused
        else (messages.strip().splitlines() or ["the dynamic loader gave no reason"])[-1]
    )
    if state == _NO_FILTER:
        return CheckError(
            "the system calls of a process cannot be captured here",
            f"the kernel refuses a seccomp filter: {os.strerror(error)}",
            "allow the seccomp and prctl system calls in this container",
        )
    if state == _SYMBOL_MISSING and not refused:
        missing = ", ".join(name for bit, name in enumerate(FUNCTIONS) if error & 1 << bit)
        return CheckError(
            f"{path} lacks {missing}", "it is no libosmem.so", "export the four functions of osmem.h"
        )
    if return_code is None:
        return CheckError(f"{path} does not start", "it was still loading when the time was up")
    if return_code < 0:
        return CheckError(
            f"{path} cannot be loaded", f"loading it dies of {signal_name(-return_code)}", "build it again"
        )
    return CheckError(f"{path} cannot be loaded", reason, "link it with -shared -fPIC")


def _system_call(number: int, arguments: list[int], result: int) -> SystemCall:
    name = _NAMES_OF_NUMBERS.get(platform.machine(), {}).get(number, f"system call {number}")
    if name == "mmap":
        arguments[4] = struct.unpack("<i", struct.pack("<I", arguments[4] & 0xFFFFFFFF))[0]
    return SystemCall(name, tuple(arguments[: _ARGUMENT_COUNTS.get(name, 6)]), result)

"""Whether a program can be watched at all: what its file says before it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ELF_MAGIC: Final = b"\x7fELF"
_PT_INTERP: Final = 3
_SHT_STRTAB: Final = 3
_SHF_ALLOC: Final = 2
_CLASS_64: Final = 2
_MUST_BE_FIRST: Final = (b"libasan.so", b"liblsan.so", b"libtsan.so", b"libhwasan.so")
_SCRIPT_DEPTH: Final = 4


@dataclass(frozen=True)
class Watchability:
    """Whether the preloaded library will see a program.

    Args:
        preload: Whether to preload it at all; some programs would not start with it.
        problem: Why it will not see the program, in one clause; empty if it will.
    """

    preload: bool
    problem: str


def find_program(command: str) -> Path | None:
    """Find the file that a command name stands for, as ``execvp`` does; None if there is none."""
    if "/" in command:
        path = Path(command)
        return path if path.exists() else None
    found = shutil.which(command)
    return Path(found) if found else None


def judge_program(path: Path) -> Watchability:
    """Read from the program's file (through scripts to their interpreter) whether it can be watched.

    Example:
        >>> judge_program(Path("/bin/sh")).preload
        True
    """
    for _ in range(_SCRIPT_DEPTH):
        try:
            status = path.stat()
            head = _read(path, 0, 256)
        except OSError:
            return Watchability(preload=True, problem="")
        if problem := judge_privilege(path, status):
            return Watchability(preload=True, problem=problem)
        if head.startswith(_ELF_MAGIC):
            return _judge_elf(path, head)
        if not head.startswith(b"#!"):
            return Watchability(preload=True, problem="")
        words = head[2:].split(b"\n")[0].split()
        if not words:
            return Watchability(preload=True, problem="")
        interpreter = Path(os.fsdecode(words[0]))
        if interpreter.name == "env" and len(words) > 1 and not words[1].startswith(b"-"):
            interpreter = find_program(os.fsdecode(words[1])) or interpreter
        path = interpreter
    return Watchability(preload=True, problem="")


def judge_privilege(path: Path, status: os.stat_result) -> str:
    """Say why the dynamic linker would ignore what is preloaded: the program runs with another's rights; else empty.

    Example:
        >>> judge_privilege(Path("/bin/sh"), Path("/bin/sh").stat())
        ''
    """
    for bit, owner, own, name in (
        (stat.S_ISUID, status.st_uid, os.geteuid(), "setuid"),
        (stat.S_ISGID, status.st_gid, os.getegid(), "setgid"),
    ):
        if status.st_mode & bit and owner != own and status.st_mode & 0o111:
            return f"it is {name}: the dynamic linker preloads nothing into it"
    with contextlib.suppress(OSError):
        if os.geteuid() != 0 and os.getxattr(path, "security.capability"):
            return "it has capabilities of its own: the dynamic linker preloads nothing into it"
    return ""


def _judge_elf(path: Path, head: bytes) -> Watchability:
    little = head[5] == 1
    if head[4] != _CLASS_64 or not little:
        return Watchability(preload=False, problem="it is not a 64-bit little-endian program")
    machine = struct.unpack_from("<H", head, 18)[0]
    # Not by /proc, which may be hidden.
    own = struct.unpack_from("<H", _read(Path(sys.executable), 0, 64), 18)[0]
    if machine != own:
        return Watchability(preload=False, problem="it is for another processor")
    table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    for number in range(count):
        entry = _read(path, table + number * size, size)
        if len(entry) < 40 or struct.unpack_from("<I", entry, 0)[0] != _PT_INTERP:
            continue
        offset, length = struct.unpack_from("<Q", entry, 8)[0], struct.unpack_from("<Q", entry, 32)[0]
        loader = _read(path, offset, length).rstrip(b"\0")
        if b"musl" in loader:
            return Watchability(
                preload=False, problem="it is linked to musl, and the library to watch with to glibc"
            )
        if any(name in _read_whole_dynamic(path, head) for name in _MUST_BE_FIRST):
            return Watchability(
                preload=False, problem="it is built with a sanitizer, whose library has to be the first"
            )
        return Watchability(preload=True, problem="")
    return Watchability(preload=True, problem="it is linked statically: nothing can be preloaded into it")


def _read_whole_dynamic(path: Path, head: bytes) -> bytes:
    """The names that the dynamic section refers to, all in one: enough to find a needed library in."""
    table, size, count = struct.unpack_from("<Q", head, 40)[0], *struct.unpack_from("<HH", head, 58)
    for number in range(count):
        entry = _read(path, table + number * size, size)
        if len(entry) >= 40 and struct.unpack_from("<I", entry, 4)[0] == _SHT_STRTAB:
            flags, _, offset, length = struct.unpack_from("<QQQQ", entry, 8)
            if flags & _SHF_ALLOC:
                return _read(path, offset, length)
    return b""


def _read(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)

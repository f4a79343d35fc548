"""The C++ compiler: the system's, or the one that the extra ``heapsmith[compiler]`` brings; also for other machines."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heapsmith.errors import ForgeError
from heapsmith.native import SOURCES

_COMPILE_FLAGS: Final = (
    "-std=gnu++20",
    "-O2",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    "-fno-plt",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-math-errno",
    "-fdata-sections",
    "-fno-omit-frame-pointer",
    "-fno-builtin-malloc",
)
_LINK_FLAGS: Final = (
    "-Wl,-z,now",
    "-Wl,-z,relro",
    "-Wl,-z,defs",
    "-Wl,--hash-style=gnu",
    "-Wl,--as-needed",
)
# Few pages to touch at start (native/base/compiler.h, HS_BULK); ziglang takes none of them.
_LAYOUT_FLAGS: Final = ("-Wl,--sort-section=alignment", "-Wl,-z,noseparate-code")
_SOURCE_FILES: Final = (
    "abi/forged_init.cc",
    "abi/forged_region.cc",
    "abi/forged_statistics.cc",
    "abi/knobs.cc",
    "abi/leaks.cc",
    "abi/libc_doors.cc",
    "abi/malloc.cc",
    "abi/new.cc",
    # What makes it seen from outside.
    "abi/restricted.cc",
    "abi/shared_region.cc",
    "os/numbered_file.cc",
    "os/process.cc",
    "os/shared_memory.cc",
    "probe/account.cc",
    "probe/attention.cc",
    "probe/batches.cc",
    "probe/region.cc",
    "probe/thread.cc",
)


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C++20, and its version.

    Args:
        command: The words to start it with.
        version: The first line of what it says of itself.
        target: The machine it compiles for (``aarch64-linux-gnu``); empty for this one.
        is_zig: Whether it is the compiler of ``ziglang``, which takes some words differently.
    """

    command: tuple[str, ...]
    version: str
    target: str
    is_zig: bool

    def words(self, config_directory: Path, output: Path, *, debug: bool) -> list[str]:
        """Return the command that makes a heap's shared object.

        Args:
            config_directory: Where its ``heap_config.h`` is.
            output: The library to write.
            debug: Keep what a debugger needs.
        """
        target = ["-target", self.target] if self.target else []
        # The C++ runtime is not there to be needed: a heap comes before everything. (ziglang has it in archives, of
        # which nothing is taken; without it, it would hide the headers too.)
        runtime = [] if self.is_zig else ["-nodefaultlibs"]
        libraries = [] if self.is_zig else ["-lc", "-lgcc"]
        return [
            *self.command,
            *target,
            *_COMPILE_FLAGS,
            *(["-g"] if debug else ["-Wl,-s"]),
            *runtime,
            *_LINK_FLAGS,
            *([] if self.is_zig else _LAYOUT_FLAGS),
            f"-I{SOURCES}",
            f"-I{config_directory}",
            *(str(SOURCES / name) for name in _SOURCE_FILES),
            "-o",
            str(output),
            *libraries,
        ]


def find_compiler(target: str = "") -> Compiler:
    """Find a compiler: ``$CXX``, then the system's ``c++``, ``g++`` or ``clang++``, then ``ziglang``.

    Args:
        target: Another machine to compile for, as ``ziglang`` names it; empty for this one.

    Raises:
        ForgeError: There is none.

    Example:
        >>> find_compiler().target
        ''
    """
    if not target:
        for words in _system_commands():
            if (version := _version_of(words)) is not None:
                return Compiler(tuple(words), version, "", is_zig=False)
    if importlib.util.find_spec("ziglang") is not None:
        words = [sys.executable, "-m", "ziglang", "c++"]
        if (version := _version_of(words)) is not None:
            return Compiler(tuple(words), version, target, is_zig=True)
    what = f"there is no compiler for {target}" if target else "there is no C++ compiler"
    hint = "pip install 'heapsmith[compiler]'" + ("" if target else ", or use a preset, which needs none")
    raise ForgeError(what, "neither $CXX, c++, g++, clang++ nor ziglang is here" if not target else "", hint)


def _system_commands() -> Sequence[list[str]]:
    named = [shlex.split(os.environ["CXX"])] if os.environ.get("CXX", "").strip() else []
    return [*named, *([name] for name in ("c++", "g++", "clang++") if shutil.which(name))]


def _version_of(words: Sequence[str]) -> str | None:
    try:
        found = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.partition("\n")[0].strip() if found.returncode == 0 else None

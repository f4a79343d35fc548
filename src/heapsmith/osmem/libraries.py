"""Shared objects with the four functions: ours, ready to link, and anybody's, looked at before it is run."""

from __future__ import annotations

import shlex
import shutil
import struct
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from heapsmith.errors import CheckError, ForgeError
from heapsmith.native import SOURCES, library
from heapsmith.osmem.blocks import HEADER_BYTES, MMAP_THRESHOLD_BYTES, Layout
from heapsmith.osmem.driver import Call, NativeRun, run_native

_FILES: Final[dict[Layout, str]] = {"v1": "libosmem.so", "v2": "libosmem_v2.so"}
_ELF_HEADER: Final = struct.Struct("<4sBB10xHH")
_SHARED_OBJECT: Final = 3
_MACHINES: Final = {3: "x86", 40: "arm", 62: "x86-64", 183: "aarch64", 243: "riscv64"}


def built_library(layout: Layout = "v1") -> Path:
    """Find the library of a layout that came with heapsmith.

    Example:
        >>> built_library("v2").name
        'libosmem_v2.so'
    """
    return library(_FILES[layout])


def build_library(output: Path, layout: Layout = "v1", *, compiler_options: Sequence[str] = ()) -> Path:
    """Put a libosmem.so where it is wanted, with ``osmem.h`` beside it.

    Args:
        output: The file to write; if it is a directory, ``libosmem.so`` in it.
        layout: The header layout.
        compiler_options: If any are given, compile the source with them (``["-O0", "-g"]``) instead of
            copying the library that came with heapsmith.

    Returns:
        The library's path.

    Raises:
        ForgeError: It cannot be written, there is no compiler, or it refuses the options.
    """
    target = output / "libosmem.so" if output.is_dir() else output
    header = target.with_name("osmem.h")
    try:
        # Written beside and moved into place: a program that has the old library mapped keeps it intact.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".osmem-") as directory:
            fresh = Path(directory) / "libosmem.so"
            if compiler_options:
                _compile(fresh, layout, compiler_options)
            else:
                shutil.copyfile(built_library(layout), fresh)
            fresh.chmod(0o755)
            fresh.replace(target)
        if not (header.exists() and header.samefile(SOURCES / "osmem" / "osmem.h")):
            shutil.copyfile(SOURCES / "osmem" / "osmem.h", header)
    except OSError as error:
        hint = "name a file in a directory that you may write to"
        raise ForgeError(f"cannot write {target}", error.strerror or str(error), hint) from None
    return target


def _compile(output: Path, layout: Layout, options: Sequence[str]) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    command = [compiler] if compiler else _packaged_compiler()
    command += ["-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", f"-DOSMEM_LAYOUT={layout[1:]}"]
    command += [*options, str(SOURCES / "osmem" / "osmem.c"), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        first = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip())
        raise ForgeError("the compiler refuses libosmem.so", first, "check the options after --option")


def _packaged_compiler() -> list[str]:
    python = Path(sysconfig.get_path("scripts")) / "python-zig"
    if python.exists():
        return [str(python), "cc"]
    raise ForgeError(
        "there is no C compiler here",
        "neither cc, gcc nor clang, and no ziglang",
        "leave --option out to get the ready-made library, or: pip install 'heapsmith[compiler]'",
    )


def inspect_library(path: Path) -> None:
    """Refuse a file that cannot be a shared library of this machine.

    Raises:
        CheckError: It is missing, no ELF file, no shared object, or for another machine.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_ELF_HEADER.size)
    except OSError as error:
        raise CheckError(f"cannot read {path}", error.strerror or str(error), "name a libosmem.so") from None
    if len(start) < _ELF_HEADER.size or start[:4] != b"\x7fELF":
        raise CheckError(f"{path} is not a library", "it is no ELF file", "name a libosmem.so")
    _, bits, byte_order, kind, machine = _ELF_HEADER.unpack(start)
    if kind != _SHARED_OBJECT:
        raise CheckError(
            f"{path} is not a library", "it is an object file or a program", "link it with -shared -fPIC"
        )
    with Path("/proc/self/exe").open("rb") as file:
        here = _ELF_HEADER.unpack(file.read(_ELF_HEADER.size))
    if (bits, byte_order, machine) != (here[1], here[2], here[4]):
        name = _MACHINES.get(machine, f"machine {machine}")
        raise CheckError(
            f"{path} is for another machine ({32 if bits == 1 else 64}-bit {name})",
            hint="build it on this one",
        )


def header_bytes_of(path: Path) -> int | None:
    """Find how long a library's headers are: how far its payloads are from where heap and mapping begin.

    Returns:
        Bytes; None if it does not behave enough like a libosmem.so to tell.

    Raises:
        CheckError: The file is no library, cannot be loaded, or lacks a function.
    """
    inspect_library(path)
    run = run_native(path, [Call("os_malloc", -1, (1,)), Call("os_malloc", -1, (2 * MMAP_THRESHOLD_BYTES,))])
    distances = {_distance(run, 0, "brk"), _distance(run, 1, "mmap")} - {None}
    return distances.pop() if len(distances) == 1 else None


def _distance(run: NativeRun, index: int, name: str) -> int | None:
    if index >= len(run.steps) or not run.steps[index].result:
        return None
    made = [call.result for call in run.steps[index].system_calls if call.name == name]
    distance = run.steps[index].pointer - made[0] if made else -1
    return distance if 0 < distance < 4096 else None


def require_layout(path: Path, layout: Layout) -> None:
    """Refuse a library that has the other layout's headers.

    Raises:
        CheckError: It has; the error says which. Or the file is no library, cannot be loaded, lacks a
            function.
    """
    found = header_bytes_of(path)
    for other, header_bytes in HEADER_BYTES.items():
        if other != layout and found == header_bytes:
            raise CheckError(
                f"{path} looks like layout {other}, not {layout}",
                f"its headers are {found} bytes, {HEADER_BYTES[layout]} were expected",
                f"use --layout {other}, or build it for {layout}",
            )


def linking_flags(path: Path) -> str:
    """Write the compiler flags that link a program with a library, to be found there when the program runs.

    Example:
        >>> linking_flags(Path("/opt/course/libosmem.so"))
        '-I/opt/course -L/opt/course -l:libosmem.so -Wl,-rpath,/opt/course'
    """
    directory = shlex.quote(str(path.resolve().parent))
    return f"-I{directory} -L{directory} {shlex.quote(f'-l:{path.name}')} -Wl,-rpath,{directory}"

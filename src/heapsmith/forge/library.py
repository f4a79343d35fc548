"""The shared object of a heap: from the cache when all that goes into it is unchanged, else compiled and verified."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.errors import ForgeError
from heapsmith.forge.amalgamate import render_header
from heapsmith.forge.compiler import Compiler, find_compiler
from heapsmith.forge.render import render_config
from heapsmith.forge.verify import verify_library
from heapsmith.native import LIBRARIES, SOURCES
from heapsmith.outputs import write_output
from heapsmith.spec import HeapSpec, Limit, load_spec, presets

_COMPILE_TIMEOUT_S: Final = 300
_CORE_FOLDERS: Final = ("abi", "base", "heap", "os", "policy", "probe", "wire")


class Forged(msgspec.Struct, frozen=True):
    """What a forge made.

    Args:
        path: The shared object, or the header.
        cached: Whether it came from the cache.
        seconds: How long it took.
        compiler: What compiled it, empty for a preset that came compiled.
        debug_file: What a debugger needs, if it was asked for.
    """

    path: Path
    cached: bool
    seconds: float
    compiler: str
    debug_file: Path | None = None

    def document(self) -> dict[str, object]:
        """Return it as plain values, for JSON."""
        debug_file = str(self.debug_file) if self.debug_file else None
        return {
            "path": str(self.path),
            "cached": self.cached,
            "seconds": self.seconds,
            "compiler": self.compiler or None,
            "debug_file": debug_file,
        }


def preset_library(name: str) -> Path | None:
    """Find the library of a preset that came with this installation.

    Example:
        >>> preset_library("no-such-preset") is None
        True
    """
    path = LIBRARIES / f"libheapsmith_{name}.so"
    return path if name in presets() and path.is_file() else None


def forge(
    spec: HeapSpec, output: Path | None = None, *, target: str = "", debug_file: Path | None = None
) -> Forged:
    """Make the shared object of a heap.

    Args:
        spec: The heap.
        output: Where to put it; None leaves it in the cache.
        target: Another machine (``aarch64-linux-gnu``); empty for this one.
        debug_file: Where to put what a debugger needs; None strips it.

    Raises:
        ForgeError: No compiler; it failed; the library failed its verification; a file could not be written.
    """
    started_s = time.monotonic()
    ready = None if target or debug_file else _ready_preset(spec)
    if ready is not None:
        library = _place(ready, output) if output else ready
        return Forged(library, cached=True, seconds=time.monotonic() - started_s, compiler="")
    compiler = find_compiler(target)
    config = render_config(spec)
    cache = _cache_directory()
    name = f"{spec.name}-{_fingerprint(compiler, config, debug=debug_file is not None)}"
    kept, kept_debug = cache / f"{name}.so", cache / f"{name}.debug"
    cached = kept.is_file() and (debug_file is None or kept_debug.is_file())
    if not cached:
        _compile(compiler, config, spec, kept, kept_debug if debug_file else None, verify=not target)
    library = _place(kept, output) if output else kept
    placed_debug = _place(kept_debug, debug_file) if debug_file else None
    return Forged(library, cached, time.monotonic() - started_s, compiler.version, placed_debug)


def write_header(spec: HeapSpec, output: Path) -> Forged:
    """Write the one header of a heap.

    Raises:
        HeapsmithError: The file cannot be written.
    """
    started_s = time.monotonic()
    write_output(output, render_header(spec))
    return Forged(output, cached=False, seconds=time.monotonic() - started_s, compiler="")


def _ready_preset(spec: HeapSpec) -> Path | None:
    path = preset_library(spec.name)
    return path if path is not None and load_spec(spec.name) == spec else None


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    path = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "heapsmith" / "forge"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ForgeError(
            f"the cache {path} cannot be written",
            error.strerror or str(error),
            "set XDG_CACHE_HOME to another place",
        ) from error
    return path


def _fingerprint(compiler: Compiler, config: str, *, debug: bool) -> str:
    """Hash everything that decides what the library will be."""
    digest = hashlib.sha256()
    words = compiler.words(Path("config"), Path("library"), debug=debug)
    for part in (compiler.version, " ".join(words), config):
        digest.update(part.encode() + b"\0")
    for folder in _CORE_FOLDERS:
        for path in sorted((SOURCES / folder).rglob("*")):
            if path.suffix in {".h", ".cc", ".def"}:
                digest.update(str(path.relative_to(SOURCES)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:24]


def _compile(
    compiler: Compiler, config: str, spec: HeapSpec, output: Path, debug_file: Path | None, *, verify: bool
) -> None:
    work = Path(tempfile.mkdtemp(prefix=f"heapsmith-{spec.name}-"))
    (work / "heap_config.h").write_text(config)
    library = work / "heap.so"
    words = compiler.words(work, library, debug=debug_file is not None)
    try:
        result = subprocess.run(
            words, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ForgeError(
            f"the compiler took longer than {_COMPILE_TIMEOUT_S} s", shlex.join(words)
        ) from error
    if result.returncode != 0 or not library.is_file():
        errors = [line for line in result.stderr.splitlines() if "error" in line]
        said = errors[0] if errors else (result.stderr.strip() or f"exit code {result.returncode}")
        (work / "errors.txt").write_text(f"{shlex.join(words)}\n{result.stderr}")
        raise ForgeError("the compiler failed", said, f"source, command and all messages are kept in {work}")
    if debug_file is not None:
        _split_debug(library, debug_file)
    if verify:
        limited = any(isinstance(stage, Limit) for stage in spec.pages.stages)
        verify_library(library, limited=limited)
    _put(library, output)
    shutil.rmtree(work, ignore_errors=True)


def _split_debug(library: Path, debug_file: Path) -> None:
    tool = shutil.which("objcopy")
    if tool is None:
        raise ForgeError("the debug file cannot be split off", "there is no objcopy", "install binutils")
    for words in (
        ["--only-keep-debug", str(library), str(debug_file)],
        ["--strip-debug", f"--add-gnu-debuglink={debug_file}", str(library)],
    ):
        subprocess.run([tool, *words], check=True, capture_output=True)


def _put(source: Path, target: Path) -> None:
    """Copy next to the target and rename: whoever reads the target never sees half of it."""
    file, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(file)
    beside = Path(name)
    try:
        shutil.copyfile(source, beside)
        beside.chmod(0o755)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _place(source: Path, target: Path) -> Path:
    try:
        _put(source, target)
    except OSError as error:
        raise ForgeError(f"cannot write {target}", error.strerror or str(error)) from error
    return target

"""Native frames get their names by build-id, afterwards, here or elsewhere; what has none gets an honest one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from heapsmith.symbols import FrameNames, name_frames
from heapsmith.symbols.files import find_module_files
from heapsmith.trace import Manifest, ModuleRecord, Symbol, Trace, TraceWriter, open_trace
from heapsmith.trace.caches import CacheRules, read_rules
from heapsmith.trace.layout import FRAME, UNKNOWN_MODULE
from heapsmith.trace.places import Label
from heapsmith.trace.records import FrameSymbols
from heapsmith.trace.report import build_report
from recorded import record

SOURCE = """
#include <cstdlib>
namespace demo {
static inline __attribute__((always_inline)) void* inner(int n) { return std::malloc(n); }
__attribute__((noinline)) void* outer(int n) {
  void* block = inner(n);
  return block;
}
}
int main(int n, char**) { return demo::outer(n) == nullptr; }
"""

PLUGIN = """
#include <cstdlib>
extern "C" __attribute__((noinline)) void* plugin_keeps(int n) {
  void* block = std::malloc(n);
  return block;
}
"""
HOST = """
#include <dlfcn.h>
#include <cstdlib>
int main(int, char** words) {
  void* handle = dlopen(words[1], RTLD_NOW);
  auto keep = reinterpret_cast<void* (*)(int)>(dlsym(handle, "plugin_keeps"));
  for (int i = 0; i < 100; i++) keep(4000);
  dlclose(handle);
  for (int i = 0; i < 100; i++) std::free(std::malloc(50));
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("symbols")
    (folder / "demo.cc").write_text(SOURCE)
    subprocess.run(
        ["c++", "-g", "-O1", "-fno-optimize-sibling-calls", "-Wl,--build-id", "-o", "demo", "demo.cc"],
        cwd=folder,
        check=True,
    )
    return folder / "demo"


def build_id(path: Path) -> str:
    text = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
    return re.findall(r"Build ID: (\w+)", text)[0]


def return_address(path: Path) -> int:
    """The address behind the call of malloc in demo::outer."""
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    body = text[text.index("<_ZN4demo5outerEi>:") :].splitlines()
    place = next(at for at, line in enumerate(body) if "malloc" in line)
    return int(body[place + 1].split(":")[0], 16)


def write_frames(
    path: Path, modules: list[ModuleRecord], rows: list[tuple[int, int, int, int]], symbols=()
) -> Trace:
    with TraceWriter(path, Manifest(command=["demo"], started_unix_ns=0, heapsmith="0")) as writer:
        writer.write_modules(modules)
        writer.write_frames(np.array(rows, FRAME))
        writer.write_symbols(symbols)
    return open_trace(path)


def texts(trace: Trace, names: FrameNames, frame: int = 1) -> list[str]:
    return [label.text for label in names(trace, [frame])[frame]]


def test_inlined_functions_and_lines_come_out_of_debug_information(program: Path, tmp_path: Path) -> None:
    trace = write_frames(
        tmp_path / "x.heap",
        [ModuleRecord(path=str(program), build_id=build_id(program))],
        [(1, 0, return_address(program), 0)],
    )
    inner, outer = texts(trace, FrameNames())
    assert re.fullmatch(r"(demo::)?inner(\(int\))? \(.*demo\.cc:4\)", inner)
    assert re.fullmatch(r"demo::outer\(int\) \(.*demo\.cc:6\)", outer)


def test_a_stripped_program_is_named_by_its_debug_file_wherever_that_is(
    program: Path, tmp_path: Path
) -> None:
    identity, address = build_id(program), return_address(program)
    elsewhere = tmp_path / "elsewhere"
    debug = elsewhere / ".build-id" / identity[:2] / f"{identity[2:]}.debug"
    debug.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", program, debug], check=True)
    stripped = tmp_path / "demo"
    subprocess.run(["strip", "-o", stripped, program], check=True)
    trace = write_frames(
        tmp_path / "x.heap", [ModuleRecord(path=str(stripped), build_id=identity)], [(1, 0, address, 0)]
    )
    names = FrameNames()
    assert texts(trace, names) == [f"demo+{address:#x}"]
    assert texts(trace, FrameNames([elsewhere]))[-1].startswith("demo::outer(int) (")
    # On another machine the program is not there at all, and a plain folder of files does as well.
    gone = write_frames(
        tmp_path / "y.heap", [ModuleRecord(path="/srv/demo", build_id=identity)], [(1, 0, address, 0)]
    )
    assert texts(gone, FrameNames([program.parent]))[-1].startswith("demo::outer(int) (")
    names = FrameNames()
    assert texts(gone, names) == [f"demo+{address:#x}"]
    assert "neither" in names.problems["/srv/demo"]


def test_another_build_of_the_same_name_is_never_taken(program: Path, tmp_path: Path) -> None:
    copied = tmp_path / "demo"
    shutil.copy(program, copied)
    module = ModuleRecord(path=str(copied), build_id="ab" * 20)
    assert find_module_files(module).symbols == ()
    names = FrameNames()
    trace = write_frames(tmp_path / "x.heap", [module], [(1, 0, 0x1234, 0)])
    assert texts(trace, names) == ["demo+0x1234"]
    assert names.problems == {str(copied): "the file on this machine is another version"}


def test_without_debug_information_the_symbol_table_tells_the_function(program: Path, tmp_path: Path) -> None:
    plain = tmp_path / "demo"
    subprocess.run(["strip", "--strip-debug", "-o", plain, program], check=True)
    trace = write_frames(
        tmp_path / "x.heap",
        [ModuleRecord(path=str(plain), build_id=build_id(program))],
        [(1, 0, return_address(program), 0)],
    )
    assert texts(trace, FrameNames()) == ["demo::outer(int) (demo)"]


def test_generated_code_deleted_files_and_names_in_the_trace(tmp_path: Path) -> None:
    trace = write_frames(
        tmp_path / "x.heap",
        [ModuleRecord(path="/srv/gone.so", build_id=None)],
        [(1, UNKNOWN_MODULE, 0x7F00DEADBEEF, 0), (1, 0, 0x44, 0), (1, 0, 0x55, 0), (9, 0, 0, 0)],
        [FrameSymbols(3, [Symbol("_ZN4demo4growEi", "grow.cc", 7)])],
    )
    names = FrameNames()
    assert texts(trace, names, 1) == ["0x7f00deadbeef (in no file: generated code)"]
    assert texts(trace, names, 2) == ["gone.so+0x44"]
    assert texts(trace, names, 3) == ["demo::grow(int) (grow.cc:7)"]
    assert texts(trace, names, 4) == ["?"]


def native_labels(trace: Trace, names: FrameNames) -> list[Label]:
    frames = range(1, len(trace.frames))
    return [label for labels in names(trace, list(frames)).values() for label in labels]


@pytest.mark.parametrize("ending", ["return", "abort"])
def test_a_recording_names_its_frames_where_the_program_is_not(
    program: Path, tmp_path: Path, ending: str
) -> None:
    here = tmp_path / "demo"
    if ending == "return":
        shutil.copy(program, here)
    else:
        source = SOURCE.replace("return demo::outer(n) == nullptr;", "demo::outer(n); std::abort();")
        (tmp_path / "demo.cc").write_text(source)
        command = ["c++", "-g", "-O1", "-fno-optimize-sibling-calls", "-o", here, tmp_path / "demo.cc"]
        subprocess.run(command, check=True)
    trace = record(tmp_path / "x.heap", here, options=("--stacks", "all")).trace
    here.unlink()
    assert trace.end is not None
    found = {(label.function, label.line) for label in native_labels(trace, FrameNames())}
    assert ("demo::outer(int)", 6) in found
    assert any(function.startswith("demo::inner") or function == "inner" for function, _ in found)


def test_a_file_that_was_deleted_is_named_while_it_is_kept_open(program: Path, tmp_path: Path) -> None:
    copied = tmp_path / "demo"
    shutil.copy(program, copied)
    module = ModuleRecord(path=str(copied), build_id=build_id(program))
    with copied.open("rb") as file:
        copied.unlink()
        kept_open = {module: Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")}
        [named] = name_frames([module], {1: (0, return_address(program))}, kept_open=kept_open)
    assert [symbol.line for symbol in named[0].symbols] == [4, 6]
    assert not [rows for rows in name_frames([module], {1: (0, return_address(program))}) if rows]


@pytest.mark.parametrize("order", ["unlink(words[0]); demo::outer(n);", "demo::outer(n); unlink(words[0]);"])
def test_a_program_that_deletes_its_own_file_at_once_is_named(tmp_path: Path, order: str) -> None:
    main = f"int main(int n, char** words) {{ {order} usleep(200'000); }}"
    (tmp_path / "demo.cc").write_text("#include <unistd.h>" + SOURCE.partition("int main")[0] + main)
    here = tmp_path / "demo"
    subprocess.run(["c++", "-g", "-O1", "-Wl,--build-id", "-o", here, tmp_path / "demo.cc"], check=True)
    trace = record(tmp_path / "x.heap", here, options=("--stacks", "all")).trace
    assert not here.exists()
    assert ("demo::outer(int)", 6) in {
        (label.function, label.line) for label in native_labels(trace, FrameNames())
    }


def test_without_names_the_file_has_none(program: Path, tmp_path: Path) -> None:
    done = record(tmp_path / "x.heap", program, options=("--stacks", "all", "--no-names"))
    assert done.trace.symbols == {}


def test_when_the_time_for_lines_is_over_functions_are_written(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "llvm-symbolizer"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    module = ModuleRecord(path=str(program), build_id=build_id(program))
    [named] = name_frames([module], {1: (0, return_address(program))}, longest_s=0.5)
    assert named == [FrameSymbols(1, [Symbol("demo::outer(int)")])]


def test_a_folder_that_is_named_tells_more_than_the_file(program: Path, tmp_path: Path) -> None:
    trace = write_frames(
        tmp_path / "x.heap",
        [ModuleRecord(path="/srv/demo", build_id=build_id(program))],
        [(1, 0, return_address(program), 0)],
        [FrameSymbols(1, [Symbol("demo::outer(int)")])],
    )
    names = FrameNames()
    assert texts(trace, names) == ["demo::outer(int) (demo)"]
    assert len(texts(trace, FrameNames([program.parent]))) == 2


def test_frames_of_a_library_that_was_closed_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "plugin.cc").write_text(PLUGIN)
    (tmp_path / "host.cc").write_text(HOST)
    compiler = ["c++", "-g", "-O1", "-fno-builtin", "-fno-optimize-sibling-calls"]
    plugin, host = tmp_path / "plugin.so", tmp_path / "host"
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", plugin, tmp_path / "plugin.cc"], check=True)
    subprocess.run([*compiler, "-o", host, tmp_path / "host.cc", "-ldl"], check=True)
    path = tmp_path / "x.heap"
    record(path, host, plugin, options=("--stacks", "all"))
    plugin.unlink()
    report = build_report([open_trace(path)], FrameNames(), CacheRules(read_rules()))
    [held] = [site for site in report.processes[0].sites if site.live_bytes_at_exit == 400_000]
    assert (held.label.function, held.label.line) == ("plugin_keeps", 4)


def test_spawn_fork_and_exec_are_processes_of_one_report(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text(
        "import multiprocessing, subprocess, sys\n"
        "def spawned(): return len(bytearray(3_000_017))\n"
        "def forked(): return len(bytearray(5_000_011))\n"
        "if __name__ == '__main__':\n"
        "    for way, work in (('spawn', spawned), ('fork', forked)):\n"
        "        child = multiprocessing.get_context(way).Process(target=work)\n"
        "        child.start(); child.join(); assert child.exitcode == 0\n"
        "    subprocess.run([sys.executable, '-c', 'bytearray(7_000_003)'], check=True)\n"
    )
    path = tmp_path / "x.heap"
    assert record(path, sys.executable, script, options=("--stacks", "all")).code == 0
    report = build_report([open_trace(path)], FrameNames(), CacheRules(read_rules()))

    def holders(least_bytes: int) -> set[tuple[str, int | None, bool]]:
        return {
            (site.label.function, site.label.line, process.figures.forked)
            for process in report.processes
            for site in process.sites
            if least_bytes <= site.allocated_bytes < least_bytes + 1_000_000 and site.label.is_python
        }

    assert ("spawned", 2, False) in holders(3_000_017)
    assert ("forked", 3, True) in holders(5_000_011)
    assert ("<module>", 1, False) in holders(7_000_003)

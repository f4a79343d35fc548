"""CPython's own objects, counted: as many as the interpreter itself counts, in every version and mode."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heapsmith.run.values import Process
from watched import PROGRAMS, Watched, counted_versions, interpreters

OBJECTS = PROGRAMS / "objects.py"
SIZES = [size for size in range(0, 2000, 7) if not 512 < size + 35 <= 520]
OWN_BLOCKS = 20
"""The interpreter's count is taken a few blocks before the end."""


def objects(process: Process) -> int:
    assert process.python is not None
    assert process.python.blocks is not None, process.python.note
    assert process.python.blocks == sum(row.python_live_blocks for row in process.size_classes)
    return process.python.blocks


def live_beyond_pools(process: Process) -> int:
    return sum(row.python_live_blocks for row in process.size_classes if (row.class_bytes or 1 << 60) > 520)


def assert_counts_as_the_interpreter(full: Watched, unseen_blocks: int = OWN_BLOCKS) -> None:
    difference = objects(full.first) - int(full.output)
    assert abs(difference) <= unseen_blocks, difference


MODES = {
    "default": {},
    "dev": {"PYTHONDEVMODE": "1"},
    "debug": {"PYTHONMALLOC": "debug"},
    "pymalloc": {"PYTHONMALLOC": "pymalloc"},
    "pymalloc_debug": {"PYTHONMALLOC": "pymalloc_debug"},
    "tracemalloc": {"PYTHONTRACEMALLOC": "2"},
    "tracemalloc over debug": {"PYTHONTRACEMALLOC": "1", "PYTHONMALLOC": "debug"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", counted_versions())
def test_as_many_objects_are_counted_as_the_interpreter_counts(
    watch: Callable[..., Watched], version: str, mode: str
) -> None:
    # Without what installed packages run at the start: the more is imported, the further off the interpreter's count is.
    full = watch([interpreters()[version], "-S", OBJECTS, "40"], environment=MODES[mode])
    assert full.code == 0, full.errors
    assert_counts_as_the_interpreter(full)
    assert all(row.python_live_blocks >= 0 for row in full.first.size_classes)
    assert full.first.live_bytes == sum(row.live_bytes for row in full.first.size_classes)


@pytest.mark.parametrize("version", counted_versions())
def test_whoever_puts_hooks_over_ours_while_it_runs_may(watch: Callable[..., Watched], version: str) -> None:
    code = """
import os, sys, tracemalloc
tracemalloc.start()
keep = [bytes(100) for _ in range(60000)]
tracemalloc.stop()
more = [bytes(100) for _ in range(60000)]
tracemalloc.start()
again = [bytes(100) for _ in range(60000)]
print(sys.getallocatedblocks(), flush=True)
os._exit(0)
"""
    full = watch([interpreters()[version], "-c", code])
    assert full.code == 0, full.errors
    assert_counts_as_the_interpreter(full, 3 * OWN_BLOCKS)


@pytest.mark.parametrize("version", counted_versions())
def test_objects_are_filed_under_their_own_size(watch: Callable[..., Watched], version: str) -> None:
    kept = 50
    empty, full = (watch([interpreters()[version], "-I", OBJECTS, count]) for count in ("0", str(kept)))
    expected = dict[int, int]()
    for size in SIZES:
        whole = (size + 2 + 33 + 15) // 16 * 16
        if whole <= 512:
            expected[whole + 8] = expected.get(whole + 8, 0) + kept
    grown = {
        after.class_bytes: after.python_live_blocks
        - sum(
            row.python_live_blocks for row in empty.first.size_classes if row.class_bytes == after.class_bytes
        )
        for after in full.first.size_classes
    }
    for class_bytes, blocks in expected.items():
        assert abs(grown[class_bytes] - blocks) <= OWN_BLOCKS, class_bytes
    # What is too large for the pools goes through malloc, once.
    large = live_beyond_pools(full.first) - live_beyond_pools(empty.first)
    assert abs(large - kept * sum(size + 35 > 520 for size in SIZES)) <= OWN_BLOCKS


@pytest.mark.parametrize("version", counted_versions())
def test_objects_that_go_through_malloc_are_native_and_said_to_be(
    watch: Callable[..., Watched], version: str
) -> None:
    full = watch([interpreters()[version], OBJECTS, "10"], environment={"PYTHONMALLOC": "malloc"})
    assert full.first.python is not None
    assert full.first.python.blocks is None
    assert "PYTHONMALLOC" in full.first.python.note
    assert full.first.live_blocks > 10 * len(SIZES)


def test_not_counting_objects_still_shows_the_arenas(watch: Callable[..., Watched]) -> None:
    full = watch([sys.executable, OBJECTS, "40"], python_objects=False)
    assert full.first.python is not None
    assert full.first.python.blocks is None
    assert full.first.python.arena_bytes >= 1 << 20
    assert full.first.mapped_bytes >= full.first.python.arena_bytes


@pytest.mark.parametrize("key", [key for key in interpreters() if key not in counted_versions()])
def test_an_older_interpreter_is_named_and_runs(watch: Callable[..., Watched], key: str) -> None:
    full = watch([interpreters()[key], "-c", "print(sum(range(10**5)))"])
    assert (full.code, full.output) == (0, "4999950000\n")
    if tuple(map(int, key.split("-")[0].split("."))) >= (3, 5):
        assert full.first.python is not None
        assert "3.11" in full.first.python.note


def test_a_virtual_environment_counts_as_its_interpreter(
    watch: Callable[..., Watched], tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    full = watch([tmp_path / "venv" / "bin" / "python", OBJECTS, "40"])
    assert_counts_as_the_interpreter(full)


def test_an_interpreter_that_is_loaded_later_is_counted(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    libraries = sorted(Path.home().glob(".pyenv/versions/3.1[1-4]*/lib/libpython3.1?.so"))
    libraries += sorted(Path("/usr/lib/x86_64-linux-gnu").glob("libpython3.1?.so.1"))
    if not libraries:
        pytest.skip("there is no libpython3.11 or newer to load on this machine")
    program = compiled("embedded.c", "-ldl")
    for path in libraries:
        prefix = path.parent.parent if path.parent.name == "lib" else Path("/usr")
        full = watch([program, path, OBJECTS], environment={"PYTHONHOME": str(prefix)})
        assert full.code == 0, full.errors
        # It is found at its first arena: what it took from malloc before that is native.
        assert_counts_as_the_interpreter(full, unseen_blocks=3 * OWN_BLOCKS)


def test_threads_allocate_objects_for_each_other(watch: Callable[..., Watched]) -> None:
    code = """
import os, queue, sys, threading
box = queue.Queue(1000)
def give():
    for n in range(20000): box.put((n, str(n)))
    box.put(None)
threads = [threading.Thread(target=give) for _ in range(4)]
for thread in threads: thread.start()
ended = 0
while ended < 4:
    ended += box.get() is None
for thread in threads: thread.join()
line = b"%d" % sys.getallocatedblocks()
os.write(1, line)
os._exit(0)
"""
    full = watch([sys.executable, "-c", code])
    assert_counts_as_the_interpreter(full, 3 * OWN_BLOCKS)
    assert full.first.threads_started >= 5


def test_a_limit_is_a_memory_error(watch: Callable[..., Watched]) -> None:
    code = """
import sys
caught = 0
keep = []
reserve = bytearray(1 << 20)
try:
    while True: keep.append(bytes(100))
except MemoryError: reserve = None; caught += 1
held = len(keep)
del keep
try: bytes(10**9)
except MemoryError: caught += 1
block = bytearray(1000)
try: block.extend(b'x' * 10**8)
except MemoryError: caught += 1
assert len(block) == 1000
print(caught, held)
"""
    full = watch([sys.executable, "-S", "-c", code], limit=24 << 20)
    assert full.code == 0, full.errors
    caught, held = map(int, full.output.split())
    assert caught == 3
    assert 100_000 < held < (24 << 20) // 144
    assert full.first.refused >= 3


def test_multiprocessing_counts_each_process_once(watch: Callable[..., Watched]) -> None:
    code = """
import multiprocessing, os, sys
def work(n):
    return sum(len(str(i)) for i in range(n))
if __name__ == '__main__':
    for method in ('fork', 'spawn', 'forkserver'):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(sum(pool.map(work, [10000] * 8)))
"""
    script = Path(os.environ.get("TMPDIR", "/tmp")) / f"heapsmith-multi-{os.getpid()}.py"
    script.write_text(code)
    try:
        full = watch([sys.executable, script])
    finally:
        script.unlink()
    assert full.output == "311120\n" * 3, full.errors
    assert full.errors == ""
    assert len({process.pid for process in full.processes}) >= 7
    for process in full.processes:
        assert process.lost == 0
        assert process.live_blocks >= 0
        assert all(row.live_blocks >= 0 and row.live_bytes >= 0 for row in process.size_classes)


def test_an_asyncio_server_serves_as_without(watch: Callable[..., Watched]) -> None:
    code = """
import asyncio
async def main():
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    port = server.sockets[0].getsockname()[1]
    async def ask(n):
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(b'hello %d\\n' % n)
        answer = await reader.read()
        writer.close()
        return answer
    answers = await asyncio.gather(*(ask(n) for n in range(200)))
    print(len(set(answers)))
asyncio.run(main())
"""
    full = watch([sys.executable, "-c", code])
    assert (full.code, full.output, full.errors) == (0, "200\n", "")

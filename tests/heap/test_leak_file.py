"""The leak file of a heap that was forged to record origins: size, count, thread and place of what is still live."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SOURCE = """
#include <pthread.h>
#include <stdlib.h>
static void* in_thread(void* unused) { for (int i = 0; i < 7; i++) malloc(100); return unused; }
static void by_number(int count) { for (int i = 0; i < count; i++) malloc(5000); }
int main(void) {
  by_number(37);
  malloc(9000000); free(malloc(5000)); free(realloc(malloc(10), 200)); calloc(3, 11);
  void* aligned; if (posix_memalign(&aligned, 512, 60) != 0) return 1;
  pthread_t thread; pthread_create(&thread, 0, in_thread, 0); pthread_join(thread, 0);
  return 0;
}
"""
_SPEC = """
name = "traced"
[sizes]
policy = "Geometric"
largest_bytes = "32KiB"
[[hardening]]
policy = "CheckedBlocks"
[[hardening]]
policy = "RecordedOrigins"
"""


def test_the_leak_file_tells_thread_and_place_where_the_heap_was_forged_to(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc on this machine")
    (tmp_path / "leak.c").write_text(_SOURCE)
    (tmp_path / "traced.toml").write_text(_SPEC)
    program, leaks = tmp_path / "leak", tmp_path / "leaks.csv"
    words = [
        "gcc",
        "-g",
        "-O1",
        "-fno-inline",
        "-fno-builtin",
        "-pthread",
        str(tmp_path / "leak.c"),
        "-o",
        str(program),
    ]
    subprocess.run(words, check=True)
    run = ["run", "--allocator", str(tmp_path / "traced.toml"), "--leaks", str(leaks), "--no-summary", "--"]
    subprocess.run([sys.executable, "-m", "heapsmith", *run, str(program)], check=True)
    head, *lines = [line.split(",") for line in leaks.read_text().splitlines()]
    assert head == ["class_bytes", "blocks", "bytes", "thread", "place"]
    rows = {int(size): (int(blocks), int(held), thread, place) for size, blocks, held, thread, place in lines}
    assert {size: rows[size][:2] for size in (100, 5000, 9000000, 33, 60)} == {
        100: (7, 700), 5000: (37, 185000), 9000000: (1, 9000000), 33: (1, 33), 60: (1, 60),
    }  # fmt: skip
    assert rows[100][2] != rows[5000][2]
    library, _, offset = rows[5000][3].partition("+")
    assert Path(library) == program
    if shutil.which("addr2line"):
        words = ["addr2line", "-f", "-e", str(program), hex(int(offset, 16) - 1)]
        assert (
            subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0] == "by_number"
        )

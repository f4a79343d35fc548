from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heapsmith.errors import ForgeError
from heapsmith.native import SOURCES
from heapsmith.osmem.blocks import HEADER_BYTES, Layout
from heapsmith.osmem.driver import ANSWER, HEAD, HEAP_BLOCK, OPERATION, SYSTEM_CALL
from heapsmith.osmem.libraries import build_library, built_library, header_bytes_of, linking_flags

ALLOWED_UNDEFINED = {
    *("sbrk", "mmap", "munmap", "memcpy", "memset", "strlen", "write", "abort", "__errno_location"),
    *("pthread_mutex_lock", "pthread_mutex_unlock", "__cxa_finalize", "__gmon_start__"),
    *("_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable"),
}


def run_c(
    tmp_path: Path, source: str, layout: Layout = "v1", *, compiler: str = "cc", options: str = ""
) -> str:
    library = build_library(tmp_path / "libosmem.so", layout)
    program = tmp_path / "program"
    suffix = "c" if compiler == "cc" else "c++"
    command = (
        f"{compiler} -g -Wall -Werror {options} -x {suffix} - -o {program} {linking_flags(library)} -pthread"
    )
    subprocess.run(command, shell=True, input=source, text=True, check=True)
    return subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_the_library_exports_the_four_functions_and_needs_only_the_c_library(layout: Layout) -> None:
    names = subprocess.run(
        ["nm", "-D", built_library(layout)], capture_output=True, text=True, check=True
    ).stdout
    defined = set(re.findall(r" T (\w+)", names))
    undefined = {name.split("@")[0] for name in re.findall(r" [Uw] ([\w@.]+)", names)}
    assert defined == {"os_malloc", "os_calloc", "os_realloc", "os_free"}
    assert undefined <= ALLOWED_UNDEFINED
    dynamic = subprocess.run(
        ["readelf", "-d", built_library(layout)], capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"NEEDED.*\[(.*)\]", dynamic) == ["libc.so.6"]
    assert "SONAME" not in dynamic  # whatever it is copied to, it is found by that name


@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_the_header_serves_c_and_cplusplus(compiler: str, tmp_path: Path) -> None:
    source = '#include "osmem.h"\n#include <stdio.h>\nint main(void) { os_free(os_malloc(3)); puts("fine"); return 0; }'
    assert run_c(tmp_path, source, compiler=compiler, options="-Wextra -pedantic") == "fine\n"


def test_other_users_of_brk_are_left_alone(tmp_path: Path) -> None:
    source = r"""
#define _DEFAULT_SOURCE
#include "osmem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
  enum { ROUNDS = 400 };
  static char *ours[ROUNDS], *theirs[ROUNDS], *raw[ROUNDS];
  static size_t sizes[ROUNDS];
  for (int i = 0; i < ROUNDS; i++) {
    sizes[i] = 1 + (size_t)(i * 7919) % 20000;
    ours[i] = os_malloc(sizes[i]);
    memset(ours[i], i, sizes[i]);
    theirs[i] = malloc(30000);
    memset(theirs[i], ~i, 30000);
    raw[i] = sbrk(i % 50 + 1); /* odd lengths: the break is not aligned any more */
    memset(raw[i], 0x55, i % 50 + 1);
    if (i % 3 == 0) {
      size_t larger = sizes[i] + 5000;
      ours[i] = os_realloc(ours[i], larger);
      memset(ours[i] + sizes[i], i, 5000);
      sizes[i] = larger;
    }
    if (i % 5 == 4) {
      os_free(ours[i - 2]);
      sizes[i - 2] = 0;
    }
  }
  for (int i = 0; i < ROUNDS; i++) {
    if ((size_t)ours[i] % 8) return 1;
    for (size_t j = 0; j < sizes[i]; j++) if (ours[i][j] != (char)i) return 2;
    for (size_t j = 0; j < 30000; j++) if (theirs[i][j] != (char)~i) return 3;
    for (int j = 0; j < i % 50 + 1; j++) if (raw[i][j] != 0x55) return 4;
  }
  puts("intact");
  return 0;
}
"""
    assert run_c(tmp_path, source) == "intact\n"


def test_threads_may_share_it(tmp_path: Path) -> None:
    source = r"""
#include "osmem.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
static void *work(void *argument) {
  long seed = (long)argument;
  char *blocks[16] = {0};
  size_t sizes[16] = {0};
  for (int round = 0; round < 20000; round++) {
    int i = (int)((seed + round * 31L) % 16);
    for (size_t j = 0; j < sizes[i]; j++) if (blocks[i][j] != (char)seed) return (void *)1;
    os_free(blocks[i]);
    sizes[i] = (size_t)((round * 37) % 300);
    blocks[i] = os_malloc(sizes[i]);
    if (blocks[i]) memset(blocks[i], (int)seed, sizes[i]);
  }
  return 0;
}
int main(void) {
  pthread_t threads[4];
  for (long i = 0; i < 4; i++) pthread_create(&threads[i], 0, work, (void *)(i + 1));
  for (int i = 0; i < 4; i++) {
    void *wrong;
    pthread_join(threads[i], &wrong);
    if (wrong) return 1;
  }
  puts("intact");
  return 0;
}
"""
    assert run_c(tmp_path, source) == "intact\n"


def test_no_memory_is_null_with_enomem_and_leaves_the_block_as_it_was(tmp_path: Path) -> None:
    source = r"""
#include "osmem.h"
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
int main(void) {
  char *p = os_malloc(1000);
  strcpy(p, "still here");
  struct rlimit none = {64 << 20, 64 << 20};
  setrlimit(RLIMIT_AS, &none);
  size_t sizes[] = {100u << 20, SIZE_MAX, SIZE_MAX / 2, PTRDIFF_MAX - 8};
  for (int i = 0; i < 4; i++) {
    errno = 0;
    if (os_malloc(sizes[i]) || errno != ENOMEM) return 1;
    errno = 0;
    if (os_realloc(p, sizes[i]) || errno != ENOMEM || strcmp(p, "still here")) return 2;
  }
  errno = 0;
  if (os_calloc((size_t)1 << 32, (size_t)1 << 32) || errno != ENOMEM) return 3;
  none.rlim_cur = none.rlim_max = 1;
  setrlimit(RLIMIT_AS, &none);
  for (int i = 0; i < 3; i++) {
    void *q = os_malloc(100000); /* from the preallocated heap at first, then from nowhere */
    if (i && (q || errno != ENOMEM)) return 4;
  }
  puts("fine");
  return 0;
}
"""
    assert run_c(tmp_path, source) == "fine\n"


def test_a_foreign_pointer_ends_the_program_with_a_message(tmp_path: Path) -> None:
    source = '#include "osmem.h"\nint main(void) { static long room[8] = {9, 9, 9, 9, 9, 9}; os_free(room + 6); return 0; }'
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_c(tmp_path, source)
    assert caught.value.returncode == -6
    assert "osmem: this pointer is no block" in caught.value.stderr


def test_it_works_inside_a_python_process_whose_own_malloc_uses_brk() -> None:
    code = f"""
import ctypes
lib = ctypes.CDLL({str(built_library())!r})
lib.os_malloc.restype = lib.os_realloc.restype = ctypes.c_void_p
lib.os_realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
lib.os_free.argtypes = [ctypes.c_void_p]
blocks = {{}}
for i in range(2000):
    p = lib.os_malloc(i % 700 + 1)
    p = lib.os_realloc(p, i % 1900 + 1)
    ctypes.memset(p, i % 256, i % 1900 + 1)
    blocks[i] = p, ctypes.create_string_buffer(2000)
    if i % 3 == 2:
        lib.os_free(blocks.pop(i - 1)[0])
assert all(ctypes.string_at(p, i % 1900 + 1) == bytes([i % 256]) * (i % 1900 + 1) for i, (p, _) in blocks.items())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(shutil.which("ltrace") is None, reason="the course's tracer is not installed")
@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_the_courses_own_tracer_sees_the_first_use_as_two_brk_calls(layout: Layout, tmp_path: Path) -> None:
    run_c(tmp_path, '#include "osmem.h"\nint main(void) { os_free(os_malloc(1000)); return 0; }', layout)
    traced = subprocess.run(
        ["ltrace", "-S", "-n2", tmp_path / "program"], capture_output=True, text=True, check=False, timeout=60
    ).stderr
    inside = re.search(r"^os_malloc\(.*?os_malloc resumed> \) += (0x\w+)$", traced, re.MULTILINE | re.DOTALL)
    assert inside is not None, traced
    brks = re.findall(r"SYS_(\w+)\((\w+)\) += (0x\w+)", inside[0])
    start = int(brks[0][2], 16)
    assert [name for name, *_ in brks] == ["brk", "brk"]
    assert brks[0][1] == "0"
    assert int(brks[1][1], 16) == start + 0x20000
    assert int(inside[1], 16) == start + HEADER_BYTES[layout]


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_a_build_with_options_is_the_same_allocator(layout: Layout, tmp_path: Path) -> None:
    library = build_library(tmp_path, layout, compiler_options=["-O0", "-g3"])
    assert library == tmp_path / "libosmem.so"
    assert (tmp_path / "osmem.h").read_text() == (SOURCES / "osmem" / "osmem.h").read_text()
    assert header_bytes_of(library) == HEADER_BYTES[layout]


def test_a_build_without_a_compiler_copies_the_ready_made_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_library(tmp_path / "x.so", "v2").read_bytes() == built_library("v2").read_bytes()


def test_options_that_the_compiler_refuses_are_said(tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match="the compiler refuses"):
        build_library(tmp_path / "x.so", compiler_options=["--no-such-option"])
    assert list(tmp_path.iterdir()) == []


def test_driver_and_reader_agree_on_the_bytes_between_them(tmp_path: Path) -> None:
    names = ("head", "operation", "answer", "system_call", "heap_block")
    source = '#include <stdio.h>\n#include "driver.h"\nint main(void) { printf("%zu %zu %zu %zu %zu", '
    source += ", ".join(f"sizeof(struct {name})" for name in names) + "); return 0; }"
    program = tmp_path / "sizes"
    subprocess.run(
        ["cc", f"-I{SOURCES / 'osmem'}", "-x", "c", "-", "-o", program], input=source, text=True, check=True
    )
    sizes = [int(word) for word in subprocess.check_output([program]).split()]
    assert sizes == [one.size for one in (HEAD, OPERATION, ANSWER, SYSTEM_CALL, HEAP_BLOCK)]


def test_ctypes_finds_the_header_where_the_layout_says() -> None:
    lib = ctypes.CDLL(str(built_library()))
    lib.os_malloc.restype = ctypes.c_void_p
    lib.os_free.argtypes = [ctypes.c_void_p]
    payload = lib.os_malloc(1001)
    size, status = ctypes.c_size_t.from_address(payload - 24), ctypes.c_int.from_address(payload - 16)
    assert (size.value, status.value) == (1008, 1)
    lib.os_free(payload)
    assert status.value == 0

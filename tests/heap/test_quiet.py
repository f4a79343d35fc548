"""What a spike leaves goes back although the program calls malloc no more, and is kept where it is asked for again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from heapsmith.lab.subjects import resolve_subject
from watched import needs

MIB = 1 << 20

_PROGRAM = """
import json, os, resource, time

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

{work}
"""
_SPIKE = """
kept = [str(number) * 3 for number in range(20_000)]
before = resident()
spike = [{spike} for number in range(200_000)]
peak = resident()
del spike
after = resident()  # nobody has waited, and nobody has allocated
print(json.dumps([before, peak, after]))
"""
_AGAIN = """
def round():
    objects = [{"number": number, "text": str(number) * 10} for number in range(60_000)]
    began = faults()
    del objects
    return began

for _ in range(3): round()
began = faults()
for _ in range(10): round()
print(json.dumps([began, faults()]))
"""


def run(work: str, library: str = "default") -> list[int]:
    found: Any = subprocess.run(
        [sys.executable, "-S", "-c", _PROGRAM.replace("{work}", work)],
        env={**os.environ, "LD_PRELOAD": str(resolve_subject(library).library), "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


@pytest.mark.parametrize("library", ["default", "small", "pow2", "hardened"])
@pytest.mark.parametrize("made", ["str(number) * 10", "[number]", '{"number": number}'])
def test_a_program_that_drops_what_it_made_and_does_nothing_is_small_again(library: str, made: str) -> None:
    before, peak, after = run(_SPIKE.replace("{spike}", made), library)
    assert peak - before > 16 * MIB
    assert after - before < 6 * MIB


def test_what_comes_and_goes_ten_times_a_second_stays_warm() -> None:
    began, ended = run(_AGAIN)
    # Each round has 25 MiB and more: 6,000 pages, if they had gone back.
    assert ended - began < 10 * 600


def test_threads_that_end_their_work_let_go_of_it(tmp_path: Any) -> None:
    needs("g++")
    source = tmp_path / "fall.cc"
    source.write_text(
        """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <initializer_list>
static long resident_kib() {
  long size, pages = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  if (fscanf(file, "%ld %ld", &size, &pages) != 2) abort();
  fclose(file);
  return pages * 4;
}
static pthread_barrier_t filled, counted, emptied, seen;
static void* work(void*) {
  static thread_local char* blocks[100'000];
  for (char*& block : blocks) memset(block = static_cast<char*>(malloc(150)), 1, 150);
  pthread_barrier_wait(&filled);
  pthread_barrier_wait(&counted);
  for (char* block : blocks) free(block);
  pthread_barrier_wait(&emptied);
  pthread_barrier_wait(&seen);
  return nullptr;
}
int main() {
  pthread_t threads[4];
  for (auto* barrier : {&filled, &counted, &emptied, &seen}) pthread_barrier_init(barrier, nullptr, 5);
  const long before = resident_kib();
  for (auto& thread : threads) pthread_create(&thread, nullptr, work, nullptr);
  pthread_barrier_wait(&filled);
  const long peak = resident_kib();
  pthread_barrier_wait(&counted);
  pthread_barrier_wait(&emptied);
  printf("[%ld, %ld, %ld]", before << 10, peak << 10, resident_kib() << 10);
  pthread_barrier_wait(&seen);
}
"""
    )
    program = tmp_path / "fall"
    subprocess.run(["g++", "-std=c++20", "-O1", "-pthread", "-o", program, source], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(resolve_subject("default").library)}
    found = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
    before, peak, after = json.loads(found.stdout)
    assert peak - before > 60 * MIB
    # 4 tables of pointers are the program's own.
    assert after - before < 10 * MIB

// How much memory there is, and how much of it comes back.
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "check.h"

static long resident_kib(void) {
  FILE* file = fopen("/proc/self/statm", "r");
  long whole, resident;
  HOLDS(file && fscanf(file, "%ld %ld", &whole, &resident) == 2, "no /proc/self/statm");
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void ten_gigabytes(void) {
  const size_t bytes = (size_t)10 << 30;
  char* block = malloc(bytes);
  if (!block) unsupported("10 GB cannot be had here (overcommit?)");
  const long before_kib = resident_kib();
  block[0] = 1;
  block[bytes / 2] = 2;
  block[bytes - 1] = 3;
  HOLDS(resident_kib() - before_kib < 16384, "three bytes of 10 GB made %ld KiB resident", resident_kib() - before_kib);
  HOLDS(block[0] == 1 && block[bytes / 2] == 2 && block[bytes - 1] == 3, "10 GB are not there");
  HOLDS(malloc_usable_size(block) >= bytes, "usable size of 10 GB");
  char* grown = realloc(block, bytes + bytes / 2);
  if (grown) {
    HOLDS(grown[0] == 1 && grown[bytes / 2] == 2 && grown[bytes - 1] == 3, "realloc of 10 GB lost contents");
    HOLDS(resident_kib() - before_kib < 16384, "realloc of 10 GB touched it");
    block = grown;
  }
  free(block);
}

static void calloc_is_lazy(void) {
  const long before_kib = resident_kib();
  void* block = calloc(1, (size_t)512 << 20);
  if (!block) unsupported("512 MiB cannot be had here");
  HOLDS(resident_kib() - before_kib < 8192, "calloc of 512 MiB touched %ld KiB", resident_kib() - before_kib);
  free(block);
}

static void large_blocks_return(void) {
  const long before_kib = resident_kib();
  for (unsigned i = 0; i < 20; i++) {
    char* block = malloc((size_t)200 << 20);
    if (!block) unsupported("200 MiB cannot be had here");
    memset(block, 1, i == 0 ? (size_t)200 << 20 : 4096);
    free(block);
  }
  (void)before_kib;
  HOLDS(resident_kib() - before_kib < 260 * 1024, "a freed block of 200 MiB is kept more than once");
}

static void freed_memory_is_used_again(void) {
  enum { count = 20000 };
  static void* blocks[count];
  long after_first_kib = 0;
  for (unsigned round = 0; round < 30; round++) {
    for (unsigned i = 0; i < count; i++) memset(blocks[i] = malloc(200 + round * 8 % 64), 1, 200);
    for (unsigned i = 0; i < count; i++) free(blocks[(i * 7919u) % count]);
    if (round == 7) after_first_kib = resident_kib();
  }
  HOLDS(resident_kib() < after_first_kib + 16384, "30 equal rounds grew from %ld to %ld KiB", after_first_kib,
        resident_kib());
}

static void sizes_change(void) {
  // Phases of different sizes, one after another: memory of one must serve the next.
  enum { bytes_a_phase = 40 << 20 };
  static void* blocks[bytes_a_phase / 32];
  for (size_t bytes = 32; bytes <= 32768; bytes *= 2) {
    const size_t count = bytes_a_phase / bytes;
    for (size_t i = 0; i < count; i++) memset(blocks[i] = malloc(bytes), 1, bytes);
    for (size_t i = 0; i < count; i++) free(blocks[i]);
  }
  HOLDS(resident_kib() < 110 * 1024, "eleven phases of 40 MiB each left %ld KiB", resident_kib());
}

static void mixed_fragmentation(void) {
  enum { slots = 40000 };
  static void* blocks[slots];
  uint64_t state = 9;
  size_t live_bytes = 0;
  static unsigned sizes[slots];
  for (unsigned i = 0; i < 1000000; i++) {
    const unsigned at = next_random(&state) % slots;
    free(blocks[at]);
    live_bytes -= sizes[at];
    sizes[at] = 16 + (unsigned)(next_random(&state) % 1000);
    live_bytes += sizes[at];
    memset(blocks[at] = malloc(sizes[at]), 1, 16);
  }
  const long resident = resident_kib();
  HOLDS((size_t)resident * 1024 < live_bytes * 2 + (16u << 20), "%zu KiB live need %ld KiB resident", live_bytes / 1024,
        resident);
}

const check memory_checks[] = {
    {"ten-gigabytes", "a block of 10 GB takes memory only where it is written, also when it grows", ten_gigabytes,
     false},
    {"calloc-lazy", "calloc does not touch fresh pages", calloc_is_lazy, false},
    {"large-blocks", "a freed large block is used again, not kept beside new ones", large_blocks_return, false},
    {"reuse", "equal rounds of blocks need no more memory than a few of them", freed_memory_is_used_again, false},
    {"phases", "memory of one size serves another", sizes_change, false},
    {"fragmentation", "random replacement at most doubles live bytes", mixed_fragmentation, false},
    {0}};

// Large blocks: buffers that come and go, grow, and are written in full.
#include <string.h>

#include "workload.h"

static void buffers_of(size_t bytes, unsigned rounds) {
  for (unsigned i = 0; i < rounds; i++) {
    char* a = must(malloc(bytes));
    memset(a, 1, bytes);
    char* b = must(malloc(bytes));
    memcpy(b, a, bytes);
    free(a);
    free(b);
  }
}
// Temporaries as array programs make them.
static void temporaries(unsigned scale) {
  buffers_of(800000, 500 * scale);
  buffers_of(8000000, 40 * scale);
  buffers_of(64000000, 3 * scale);
}

// Random large sizes, a few alive at a time; the first byte of each page is written.
static void large(unsigned scale) {
  enum { alive = 20 };
  static char* blocks[alive];
  uint64_t state = 5;
  for (unsigned i = 0; i < 2000 * scale; i++) {
    const uint64_t random = next_random(&state);
    const unsigned slot = random % alive;
    const size_t bytes = 300000 + (random >> 20) % 5000000;
    free(blocks[slot]);
    blocks[slot] = must(malloc(bytes));
    for (size_t at = 0; at < bytes; at += 4096) blocks[slot][at] = (char)i;
  }
  for (unsigned i = 0; i < alive; i++) {
    free(blocks[i]);
    blocks[i] = NULL;
  }
}

// Arrays that grow by an eighth until they are large, several at once.
static void growth(unsigned scale) {
  enum { arrays = 8 };
  for (unsigned round = 0; round < 6 * scale; round++) {
    char* data[arrays] = {0};
    for (size_t bytes = 64; bytes < 16000000; bytes += bytes / 8 + 16)
      for (unsigned i = 0; i < arrays; i++) {
        data[i] = must(realloc(data[i], bytes));
        data[i][bytes - 1] = (char)i;
      }
    for (unsigned i = 0; i < arrays; i++) free(data[i]);
  }
}

const workload large_workloads[] = {
    {"temporaries", "pairs of buffers of 0.8, 8 and 64 MB, written in full", temporaries, NULL},
    {"large", "random blocks of 0.3 to 5.3 MB, twenty alive", large, NULL},
    {"growth", "eight arrays that grow by realloc to 16 MB", growth, NULL},
    {0}};

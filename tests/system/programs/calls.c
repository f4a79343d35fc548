// Every entry of the C library's malloc family, by name of the scenario; tells what it did.
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <wchar.h>

#include "tally.h"

static uint64_t state = 88172645463325252u;

static uint64_t draw(uint64_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % below;
}

static void give(void* block, size_t bytes) { free(gives(block, bytes)); }

static void* change(void* block, size_t old_bytes, size_t bytes) {
  const size_t old_usable_bytes = malloc_usable_size(block);
  void* moved = realloc(block, bytes);
  if (moved != NULL) return became(moved, old_usable_bytes, old_bytes, bytes);
  if (bytes != 0) {
    ++tally.failures;
  } else {
    ++tally.frees;
    tally_change(old_usable_bytes, -1, old_bytes);
  }
  return moved;
}

static void simple(void) {
  static void* blocks[3000];
  static size_t sizes[3000];
  for (int number = 0; number < 3000; ++number) {
    sizes[number] = draw(number % 10 == 0 ? 200000 : 1500);
    blocks[number] = took(number % 3 == 0 ? calloc(1, sizes[number]) : malloc(sizes[number]), sizes[number]);
    if (number % 2 == 1) {
      const int victim = (int)draw((uint64_t)number);
      give(blocks[victim], sizes[victim]);
      blocks[victim] = NULL;
    }
  }
}

static void empty_blocks(void) {
  for (int number = 0; number < 100; ++number) {
    void* block = took(malloc(0), 0);
    if (number % 2) give(block, 0);
  }
  took(calloc(0, 8), 0);
  took(realloc(NULL, 0), 0);
  free(NULL);
}

static void reallocations(void) {
  void* block = took(realloc(NULL, 10), 10);
  block = change(block, 10, 20);     // in place
  block = change(block, 20, 20000);  // moved
  took(malloc(64), 64);
  block = change(block, 20000, 30);   // shrunk
  block = change(block, 30, 300000);  // into a mapping
  block = change(block, 300000, 3000000);
  block = change(block, 3000000, 200000);
  change(block, 200000, SIZE_MAX / 2);  // fails, the block stays
  block = change(block, 200000, 0);     // freed
  uint64_t* numbers = took(reallocarray(NULL, 100, 8), 800);
  if (reallocarray(numbers, SIZE_MAX / 2, 16) == NULL) ++tally.failures;
  size_t bytes = 800;
  for (int turn = 0; turn < 2000; ++turn) {
    const size_t wanted = 1 + draw(turn % 50 == 0 ? 500000 : 3000);
    numbers = change(numbers, bytes, wanted);
    bytes = wanted;
  }
}

static void aligned(void) {
  for (size_t alignment = 8; alignment <= 1 << 21; alignment *= 2) {
    for (size_t bytes = 1; bytes < 300000; bytes = bytes * 3 + 1) {
      void* block = NULL;
      if (posix_memalign(&block, alignment, bytes) != 0) block = NULL;
      took(block, bytes);
      took(aligned_alloc(alignment, bytes), bytes);
      give(took(memalign(alignment, bytes), bytes), bytes);
    }
  }
  took(valloc(100), 100);
  took(pvalloc(100), 4096);
  void* untouched = &tally;
  errno = 0;
  if (posix_memalign(&untouched, 3, 100) != EINVAL || untouched != &tally || errno != 0) _exit(3);
  if (posix_memalign(&untouched, 64, SIZE_MAX / 2) != ENOMEM || untouched != &tally) _exit(4);
  ++tally.failures;
}

static void texts(void) {
  char* text = took(strdup("a text of some length"), 22);
  took(strndup(text, 5), 6);
  took(wcsdup(L"wide"), 20);
  took(realpath("/", NULL), 2);
}

static void large(void) {
  for (size_t bytes = 100000; bytes < (size_t)1 << 33; bytes = bytes * 2 + 12345) {
    void* block = took(malloc(bytes), bytes);
    if (bytes % 2) give(block, bytes);
  }
}

static void failures(void) {
  void* volatile block;
  errno = 0;
  block = malloc(SIZE_MAX - 100);
  took(block, 0);
  if (errno != ENOMEM) _exit(3);
  errno = 0;
  block = calloc(SIZE_MAX / 2, 4);
  took(block, 0);
  if (errno != ENOMEM) _exit(4);
  errno = 0;
  block = reallocarray(NULL, SIZE_MAX / 2, 4);
  took(block, 0);
  if (errno != ENOMEM) _exit(5);
  block = pvalloc(SIZE_MAX - 5);
  took(block, 0);
  errno = 77;
  give(took(malloc(10), 10), 10);
  give(took(malloc(1000000), 1000000), 1000000);
  if (errno != 77) _exit(6);
}

// The allocator has not even been asked for its first page.
static void untouched(void) {
  if (mallinfo2().arena != 0) _exit(7);
}

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "nothing";
  static const struct {
    const char* name;
    void (*act)(void);
  } scenarios[] = {{"simple", simple},
                   {"empty_blocks", empty_blocks},
                   {"reallocations", reallocations},
                   {"aligned", aligned},
                   {"texts", texts},
                   {"large", large},
                   {"failures", failures},
                   {"untouched", untouched}};
  for (size_t number = 0; number < sizeof scenarios / sizeof *scenarios; ++number) {
    if (strcmp(what, scenarios[number].name) == 0) scenarios[number].act();
  }
  tell_tally();
  return 0;
}

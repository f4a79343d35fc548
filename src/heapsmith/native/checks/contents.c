// What is in blocks: kept by realloc, zero after calloc.
#include "check.h"

static void realloc_keeps(void) {
  uint64_t state = 1;
  for (unsigned i = 0; i < 3000; i++) {
    const size_t before = 1 + next_random(&state) % (i % 10 ? 3000 : 400000);
    const size_t after = 1 + next_random(&state) % (i % 10 ? 3000 : 400000);
    void* block = malloc(before);
    write_pattern(block, before, i);
    block = realloc(block, after);
    HOLDS(block, "realloc(%zu) gave nothing", after);
    HOLDS(has_pattern(block, before < after ? before : after, i), "realloc %zu -> %zu lost contents", before, after);
    write_pattern(block, after, i + 1);
    HOLDS(malloc_usable_size(block) >= after, "realloc %zu -> %zu is too small", before, after);
    free(block);
  }
}

static void realloc_grows(void) {
  // Beyond the largest class and beyond every threshold: the relative lost blocks over 32 KiB here.
  size_t bytes = 10;
  char* block = malloc(bytes);
  write_pattern(block, bytes, 3);
  while (bytes < 60000000) {
    const size_t more = bytes + bytes / 3 + 7;
    block = realloc(block, more);
    HOLDS(block && has_pattern(block, bytes, 3), "growing %zu -> %zu lost contents", bytes, more);
    bytes = more;
    write_pattern(block, bytes, 3);
  }
  while (bytes > 100) {
    const size_t less = bytes / 2;
    block = realloc(block, less);
    HOLDS(block && has_pattern(block, less, 3), "shrinking %zu -> %zu lost contents", bytes, less);
    bytes = less;
  }
  free(block);
}

static void realloc_corners(void) {
  char* block = realloc(NULL, 50);
  HOLDS(block, "realloc(NULL, 50) gave nothing");
  strcpy(block, "kept");
  char* same = realloc(block, 50);
  HOLDS(same && strcmp(same, "kept") == 0, "realloc to the same size lost contents");
  // To nothing: NULL (freed) or a block that can be freed.
  char* none = realloc(same, 0);
  free(none);
}

static void realloc_in_place_neighbours(void) {
  static char* all[500];
  for (unsigned i = 0; i < 500; i++) {
    all[i] = malloc(100);
    write_pattern(all[i], 100, i);
  }
  for (unsigned i = 0; i < 500; i += 2) {
    all[i] = realloc(all[i], 128 + i);
    memset(all[i] + 100, 0xEE, 28 + i);
  }
  for (unsigned i = 0; i < 500; i++) {
    HOLDS(has_pattern(all[i], 100, i), "growing a neighbour overwrote block %u", i);
    free(all[i]);
  }
}

static void calloc_zeroes(void) {
  for (unsigned round = 0; round < 3; round++)
    for (size_t bytes = 1; bytes < 3000000; bytes += bytes / 3 + 1) {
      unsigned char* dirty = malloc(bytes);
      memset(dirty, 0xAA, bytes);
      free(dirty);
      unsigned char* block = calloc(1, bytes);
      HOLDS(block, "calloc(1, %zu) gave nothing", bytes);
      for (size_t i = 0; i < bytes; i++) HOLDS(block[i] == 0, "byte %zu of calloc(1, %zu) is %u", i, bytes, block[i]);
      memset(block, 0x55, bytes);
      free(block);
    }
}

static void contents_last(void) {
  enum { slots = 2000 };
  static void* blocks[slots];
  static size_t sizes[slots];
  uint64_t state = 77;
  for (unsigned i = 0; i < 200000; i++) {
    const unsigned slot = next_random(&state) % slots;
    if (blocks[slot])
      HOLDS(has_pattern(blocks[slot], sizes[slot] < 100 ? sizes[slot] : 100, slot), "block %u changed", slot);
    free(blocks[slot]);
    sizes[slot] = next_random(&state) % (i % 100 ? 600 : 100000);
    blocks[slot] = malloc(sizes[slot]);
    write_pattern(blocks[slot], sizes[slot] < 100 ? sizes[slot] : 100, slot);
  }
  for (unsigned slot = 0; slot < slots; slot++) free(blocks[slot]);
}

const check content_checks[] = {
    {"realloc", "realloc keeps contents up to the smaller size", realloc_keeps, false},
    {"realloc-growth", "a block can grow to 60 MB and shrink again, contents kept", realloc_grows, false},
    {"realloc-corners", "realloc(NULL, n) allocates; the same size and size 0 are legal", realloc_corners, false},
    {"realloc-neighbours", "growing a block never touches its neighbours", realloc_in_place_neighbours, false},
    {"calloc", "calloc gives zeros, also where dirty blocks were freed", calloc_zeroes, false},
    {"contents", "blocks keep their contents while others come and go", contents_last, false},
    {0}};

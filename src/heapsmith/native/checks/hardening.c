// What a hardened heap must catch. Each of these programs is wrong; on an allocator that looks, it ends.
#include "check.h"

static char* block_of(size_t bytes) {
  char* block = opaque(malloc(bytes));
  HOLDS(block, "malloc gave nothing");
  memset(block, 'x', bytes);
  return block;
}
// What a program does next: enough that delayed looks take place.
static void go_on(void) {
  for (unsigned i = 0; i < 20000; i++) free(block_of(16 + i % 500));
}

#define DOUBLE_FREE(name, bytes)   \
  static void name(void) {         \
    char* block = block_of(bytes); \
    free(block);                   \
    free(opaque(block));           \
    go_on();                       \
  }
DOUBLE_FREE(double_free_small, 40)
DOUBLE_FREE(double_free_medium, 5000)
DOUBLE_FREE(double_free_large, 1000000)

static void double_free_between(void) {
  char* a = block_of(40);
  char* b = block_of(40);
  free(a);
  free(b);
  free(opaque(a));
  go_on();
}
static void double_free_later(void) {
  char* a = block_of(100);
  free(a);
  for (unsigned i = 0; i < 30; i++) free(block_of(100));
  free(opaque(a));
  go_on();
}

#define INTERIOR(name, bytes, offset) \
  static void name(void) {            \
    char* block = block_of(bytes);    \
    free(opaque(block + (offset)));   \
    go_on();                          \
  }
INTERIOR(interior_free_16, 200, 16)
INTERIOR(interior_free_1, 200, 1)
INTERIOR(interior_free_large, 1000000, 4096)
INTERIOR(interior_free_large_16, 1000000, 16)

static char global_block[256] __attribute__((aligned(16)));
static void free_global(void) {
  free(opaque(global_block + 64));
  go_on();
}
static void free_stack(void) {
  char local[256] __attribute__((aligned(16)));
  memset(local, 'x', sizeof local);
  free(opaque(local + 64));
  go_on();
}
static void free_wild(void) {
  free(opaque((void*)0x123456789a0));
  go_on();
}

#define OVERFLOW(name, bytes)              \
  static void name(void) {                 \
    char* block = block_of(bytes);         \
    ((char*)opaque(block))[bytes] ^= 0x41; \
    free(block);                           \
    go_on();                               \
  }
OVERFLOW(overflow_24, 24)
OVERFLOW(overflow_64, 64)
OVERFLOW(overflow_100, 100)
OVERFLOW(overflow_4096, 4096)
OVERFLOW(overflow_100000, 100000)
OVERFLOW(overflow_1000000, 1000000)

#define UNDERFLOW(name, bytes)          \
  static void name(void) {              \
    char* block = block_of(bytes);      \
    ((char*)opaque(block))[-1] ^= 0x41; \
    free(block);                        \
    go_on();                            \
  }
UNDERFLOW(underflow_24, 24)
UNDERFLOW(underflow_1000, 1000)
UNDERFLOW(underflow_1000000, 1000000)

#define WRITE_AFTER_FREE(name, bytes, offset)  \
  static void name(void) {                     \
    char* block = block_of(bytes);             \
    free(block);                               \
    ((char*)opaque(block))[offset] = 0x41;     \
    for (unsigned i = 0; i < 40; i++) go_on(); \
  }
WRITE_AFTER_FREE(write_after_free_first, 64, 0)
WRITE_AFTER_FREE(write_after_free_middle, 300, 150)
WRITE_AFTER_FREE(write_after_free_large, 1000000, 5000)

static void immediate_reuse(void) {
  for (unsigned round = 0; round < 5; round++) {
    char* block = block_of(100);
    free(block);
    char* next = block_of(100);
    if (opaque(next) == opaque(block)) return;  // returned: not caught
  }
  abort();
}
static void realloc_of_freed(void) {
  char* block = block_of(50);
  free(block);
  char* moved = realloc(opaque(block), 500);
  free(moved);
  go_on();
}

const check hardening_checks[] = {
    {"double-free", "a small block freed twice is caught", double_free_small, true},
    {"double-free-medium", "a block of 5000 bytes freed twice is caught", double_free_medium, true},
    {"double-free-large", "a block of 1 MB freed twice is caught", double_free_large, true},
    {"double-free-between", "a block freed twice with another between is caught", double_free_between, true},
    {"double-free-later", "a block freed twice with others between is caught", double_free_later, true},
    {"interior-free", "freeing the inside of a block is caught", interior_free_16, true},
    {"interior-free-odd", "freeing an odd address is caught", interior_free_1, true},
    {"interior-free-page", "freeing a page inside of a large block is caught", interior_free_large, true},
    {"interior-free-large", "freeing the inside of a large block is caught", interior_free_large_16, true},
    {"free-global", "freeing a global is caught", free_global, true},
    {"free-stack", "freeing a local variable is caught", free_stack, true},
    {"free-wild", "freeing a wild pointer is caught", free_wild, true},
    {"overflow-24", "a byte behind 24 is caught", overflow_24, true},
    {"overflow-64", "a byte behind 64 is caught", overflow_64, true},
    {"overflow-100", "a byte behind 100 is caught", overflow_100, true},
    {"overflow-4096", "a byte behind 4096 is caught", overflow_4096, true},
    {"overflow-100000", "a byte behind 100,000 is caught", overflow_100000, true},
    {"overflow-large", "a byte behind 1 MB is caught", overflow_1000000, true},
    {"underflow-24", "a byte before 24 is caught", underflow_24, true},
    {"underflow-1000", "a byte before 1000 is caught", underflow_1000, true},
    {"underflow-large", "a byte before 1 MB is caught", underflow_1000000, true},
    {"write-after-free", "a write to the first byte of a freed block is caught", write_after_free_first, true},
    {"write-after-free-middle", "a write into the middle of a freed block is caught", write_after_free_middle, true},
    {"write-after-free-large", "a write into a large freed block is caught", write_after_free_large, true},
    {"immediate-reuse", "a freed block is not handed out again at once", immediate_reuse, true},
    {"realloc-freed", "realloc of a freed block is caught", realloc_of_freed, true},
    {0}};

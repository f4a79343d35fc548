// More of what a hardened heap must catch: blocks given back by another way than they were made, in another size, from
// another thread, late; writes and reads beyond, before and after.
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>

#include "check.h"

static char* block_of(size_t bytes) {
  char* block = opaque(malloc(bytes));
  HOLDS(block, "malloc gave nothing");
  if (bytes) memset(block, 'x', bytes);
  return block;
}
static void go_on(unsigned rounds) {
  for (unsigned i = 0; i < rounds * 20000; i++) free(block_of(16 + i % 500));
}
static void* symbol(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  if (!found) unsupported("there is no %s in this process", name);
  return found;
}

// --- ways
typedef void* (*make)(size_t);
typedef void* (*make_aligned)(size_t, size_t);
typedef void (*unmake)(void*);
typedef void (*unmake_sized)(void*, size_t);

#define MISMATCH(name, makes, unmakes)       \
  static void name(void) {                   \
    make made = (make)symbol(makes);         \
    unmake unmade = (unmake)symbol(unmakes); \
    char* block = opaque(made(100));         \
    memset(block, 1, 100);                   \
    unmade(block);                           \
    go_on(1);                                \
  }
MISMATCH(delete_of_malloc, "malloc", "_ZdlPv")
MISMATCH(delete_array_of_malloc, "malloc", "_ZdaPv")
MISMATCH(free_of_new, "_Znwm", "free")
MISMATCH(delete_array_of_new, "_Znwm", "_ZdaPv")
MISMATCH(free_of_new_array, "_Znam", "free")
MISMATCH(delete_of_new_array, "_Znam", "_ZdlPv")

static void realloc_of_new(void) {
  char* block = ((make)symbol("_Znwm"))(100);
  free(realloc(opaque(block), 200));
  go_on(1);
}
static void plain_delete_of_aligned(void) {
  char* block = ((make_aligned)symbol("_ZnwmSt11align_val_t"))(100, 64);
  ((unmake)symbol("_ZdlPv"))(opaque(block));
  go_on(1);
}
static void aligned_delete_of_plain(void) {
  char* block = ((make)symbol("_Znwm"))(100);
  ((unmake_sized)symbol("_ZdlPvSt11align_val_t"))(opaque(block), 64);
  go_on(1);
}
static void sized_delete_too_small(void) {
  char* block = ((make)symbol("_Znwm"))(100);
  ((unmake_sized)symbol("_ZdlPvm"))(opaque(block), 60);
  go_on(1);
}
static void sized_delete_too_large(void) {
  char* block = ((make)symbol("_Znwm"))(100);
  ((unmake_sized)symbol("_ZdlPvm"))(opaque(block), 300);
  go_on(1);
}
static void double_delete(void) {
  char* block = ((make)symbol("_Znwm"))(100);
  unmake unmade = (unmake)symbol("_ZdlPv");
  unmade(block);
  unmade(opaque(block));
  go_on(1);
}

// --- double frees
static void double_free_zeroed(void) {
  char* block = calloc(10, 10);
  free(block);
  free(opaque(block));
  go_on(1);
}
static void double_free_empty(void) {
  char* block = block_of(0);
  free(block);
  free(opaque(block));
  go_on(1);
}
static void double_free_aligned(void) {
  void* block = NULL;
  HOLDS(posix_memalign(&block, 256, 100) == 0, "no aligned block");
  free(block);
  free(opaque(block));
  go_on(1);
}
static void free_after_realloc(void) {
  char* block = block_of(100);
  char* moved = realloc(opaque(block), 50000);
  if (moved == block) unsupported("it did not move");
  free(opaque(block));
  go_on(1);
}
static void* free_it(void* block) {
  free(opaque(block));
  return NULL;
}
static void double_free_elsewhere(void) {
  char* block = block_of(100);
  free(block);
  pthread_t thread;
  HOLDS(pthread_create(&thread, NULL, free_it, block) == 0, "no thread");
  pthread_join(thread, NULL);
  go_on(1);
}
static void double_free_by_threads(void) {
  char* block = block_of(100);
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    HOLDS(pthread_create(&threads[i], NULL, free_it, block) == 0, "no thread");
    pthread_join(threads[i], NULL);
  }
  go_on(1);
}
static void double_free_huge(void) {
  char* block = block_of(30 << 20);
  free(block);
  free(opaque(block));
  go_on(1);
}
static void double_free_at_page(void) {
  char* block = block_of(4096);
  free(block);
  free(opaque(block));
  go_on(1);
}

// --- pointers that are no blocks
#define NOT_A_BLOCK(name, ...) \
  static void name(void) {     \
    __VA_ARGS__;               \
    go_on(1);                  \
  }
NOT_A_BLOCK(free_before, free(opaque(block_of(200) - 16)))
NOT_A_BLOCK(free_last_byte, free(opaque(block_of(200) + 199)))
NOT_A_BLOCK(free_eight_in, free(opaque(block_of(200) + 8)))
NOT_A_BLOCK(free_middle_of_large, free(opaque(block_of(1000000) + 500000)))
NOT_A_BLOCK(free_function, free(opaque((void*)&go_on)))
NOT_A_BLOCK(free_small_number, free(opaque((void*)64)))
NOT_A_BLOCK(free_text, free(opaque((void*)"a text that nobody made")))
NOT_A_BLOCK(free_mapping, char* map = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            memset(map, 0, 65536); free(opaque(map + 64)))
NOT_A_BLOCK(realloc_interior, void* moved = realloc(opaque(block_of(300) + 32), 1000); free(moved))
NOT_A_BLOCK(realloc_stack, char local[128] __attribute__((aligned(16))); memset(local, 0, 128);
            void* moved = realloc(opaque(local + 32), 1000); free(moved))
static volatile size_t told;
NOT_A_BLOCK(size_of_freed, char* block = block_of(100); free(block); told = malloc_usable_size(opaque(block)))
NOT_A_BLOCK(size_of_interior, told = malloc_usable_size(opaque(block_of(300) + 32)))

// --- beyond and before
#define WRITE_AT(name, make_it, offset, count, how)  \
  static void name(void) {                           \
    char* block = (make_it);                         \
    char* at = (char*)opaque(block) + (offset);      \
    for (int i = 0; i < (count); i++) at[i] ^= 0x41; \
    how;                                             \
    go_on(1);                                        \
  }
WRITE_AT(overflow_word, block_of(40), 40, 8, free(block))
WRITE_AT(overflow_line, block_of(200), 200, 64, free(block))
WRITE_AT(overflow_odd, block_of(33), 33, 1, free(block))
WRITE_AT(overflow_empty, block_of(0), 0, 1, free(block))
WRITE_AT(overflow_zeroed, calloc(5, 20), 100, 1, free(block))
WRITE_AT(overflow_aligned, aligned_alloc(128, 256), 256, 1, free(block))
WRITE_AT(overflow_found_by_realloc, block_of(100), 100, 1, free(realloc(block, 300)))
WRITE_AT(underflow_word, block_of(40), -8, 8, free(block))
WRITE_AT(underflow_line, block_of(200), -64, 64, free(block))
WRITE_AT(underflow_aligned, aligned_alloc(128, 256), -1, 1, free(block))
WRITE_AT(overflow_far_behind_large, block_of(1000000), 1000000 + 8192, 1, free(block))
WRITE_AT(underflow_page_of_large, block_of(1000000), -4096, 1, free(block))

static void read_behind_large(void) {
  char* block = block_of(1 << 20);
  volatile char sum = 0;
  for (int i = 0; i < 3 * 4096; i += 4096) sum = (char)(sum + ((volatile char*)opaque(block))[(1 << 20) + i]);
  free(block);
}

// --- after the end
static void read_after_free_large(void) {
  char* block = block_of(1 << 20);
  free(block);
  volatile char seen = ((volatile char*)opaque(block))[5000];
  (void)seen;
}
static void read_after_free_small(void) {
  char* block = block_of(200);
  free(block);
  if (((volatile char*)opaque(block))[100] != 'x') abort();  // what it held is gone: nothing to be read
}
#define WRITE_LATE(name, bytes, offset, count)                                     \
  static void name(void) {                                                         \
    char* block = block_of(bytes);                                                 \
    free(block);                                                                   \
    for (int i = 0; i < (count); i++) ((char*)opaque(block))[(offset) + i] = 0x41; \
    go_on(30);                                                                     \
  }
WRITE_LATE(write_after_free_last, 100, 99, 1)
WRITE_LATE(write_after_free_word, 100, 8, 8)
WRITE_LATE(write_after_free_all, 300, 0, 300)
WRITE_LATE(write_after_free_page, 5000, 3000, 1)
WRITE_LATE(write_after_free_huge, 30 << 20, 12345678, 1)

static void write_after_realloc(void) {
  char* block = block_of(100);
  char* moved = realloc(opaque(block), 50000);
  if (moved == block) unsupported("it did not move");
  ((char*)opaque(block))[50] = 0x41;
  go_on(30);
  free(moved);
}
static void link_overwritten(void) {
  char* a = block_of(64);
  char* b = block_of(64);
  free(a);
  free(b);
  static char target[256] __attribute__((aligned(16)));
  *(char**)opaque(b) = target + 64;
  for (int i = 0; i < 4000; i++) {
    char* given = block_of(64);
    if (given == target + 64) return;  // memory of the attacker's choice was handed out
  }
  go_on(30);
}

const check mistake_checks[] = {
    {"delete-of-malloc", "delete of a block of malloc is caught", delete_of_malloc, true},
    {"delete-array-of-malloc", "delete[] of a block of malloc is caught", delete_array_of_malloc, true},
    {"free-of-new", "free of a block of new is caught", free_of_new, true},
    {"delete-array-of-new", "delete[] of a block of new is caught", delete_array_of_new, true},
    {"free-of-new-array", "free of a block of new[] is caught", free_of_new_array, true},
    {"delete-of-new-array", "delete of a block of new[] is caught", delete_of_new_array, true},
    {"realloc-of-new", "realloc of a block of new is caught", realloc_of_new, true},
    {"plain-delete-of-aligned", "delete without the alignment is caught", plain_delete_of_aligned, true},
    {"aligned-delete-of-plain", "delete with an alignment that was not asked for is caught", aligned_delete_of_plain,
     true},
    {"sized-delete-small", "delete with too small a size is caught", sized_delete_too_small, true},
    {"sized-delete-large", "delete with too large a size is caught", sized_delete_too_large, true},
    {"double-delete", "a block deleted twice is caught", double_delete, true},
    {"double-free-zeroed", "a block of calloc freed twice is caught", double_free_zeroed, true},
    {"double-free-empty", "a block of no bytes freed twice is caught", double_free_empty, true},
    {"double-free-aligned", "an aligned block freed twice is caught", double_free_aligned, true},
    {"free-after-realloc", "freeing what realloc has moved away is caught", free_after_realloc, true},
    {"double-free-elsewhere", "a block freed again by another thread is caught", double_free_elsewhere, true},
    {"double-free-by-threads", "a block freed by two threads is caught", double_free_by_threads, true},
    {"double-free-huge", "a block of 30 MiB freed twice is caught", double_free_huge, true},
    {"double-free-page", "a block of a page freed twice is caught", double_free_at_page, true},
    {"free-before", "freeing what lies before a block is caught", free_before, true},
    {"free-last-byte", "freeing the last byte of a block is caught", free_last_byte, true},
    {"free-eight-in", "freeing the second word of a block is caught", free_eight_in, true},
    {"free-middle-large", "freeing the middle of a large block is caught", free_middle_of_large, true},
    {"free-function", "freeing a function is caught", free_function, true},
    {"free-small-number", "freeing a small number is caught", free_small_number, true},
    {"free-text", "freeing a text of the program is caught", free_text, true},
    {"free-mapping", "freeing a mapping of the program is caught", free_mapping, true},
    {"realloc-interior", "realloc of the inside of a block is caught", realloc_interior, true},
    {"realloc-stack", "realloc of a local variable is caught", realloc_stack, true},
    {"size-of-freed", "asking for the size of a freed block is caught", size_of_freed, true},
    {"size-of-interior", "asking for the size of the inside of a block is caught", size_of_interior, true},
    {"overflow-word", "a word behind a block is caught", overflow_word, true},
    {"overflow-line", "64 bytes behind a block are caught", overflow_line, true},
    {"overflow-odd", "a byte behind 33 is caught", overflow_odd, true},
    {"overflow-empty", "a byte in a block of none is caught", overflow_empty, true},
    {"overflow-zeroed", "a byte behind a block of calloc is caught", overflow_zeroed, true},
    {"overflow-aligned", "a byte behind an aligned block is caught", overflow_aligned, true},
    {"overflow-realloc", "realloc finds what was written behind a block", overflow_found_by_realloc, true},
    {"underflow-word", "a word before a block is caught", underflow_word, true},
    {"underflow-line", "64 bytes before a block are caught", underflow_line, true},
    {"underflow-aligned", "a byte before an aligned block is caught", underflow_aligned, true},
    {"overflow-far-large", "a byte two pages behind a large block is caught", overflow_far_behind_large, true},
    {"underflow-page-large", "a byte a page before a large block is caught", underflow_page_of_large, true},
    {"read-behind-large", "reading behind a large block is caught", read_behind_large, true},
    {"read-after-free-large", "reading a large freed block is caught", read_after_free_large, true},
    {"read-after-free", "what a freed block held cannot be read", read_after_free_small, true},
    {"write-after-free-last", "a write to the last byte of a freed block is caught", write_after_free_last, true},
    {"write-after-free-word", "a write to the second word of a freed block is caught", write_after_free_word, true},
    {"write-after-free-all", "writing all of a freed block is caught", write_after_free_all, true},
    {"write-after-free-page", "a write into a freed block of 5000 bytes is caught", write_after_free_page, true},
    {"write-after-free-huge", "a write into a freed block of 30 MiB is caught", write_after_free_huge, true},
    {"write-after-realloc", "a write to what realloc has moved away is caught", write_after_realloc, true},
    {"link-overwritten", "a free list that was written to leads nowhere else", link_overwritten, true},
    {0}};

// Where blocks lie and how large they are.
#include "check.h"

enum { many = 3000 };
static void* blocks[many];
static size_t sizes[many];

static size_t size_number(unsigned i) { return i < 2100 ? i : (size_t)1 << (i % 22) | (i % 5); }

static void aligned_for_everything(void) {
  for (unsigned i = 0; i < many; i++) {
    const size_t bytes = size_number(i);
    char* block = malloc(bytes);
    HOLDS(block, "malloc(%zu) gave nothing", bytes);
    // C: aligned for every object that fits into the block.
    const size_t least = bytes >= 16 ? 16 : bytes >= 8 ? 8 : bytes >= 4 ? 4 : 1;
    HOLDS((uintptr_t)block % least == 0, "malloc(%zu) gave %p, no multiple of %zu", bytes, (void*)block, least);
    free(block);
  }
}

static void never_overlap(void) {
  for (unsigned i = 0; i < many; i++) {
    sizes[i] = size_number(i) % 70000;
    blocks[i] = malloc(sizes[i]);
    HOLDS(blocks[i], "malloc(%zu) gave nothing", sizes[i]);
    write_pattern(blocks[i], sizes[i], i);
  }
  for (unsigned i = 0; i < many; i++)
    HOLDS(has_pattern(blocks[i], sizes[i], i), "block %u of %zu bytes was overwritten by another", i, sizes[i]);
  for (unsigned i = 0; i < many; i++) free(blocks[i]);
}

static void usable_is_usable(void) {
  for (unsigned i = 0; i < many; i++) {
    const size_t bytes = size_number(i) % 70000;
    blocks[i] = malloc(bytes);
    sizes[i] = malloc_usable_size(blocks[i]);
    HOLDS(sizes[i] >= bytes, "malloc_usable_size says %zu of a block of %zu", sizes[i], bytes);
    write_pattern(blocks[i], sizes[i], i);
  }
  for (unsigned i = 0; i < many; i++)
    HOLDS(has_pattern(blocks[i], sizes[i], i), "all %zu usable bytes of block %u are not its own", sizes[i], i);
  for (unsigned i = 0; i < many; i++) free(blocks[i]);
  HOLDS(malloc_usable_size(NULL) == 0, "malloc_usable_size(NULL) is not 0");
}

static void usable_of_aligned(void) {
  for (unsigned i = 0; i < 400; i++) {
    void* block = NULL;
    const size_t alignment = (size_t)16 << i % 10;
    HOLDS(posix_memalign(&block, alignment, 40 + i) == 0, "posix_memalign(%zu, %u) failed", alignment, 40 + i);
    blocks[i] = block;
    sizes[i] = malloc_usable_size(block);
    HOLDS(sizes[i] >= 40 + i, "usable size %zu of %u", sizes[i], 40 + i);
    write_pattern(block, sizes[i], i);
  }
  for (unsigned i = 0; i < 400; i++) {
    HOLDS(has_pattern(blocks[i], sizes[i], i), "the usable bytes of aligned block %u overlap another block", i);
    blocks[i] = realloc(blocks[i], sizes[i]);
    HOLDS(has_pattern(blocks[i], sizes[i], i), "realloc of aligned block %u lost its contents", i);
    free(blocks[i]);
  }
}

static void zero_bytes(void) {
  char* a = malloc(0);
  char* b = malloc(0);
  char* c = calloc(0, 8);
  HOLDS(!a || a != b, "malloc(0) gave the same block twice");
  HOLDS(!c || (c != a && c != b), "calloc(0) gave a block that is in use");
  free(a);
  free(b);
  free(c);
  free(NULL);
}

static void posix_alignments(void) {
  for (size_t alignment = sizeof(void*); alignment <= (size_t)4 << 20; alignment *= 2)
    for (size_t bytes = 0; bytes <= 200000; bytes = bytes * 3 + 1) {
      void* block = NULL;
      const int error = posix_memalign(&block, alignment, bytes);
      HOLDS(error == 0, "posix_memalign(%zu, %zu) answers %d", alignment, bytes, error);
      HOLDS((uintptr_t)block % alignment == 0, "posix_memalign(%zu, %zu) gave %p", alignment, bytes, block);
      memset(block, 1, bytes);
      free(block);
    }
}

static void aligned_alloc_alignments(void) {
  static void* kept[40];
  for (unsigned i = 0; i < 17; i++) {
    const size_t alignment = (size_t)16 << i;
    kept[i] = aligned_alloc(alignment, alignment * 3);
    HOLDS(kept[i] && (uintptr_t)kept[i] % alignment == 0, "aligned_alloc(%zu) gave %p", alignment, kept[i]);
    write_pattern(kept[i], alignment * 3, i);
  }
  for (unsigned i = 0; i < 17; i++) {
    HOLDS(has_pattern(kept[i], ((size_t)16 << i) * 3, i), "aligned block %u was overwritten", i);
    free(kept[i]);
  }
  // The largest class of a well-known relative, with a page's alignment: it answered the address 0x1000.
  char* block = aligned_alloc(4096, 32768);
  HOLDS(block && (uintptr_t)block % 4096 == 0, "aligned_alloc(4096, 32768) gave %p", (void*)block);
  memset(block, 1, 32768);
  free(block);
}

void* memalign(size_t, size_t);
void* valloc(size_t);
void* pvalloc(size_t);
void* reallocarray(void*, size_t, size_t);
static void whole_family(void) {
  void* all[] = {memalign(64, 100),          valloc(100),  pvalloc(100), aligned_alloc(32, 64),
                 reallocarray(NULL, 10, 10), calloc(3, 5), malloc(9),    realloc(NULL, 77)};
  HOLDS((uintptr_t)all[0] % 64 == 0 && (uintptr_t)all[1] % 4096 == 0 && (uintptr_t)all[2] % 4096 == 0,
        "memalign, valloc or pvalloc is not aligned");
  HOLDS(malloc_usable_size(all[2]) >= 4096, "pvalloc(100) is no whole page");
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
    HOLDS(all[i], "function %u of the family gave nothing", i);
    HOLDS(malloc_usable_size(all[i]) > 0, "the block of function %u is not known to the heap", i);
    write_pattern(all[i], 8, i);
  }
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
    void* grown = realloc(all[i], 5000);
    HOLDS(grown && has_pattern(grown, 8, i), "the block of function %u cannot be reallocated", i);
    free(grown);
  }
}

const check size_checks[] = {
    {"alignment", "a block is aligned for every object that fits into it", aligned_for_everything, false},
    {"overlap", "blocks never overlap", never_overlap, false},
    {"usable-size", "all usable bytes are the block's own, and as many as were asked for", usable_is_usable, false},
    {"usable-size-aligned", "the usable bytes of aligned blocks are theirs alone", usable_of_aligned, false},
    {"zero-bytes", "malloc(0) gives NULL or a block of its own; free(NULL) does nothing", zero_bytes, false},
    {"posix-memalign", "posix_memalign keeps every alignment to 4 MiB", posix_alignments, false},
    {"aligned-alloc", "aligned_alloc keeps alignment and contents", aligned_alloc_alignments, false},
    {"family", "every function of the family gives blocks of the same heap", whole_family, false},
    {0}};

/* Open Enclave's allocator interface in a region: its bigmalloc and memory tests, their faults repaired. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "oe_allocator.h"

#define MUST(condition)                                                     \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "line %d does not hold: %s\n", __LINE__, #condition); \
      exit(1);                                                              \
    }                                                                       \
  } while (0)

enum { MIB = 1 << 20 };
static char *start, *end;
static int inside(const void* p, size_t n) { return (const char*)p >= start && (const char*)p + n <= end; }
static oe_mallinfo_t look(void) {
  oe_mallinfo_t info;
  MUST(oe_allocator_mallinfo(&info) == OE_OK);
  return info;
}
static size_t failed_bytes;
static void note(const char* file, size_t line, const char* func, size_t size) {
  (void)file, (void)line, (void)func;
  failed_bytes = size;
}

static void* work(void* seed) {
  uint32_t state = (uint32_t)(uintptr_t)seed;
  unsigned char* blocks[64] = {0};
  size_t sizes[64] = {0};
  oe_allocator_thread_init();
  for (int i = 0; i < 50000; ++i) {
    state = state * 1664525 + 1013904223;
    const unsigned at = state >> 26;
    if (blocks[at]) {
      MUST(blocks[at][0] == (unsigned char)at && blocks[at][sizes[at] - 1] == (unsigned char)at);
      oe_allocator_free(blocks[at]);
      blocks[at] = NULL;
    } else {
      sizes[at] = 1 + (state >> 8) % 20000;
      blocks[at] = oe_allocator_malloc(sizes[at]);
      MUST(blocks[at] && inside(blocks[at], sizes[at]));
      memset(blocks[at], (int)at, sizes[at]);
    }
  }
  for (int i = 0; i < 64; ++i) oe_allocator_free(blocks[i]);
  oe_allocator_thread_cleanup();
  return NULL;
}

int main(void) {
  oe_mallinfo_t info;
  const size_t bytes = 256 * (size_t)MIB;
  MUST(oe_allocator_mallinfo(NULL) == OE_INVALID_PARAMETER);
  MUST(oe_allocator_mallinfo(&info) == OE_FAILURE && oe_allocator_malloc(1) == NULL); /* before init */
  start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  end = start + bytes;
  memset(start, 0x5A, 8 * MIB); /* whatever was there */
  oe_allocator_init(start, end);
  MUST(look().max_total_heap_size == bytes && look().current_allocated_heap_size == 0);

  /* bigmalloc */
  void* first = oe_allocator_malloc(100);
  const oe_mallinfo_t before = look();
  const size_t remaining = before.max_total_heap_size - before.current_allocated_heap_size;
  const size_t wanted = (size_t)(0.99 * (double)remaining);
  oe_allocator_free(first);
  char* big = oe_allocator_malloc(wanted);
  MUST(big && inside(big, wanted));
  big[0] = big[wanted - 1] = 1;
  const size_t with = look().current_allocated_heap_size;
  MUST(with >= wanted && look().peak_allocated_heap_size == with);
  oe_allocator_free(big);
  MUST(look().current_allocated_heap_size == 0 && look().peak_allocated_heap_size == with);

  /* in pieces */
  void** last = NULL;
  for (;;) {
    void** block = oe_allocator_malloc(1000);
    if (!block) break;
    *block = last;
    last = block;
  }
  MUST(look().current_allocated_heap_size > 0.97 * (double)bytes);
  while (last) {
    void** next = *last;
    oe_allocator_free(last);
    last = next;
  }
  MUST(look().current_allocated_heap_size == 0);
  big = oe_allocator_malloc(wanted); /* and all of it is one again */
  MUST(big);
  oe_allocator_free(big);

  /* memory */
  MUST(oe_set_allocation_failure_callback(note) == OE_OK);
  errno = 0;
  MUST(oe_allocator_malloc((size_t)1 << 32) == NULL && errno == ENOMEM && failed_bytes == (size_t)1 << 32);
  int* numbers = oe_allocator_calloc(256, sizeof *numbers);
  for (int i = 0; i < 256; ++i) MUST(numbers[i] == 0);
  for (int i = 0; i < 256; ++i) numbers[i] = i;
  numbers = oe_allocator_realloc(numbers, 1024 * sizeof *numbers);
  for (int i = 0; i < 256; ++i) MUST(numbers[i] == i);
  MUST(oe_allocator_realloc(numbers, (size_t)1 << 32) == NULL && numbers[255] == 255);
  oe_allocator_free(numbers);
  char* zero = oe_allocator_calloc(1, 4 * MIB);
  for (size_t i = 0; i < 4 * MIB; ++i) MUST(zero[i] == 0);
  oe_allocator_free(zero);
  MUST(oe_allocator_calloc((size_t)1 << 33, (size_t)1 << 33) == NULL);
  void* aligned = NULL;
  MUST(oe_allocator_posix_memalign(&aligned, 64, 100) == 0 && (uintptr_t)aligned % 64 == 0);
  oe_allocator_free(aligned);
  MUST(oe_allocator_posix_memalign(&aligned, 0, 8) == EINVAL && oe_allocator_posix_memalign(&aligned, 63, 8) == EINVAL);
  MUST(oe_allocator_posix_memalign(NULL, 8, 8) == EINVAL);
  MUST(oe_allocator_posix_memalign(&aligned, 8, (size_t)1 << 62) == ENOMEM);
  MUST(oe_allocator_aligned_alloc(15, 30) == NULL && oe_allocator_aligned_alloc(64, 100) == NULL);
  aligned = oe_allocator_aligned_alloc(4096, 8192);
  MUST(aligned && (uintptr_t)aligned % 4096 == 0 && oe_allocator_malloc_usable_size(aligned) >= 8192);
  oe_allocator_free(aligned);
  oe_allocator_free(NULL);
  MUST(look().current_allocated_heap_size == 0);
  for (int i = 0; i < 1000000; ++i) oe_allocator_free(oe_allocator_malloc(1024));
  MUST(look().current_allocated_heap_size == 0);
  pthread_t all[4];
  for (uintptr_t i = 0; i < 4; ++i) pthread_create(&all[i], NULL, work, (void*)(i + 1));
  for (int i = 0; i < 4; ++i) pthread_join(all[i], NULL);
  MUST(look().current_allocated_heap_size == 0 && look().peak_allocated_heap_size <= bytes);
  oe_allocator_cleanup();
  MUST(oe_allocator_malloc(1) == NULL);
  puts("compatible");
  return 0;
}

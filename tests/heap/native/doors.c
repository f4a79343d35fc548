// Takes a block out of one door of the C library and brings it back to another; each has to know it.
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* block, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void* __libc_valloc(size_t bytes);
void* __libc_pvalloc(size_t bytes);
void __libc_free(void* block);

static void* filled(void* block) {
  memset(block, 7, malloc_usable_size(block));
  return block;
}

int main(void) {
  for (size_t bytes = 1; bytes < 3000000; bytes = bytes * 3 + 1) {
    free(filled(__libc_malloc(bytes)));
    free(filled(__libc_calloc(bytes, 2)));
    free(filled(__libc_memalign(256, bytes)));
    free(filled(__libc_valloc(bytes)));
    free(filled(__libc_pvalloc(bytes)));
    free(filled(__libc_realloc(filled(malloc(bytes)), 2 * bytes)));
    free(filled(realloc(filled(__libc_malloc(bytes)), 2 * bytes)));
    __libc_free(filled(malloc(bytes)));
    __libc_free(filled(aligned_alloc(64, bytes)));
  }
  puts("one heap");
  return 0;
}

// The C library's own doors to its heap, which programs use to get around whoever replaces malloc. What comes out of one
// heap is soon given to the other's free: so all doors lead to this heap.
#include <stddef.h>

#include "abi/heap.h"

using hs::TheHeap;

extern "C" {

HS_EXPORT void* __libc_malloc(size_t bytes) { return TheHeap::allocate(bytes); }

HS_EXPORT void* __libc_calloc(size_t count, size_t bytes) { return TheHeap::allocate_zeroed(count, bytes); }

HS_EXPORT void* __libc_realloc(void* block, size_t bytes) { return TheHeap::reallocate(block, bytes); }

HS_EXPORT void __libc_free(void* block) { TheHeap::deallocate(block); }

HS_EXPORT void* __libc_memalign(size_t alignment, size_t bytes) {
  return TheHeap::functions().memalign(alignment, bytes);
}

HS_EXPORT void* __libc_valloc(size_t bytes) { return TheHeap::functions().valloc(bytes); }

HS_EXPORT void* __libc_pvalloc(size_t bytes) { return TheHeap::functions().pvalloc(bytes); }

}  // extern "C"

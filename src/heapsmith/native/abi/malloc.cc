// The malloc family of the C library over the heap. Corner cases are the heap's own: what it answers is passed on.
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/heap.h"
#include "abi/ways.h"

using hs::for_caller;
using hs::TheCounted;
using hs::TheHeap;

namespace {

constexpr size_t kPageBytes = 4096;

void* allocate_aligned(size_t alignment, size_t bytes) {
  return TheCounted::filed(TheHeap::functions().memalign(alignment, bytes), bytes, alignment);
}

void free_of(void* block, size_t bytes) { hs::give_back({hs::Family::malloc, false}, block, bytes); }

}  // namespace

extern "C" {

HS_HOT_EXPORT void* malloc(size_t bytes) { return for_caller(TheCounted::allocate(bytes)); }

HS_HOT_EXPORT void free(void* block) { TheCounted::deallocate(block); }

HS_EXPORT void* calloc(size_t count, size_t bytes) { return for_caller(TheCounted::allocate_zeroed(count, bytes)); }

HS_EXPORT void* realloc(void* block, size_t bytes) { return for_caller(TheCounted::reallocate(block, bytes)); }

HS_EXPORT void* reallocarray(void* block, size_t count, size_t bytes) {
  size_t whole_bytes;
  if (__builtin_mul_overflow(count, bytes, &whole_bytes)) return TheCounted::overflow();
  return for_caller(TheCounted::reallocate(block, whole_bytes));
}

HS_EXPORT void* memalign(size_t alignment, size_t bytes) { return for_caller(allocate_aligned(alignment, bytes)); }

HS_EXPORT void* aligned_alloc(size_t alignment, size_t bytes) {
  if (TheHeap::functions().aligned_alloc == nullptr) return allocate_aligned(alignment, bytes);
  return for_caller(TheCounted::filed(TheHeap::functions().aligned_alloc(alignment, bytes), bytes, alignment));
}

HS_EXPORT int posix_memalign(void** into, size_t alignment, size_t bytes) {
  if (TheHeap::functions().posix_memalign == nullptr) {
    if (alignment % sizeof(void*) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
    void* block = allocate_aligned(alignment, bytes);
    if (block == nullptr) return ENOMEM;
    *into = block;
    return 0;
  }
  void* block = nullptr;
  const int error = TheHeap::functions().posix_memalign(&block, alignment, bytes);
  if (error == EINVAL) return error;
  const int errno_before = errno;
  block = TheCounted::filed(block, bytes, alignment);
  errno = errno_before;
  if (block == nullptr) return ENOMEM;
  *into = for_caller(block);
  return 0;
}

HS_EXPORT void* valloc(size_t bytes) {
  if (TheHeap::functions().valloc == nullptr) return allocate_aligned(kPageBytes, bytes);
  return for_caller(TheCounted::filed(TheHeap::functions().valloc(bytes), bytes, kPageBytes));
}

HS_EXPORT void* pvalloc(size_t bytes) {
  if (TheHeap::functions().pvalloc != nullptr) {
    return for_caller(TheCounted::filed(TheHeap::functions().pvalloc(bytes), bytes, kPageBytes));
  }
  size_t whole_bytes;
  if (__builtin_add_overflow(bytes, kPageBytes - 1, &whole_bytes)) return TheCounted::overflow();
  return allocate_aligned(kPageBytes, whole_bytes & ~(kPageBytes - 1));
}

HS_EXPORT size_t malloc_usable_size(void* block) { return TheCounted::usable_bytes(block); }

HS_EXPORT void free_sized(void* block, size_t bytes) { free_of(block, bytes); }

HS_EXPORT void free_aligned_sized(void* block, size_t, size_t bytes) { free_of(block, bytes); }

HS_EXPORT void cfree(void* block) { TheCounted::deallocate(block); }

}  // extern "C"

// A forged heap behind the interface of the process's own malloc: what the exported names need beyond blocks.
// Here, and nowhere below, errno is set and the corner cases of the C library's functions are decided.
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "heap/family.h"
#include "os/linux.h"

namespace hs {

// The aligned functions, each with its own rules for odd arguments.
struct ForgedFunctions {
  void* (*memalign)(size_t, size_t);
  void* (*aligned_alloc)(size_t, size_t);
  int (*posix_memalign)(void**, size_t, size_t);
  void* (*valloc)(size_t);
  void* (*pvalloc)(size_t);
};

template <class Heap>
class ForgedHeap {
 public:
  static HS_FAST_PATH void* allocate(size_t bytes) {
    void* block = Heap::allocate(bytes);
    return HS_LIKELY(block != nullptr) ? block : out_of_memory();
  }
  static HS_FAST_PATH void* allocate_zeroed(size_t count, size_t bytes) {
    size_t whole_bytes;
    if (HS_UNLIKELY(__builtin_mul_overflow(count, bytes, &whole_bytes))) return out_of_memory();
    void* block = Heap::allocate_zeroed(whole_bytes);
    return HS_LIKELY(block != nullptr) ? block : out_of_memory();
  }
  // As glibc: nothing is a block of no bytes that is given back.
  static void* reallocate(void* block, size_t bytes) {
    if (HS_UNLIKELY(bytes == 0 && block != nullptr)) {
      Heap::deallocate(block);
      return nullptr;
    }
    void* moved = Heap::reallocate(block, bytes);
    return HS_LIKELY(moved != nullptr) ? moved : out_of_memory();
  }
  static HS_FAST_PATH void deallocate(void* block) { Heap::deallocate(block); }
  // Only of a heap that records origins.
  static void note_origin(void* block, const void* caller)
    requires requires { Heap::note_origin(nullptr, nullptr); }
  {
    Heap::note_origin(block, caller);
  }
  // Only of a heap that matches ways (heap/hardened.h).
  static void mark(void* block, Way way)
    requires requires { Heap::deallocate_by(Way{}, nullptr, size_t{}); }
  {
    Heap::mark(block, way);
  }
  static void deallocate_by(Way way, void* block, size_t said_bytes)
    requires requires { Heap::deallocate_by(Way{}, nullptr, size_t{}); }
  {
    Heap::deallocate_by(way, block, said_bytes);
  }
  static size_t usable_bytes(const void* block) { return Heap::usable_bytes(block); }

  static const ForgedFunctions& functions() {
    static constexpr ForgedFunctions own = {memalign, aligned_alloc, posix_memalign, valloc, pvalloc};
    return own;
  }
  // No operator new of ours is ever found behind us.
  static constexpr bool is_own_code(const void*) { return false; }

 private:
  static HS_SLOW_PATH void* out_of_memory() {
    errno = ENOMEM;
    return nullptr;
  }
  static void* allocate_aligned(size_t alignment, size_t bytes) {
    void* block = Heap::allocate_aligned(alignment, bytes);
    return HS_LIKELY(block != nullptr) ? block : out_of_memory();
  }
  // As glibc: the next power of two is what was meant.
  static void* memalign(size_t alignment, size_t bytes) {
    if (alignment > SIZE_MAX / 2 + 1) {
      errno = EINVAL;
      return nullptr;
    }
    size_t power = 16;
    while (power < alignment) power <<= 1;
    return allocate_aligned(power, bytes);
  }
  // C17 lets any size be asked for; an alignment that is no power of two is none.
  static void* aligned_alloc(size_t alignment, size_t bytes) {
    if (!is_power_of_two(alignment)) {
      errno = EINVAL;
      return nullptr;
    }
    return allocate_aligned(alignment, bytes);
  }
  // errno is left alone, and so is `into` on failure.
  static int posix_memalign(void** into, size_t alignment, size_t bytes) {
    if (!is_power_of_two(alignment) || alignment % sizeof(void*) != 0) return EINVAL;
    void* block = Heap::allocate_aligned(alignment, bytes);
    if (block == nullptr) return ENOMEM;
    *into = block;
    return 0;
  }
  static void* valloc(size_t bytes) { return allocate_aligned(page_bytes, bytes); }
  static void* pvalloc(size_t bytes) {
    if (bytes > SIZE_MAX - page_bytes) return out_of_memory();
    return allocate_aligned(page_bytes, round_up(bytes, page_bytes));
  }
};

// Passes on: a heap that nobody watches.
template <class Heap>
class Uncounted : public Heap {
 public:
  static void* filed(void* block, size_t, size_t) { return block; }
  static void take_back_failure() {}
  static bool is_last_failure_refused() { return false; }
  // A product or a sum of sizes that no block can have.
  static void* overflow() {
    errno = ENOMEM;
    return nullptr;
  }
};

}  // namespace hs

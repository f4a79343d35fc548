// The process's own malloc behind the interface of a heap: glibc's, or whatever is preloaded or linked after us.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

namespace hs {

struct NextFunctions {
  void* (*allocate)(size_t);
  void* (*allocate_zeroed)(size_t, size_t);
  void* (*reallocate)(void*, size_t);
  void (*deallocate)(void*);
  size_t (*usable_bytes)(void*);
  // Each aligned function of the allocator has rules of its own for odd arguments; null where it has none.
  void* (*memalign)(size_t, size_t);
  void* (*aligned_alloc)(size_t, size_t);
  int (*posix_memalign)(void**, size_t, size_t);
  void* (*valloc)(size_t);
  void* (*pvalloc)(size_t);
  // glibc keeps a block's size in the word before it: reading it there costs nothing, asking costs as much as counting.
  bool has_glibc_headers;
  // The object that answers malloc: what it maps is its own business, not the program's.
  uintptr_t code_begin;
  uintptr_t code_end;
  char path[256];
};

class NextHeap {
 public:
  static HS_FAST_PATH void* allocate(size_t bytes) { return next.allocate(bytes); }
  static HS_FAST_PATH void* allocate_zeroed(size_t count, size_t bytes) { return next.allocate_zeroed(count, bytes); }
  static HS_FAST_PATH void* reallocate(void* block, size_t bytes) { return next.reallocate(block, bytes); }
  static HS_FAST_PATH void deallocate(void* block) { next.deallocate(block); }

  // The usable size, if it is a small block's and can be had without a call.
  static HS_FAST_PATH bool small_usable_bytes(const void* block, size_t& usable_bytes) {
    constexpr size_t kFlags = 7;
    constexpr size_t kSmallHeaders = 1048;  // chunks up to 1040 bytes, whatever their flags
    if (HS_UNLIKELY(!next.has_glibc_headers)) return false;
    const size_t header = static_cast<const size_t*>(block)[-1];
    usable_bytes = (header & ~kFlags) - sizeof(size_t);
    return HS_LIKELY(header < kSmallHeaders);
  }
  static size_t usable_bytes(void* block) {
    return is_early(block) ? early_usable_bytes(block) : next.usable_bytes(block);
  }

  // Finds the next malloc. Answers false while it is being found: then blocks come from a small buffer of our own, which
  // are never given back.
  static HS_SLOW_PATH bool make_ready();
  static bool is_early(const void* block);
  static void* allocate_early(size_t bytes);
  static size_t early_usable_bytes(const void* block);
  // Whether code at this address belongs to the allocator itself.
  static bool is_own_code(const void* address) {
    const auto at = reinterpret_cast<uintptr_t>(address);
    return at >= next.code_begin && at < next.code_end;
  }
  static const NextFunctions& functions() { return next; }

 private:
  static void find();
  static NextFunctions next;
};

}  // namespace hs

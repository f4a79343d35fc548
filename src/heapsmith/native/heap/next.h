// The process's own malloc behind the interface of a heap: glibc's, or whatever is preloaded or linked after us.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

namespace hs {

struct CodeRange {
  uintptr_t begin = 0;
  uintptr_t end = 0;
  bool holds(const void* address) const {
    const auto at = reinterpret_cast<uintptr_t>(address);
    return at >= begin && at < end;
  }
};

struct NextFunctions {
  void* (*allocate)(size_t);
  void* (*allocate_zeroed)(size_t, size_t);
  void* (*reallocate)(void*, size_t);
  void (*deallocate)(void*);
  size_t (*usable_bytes)(void*) = nullptr;
  // Each aligned function of the allocator has rules of its own for odd arguments; null where it has none.
  void* (*memalign)(size_t, size_t) = nullptr;
  void* (*aligned_alloc)(size_t, size_t) = nullptr;
  int (*posix_memalign)(void**, size_t, size_t) = nullptr;
  void* (*valloc)(size_t) = nullptr;
  void* (*pvalloc)(size_t) = nullptr;
  // glibc keeps a block's size in the word before it: reading it there costs nothing, asking costs as much as counting.
  bool has_glibc_headers = false;
  // The program has a malloc of its own, which comes before any preloaded library: its blocks are not ours to see.
  bool is_blind = false;
  // The object that answers malloc: what it maps is its own business, not the program's.
  CodeRange code = {};
  // The same where an allocator is two objects.
  CodeRange more_code = {};
  char path[256] = {};
};

class NextHeap {
 public:
  // Before the functions are found, calling one finds them.
  static HS_FAST_PATH void* allocate(size_t bytes) { return next.allocate(bytes); }
  static HS_FAST_PATH void* allocate_zeroed(size_t count, size_t bytes) { return next.allocate_zeroed(count, bytes); }
  static HS_FAST_PATH void* reallocate(void* block, size_t bytes) { return next.reallocate(block, bytes); }
  static HS_FAST_PATH void deallocate(void* block) { next.deallocate(block); }

  // Usable size and class of a small block, from its header; false for a large one. Only where there are such headers.
  static HS_FAST_PATH bool read_small(const void* block, size_t& usable_bytes, uint32_t& index) {
    constexpr size_t kFlags = 15;           // of which three are in use
    constexpr size_t kSmallHeaders = 1048;  // chunks up to 1040 bytes, whatever their flags
    const size_t header = static_cast<const size_t*>(block)[-1];
    usable_bytes = (header & ~kFlags) - sizeof(size_t);
    index = static_cast<uint32_t>(header >> 4) - 1;
    return header < kSmallHeaders;
  }
  static size_t usable_bytes(void* block) {
    if (HS_LIKELY(next.has_glibc_headers) && !is_early(block)) {
      constexpr size_t kMapped = 2;
      const size_t header = static_cast<const size_t*>(block)[-1];
      return (header & ~size_t{7}) - ((header & kMapped) != 0 ? 2 * sizeof(size_t) : sizeof(size_t));
    }
    return is_early(block) ? early_usable_bytes(block) : functions().usable_bytes(block);
  }

  // While the functions are being found, blocks come from a small buffer of our own and are never given back.
  static HS_FAST_PATH bool is_early(const void* block) {
    return reinterpret_cast<uintptr_t>(block) - reinterpret_cast<uintptr_t>(early_blocks) < kEarlyBytes;
  }
  // Whether code at this address belongs to the allocator itself; while that is being found, nothing else runs.
  static bool is_own_code(const void* address) {
    return !make_found() || found_functions.code.holds(address) || found_functions.more_code.holds(address);
  }
  static bool is_blind() { return next.is_blind; }
  // Calls come here by another way than the order of libraries: all blocks are ours to see.
  static void see_all();
  // The allocator is at work for a call of ours, and comes back to the exported names for what it needs: its calloc
  // calls malloc, its realloc calls malloc and free. Such a call is a part of the one that is being counted.
  static HS_SLOW_PATH bool is_nested();
  // The functions, found.
  static const NextFunctions& functions();

 private:
  static void find();
  static void prepare();
  static void learn_whether_it_comes_back();
  static bool make_found();
  static bool make_ready();
  static void* first_allocate(size_t bytes);
  static void* first_allocate_zeroed(size_t count, size_t bytes);
  static void* first_reallocate(void* block, size_t bytes);
  static void first_deallocate(void* block);
  static void* allocate_early(size_t bytes);
  static size_t early_usable_bytes(const void* block);
  // Looking up a name may itself allocate, before there is anything to allocate from.
  static constexpr size_t kEarlyBytes = 64 * 1024;
  alignas(16) static char early_blocks[kEarlyBytes];
  static NextFunctions next;
  static NextFunctions found_functions;
};

}  // namespace hs

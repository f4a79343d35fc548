// What the allocator of this process tells of itself. Its functions are used only if they live in the very
// object that answers malloc: under a preloaded allocator glibc's mallinfo2 is still there, and describes a
// heap that nobody uses.
#pragma once

#include <stdint.h>

namespace hs {

// The bits and numbers of heapsmith.h.
enum ToldField : uint64_t {
  kToldCommitted = 1ull << 7,
  kToldReserved = 1ull << 8,
  kToldMetadata = 1ull << 9,
  kToldFreeCached = 1ull << 10,
  kToldCurrent = 1ull << 23,
  kToldLimit = 1ull << 0,
};

enum class ToldUnit : uint32_t { kUnknown = 0, kUsable = 1, kRequested = 2, kChunk = 3, kPage = 4 };

struct Told {
  uint64_t valid = 0;
  uint64_t exact = 0;
  uint64_t current_bytes = 0;
  uint64_t committed_bytes = 0;
  uint64_t reserved_bytes = 0;
  uint64_t metadata_bytes = 0;
  uint64_t free_cached_bytes = 0;
  uint64_t limit_bytes = 0;
  ToldUnit unit = ToldUnit::kUnknown;
  // The largest single request that fits into so many bytes, by how this allocator rounds large blocks.
  uint64_t (*largest_request)(uint64_t available_bytes) = nullptr;
  char name[32] = {};
};

// Asks the allocator that answers at this address; it may take its locks, so not from inside of it.
Told ask_allocator(const void* malloc_address);

}  // namespace hs

// BoundedCache: each thread keeps up to two magazines of free blocks per size class, all of them together
// bounded.
//
// Promise: a thread never holds more than `limit_bytes` (and one block of each class it is using) out of the
// central heap. Invariant: a magazine moves as a whole, so no list is ever walked to be split.
#pragma once

#include "base/bits.h"
#include "policy/concepts.h"
#include "policy/knobs.h"

namespace hs {

template <size_t limit_bytes_, size_t magazine_bytes, uint32_t magazine_blocks_at_most>
struct BoundedCache {
  static_assert(limit_bytes_ >= 1_KiB && magazine_bytes >= 16 && magazine_blocks_at_most >= 1);
  static constexpr bool caches = true;
  static size_t limit_bytes() { return knobs.cache_bytes == Knobs::as_forged ? limit_bytes_ : knobs.cache_bytes; }
  static constexpr uint32_t magazine_blocks(size_t class_bytes, unsigned) {
    const size_t blocks = magazine_bytes / class_bytes;
    return static_cast<uint32_t>(blocks < 1 ? 1 : smaller_of(blocks, magazine_blocks_at_most));
  }
};
static_assert(Cache<BoundedCache<64_KiB, 4_KiB, 64>>);

}  // namespace hs

// FixedCache: a capacity in blocks for each size class, as a trace or a person says.
//
// Promise: a thread holds at most `limit_bytes` and, of class number i, at most the i-th capacity. Classes
// beyond the list have the capacity of its last entry.
#pragma once

#include "base/bits.h"
#include "policy/concepts.h"
#include "policy/knobs.h"

namespace hs {

template <size_t limit_bytes_, uint32_t... capacity_blocks>
struct FixedCache {
  static_assert(sizeof...(capacity_blocks) > 0 && ((capacity_blocks > 0) && ...));
  static constexpr bool caches = true;
  static constexpr uint32_t capacities[] = {capacity_blocks...};
  static size_t limit_bytes() { return knobs.cache_bytes == Knobs::as_forged ? limit_bytes_ : knobs.cache_bytes; }
  // Half of the capacity: a thread holds up to two magazines.
  static constexpr uint32_t magazine_blocks(size_t, unsigned class_index) {
    const uint32_t blocks = capacities[smaller_of(class_index - 1, sizeof...(capacity_blocks) - 1)];
    return blocks < 2 ? 1 : blocks / 2;
  }
};
static_assert(Cache<FixedCache<64_KiB, 64, 32>>);

}  // namespace hs

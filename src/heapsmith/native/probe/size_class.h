// The counters' size classes, by usable bytes; the arithmetic of heapsmith/wire/classes.py.
#pragma once

#include "base/compiler.h"
#include "wire/region.h"

namespace hs::probe {

HS_FAST_PATH constexpr uint32_t coarse_class_index(size_t usable_bytes) {
  const uint64_t beyond = usable_bytes - 9;
  const uint32_t doubling = 63u - static_cast<uint32_t>(__builtin_clzll(beyond));
  if (doubling < wire::kHalvedDoublingEnd) {
    return wire::kFineClasses + 2 * (doubling - wire::kHalvedDoublingFirst) +
           static_cast<uint32_t>((beyond >> (doubling - 1)) & 1);
  }
  constexpr uint32_t kHalved = 2 * (wire::kHalvedDoublingEnd - wire::kHalvedDoublingFirst);
  const uint32_t index = wire::kFineClasses + kHalved + doubling - wire::kHalvedDoublingEnd;
  return index < wire::kClassCount ? index : wire::kClassCount - 1;
}

HS_FAST_PATH constexpr uint32_t class_index(size_t usable_bytes) {
  if (HS_LIKELY(usable_bytes <= wire::kFineLimitBytes)) return static_cast<uint32_t>((usable_bytes + 7) >> 4);
  return coarse_class_index(usable_bytes);
}

consteval bool classes_agree_with_their_bounds() {
  for (uint32_t index = 0; index + 1 < wire::kClassCount; ++index) {
    const uint64_t bound = wire::kClassBytes[index];
    if (class_index(bound) != index || class_index(bound + 1) != index + 1) return false;
  }
  return true;
}
static_assert(classes_agree_with_their_bounds());

}  // namespace hs::probe

// PowersOfTwo: one class for each power of two.
//
// Promise: each block lies at a multiple of its own size up to a page; up to half of a block may go unused.
#pragma once

#include "base/bits.h"
#include "policy/concepts.h"

namespace hs {

template <size_t smallest_bytes, size_t largest_bytes>
struct PowersOfTwo {
  static_assert(is_power_of_two(smallest_bytes) && is_power_of_two(largest_bytes));
  static_assert(smallest_bytes <= largest_bytes);
  static constexpr size_t count = log2_floor(largest_bytes) - log2_floor(smallest_bytes) + 1;
  static constexpr ClassList<count> classes = [] {
    ClassList<count> made{};
    for (size_t i = 0; i < count; i++) made.bytes[i] = static_cast<uint32_t>(smallest_bytes << i);
    return made;
  }();
};
static_assert(Sizes<PowersOfTwo<16, 32768>>);

}  // namespace hs

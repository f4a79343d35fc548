// Geometric: the same number of classes between each power of two and the next.
//
// Promise: above 16 * steps_per_doubling bytes, a block is at most 1/steps_per_doubling larger than what was
// asked for; below, at most 15 bytes larger. Every class is a multiple of 16.
#pragma once

#include "base/bits.h"
#include "policy/concepts.h"

namespace hs {

template <size_t smallest_bytes, size_t largest_bytes, size_t steps_per_doubling>
struct Geometric {
  static_assert(smallest_bytes % 16 == 0 && smallest_bytes <= largest_bytes);
  static_assert(is_power_of_two(steps_per_doubling));

  static constexpr size_t next(size_t class_bytes) {
    const size_t step = (size_t{1} << log2_floor(class_bytes)) / steps_per_doubling;
    return class_bytes + larger_of(step, 16);
  }
  static constexpr size_t count = [] {
    size_t found = 1;
    for (size_t bytes = smallest_bytes; bytes < largest_bytes; bytes = next(bytes)) found++;
    return found;
  }();
  static constexpr ClassList<count> classes = [] {
    ClassList<count> made{};
    size_t bytes = smallest_bytes;
    for (size_t i = 0; i < count; i++, bytes = next(bytes))
      made.bytes[i] = static_cast<uint32_t>(smaller_of(bytes, largest_bytes));
    return made;
  }();
};
static_assert(Sizes<Geometric<16, 32768, 4>>);

}  // namespace hs

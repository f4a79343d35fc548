// Explicit: exactly the classes named, for a program whose sizes are known.
//
// Promise: a block of the smallest class that holds the request; alignment is that of the class (a class that
// is no multiple of 16 gives it up, and the spec says so).
#pragma once

#include "policy/concepts.h"

namespace hs {

template <uint64_t... class_bytes>
struct Explicit {
  static_assert(sizeof...(class_bytes) > 0);
  static constexpr ClassList<sizeof...(class_bytes)> classes = {{static_cast<uint32_t>(class_bytes)...},
                                                                {static_cast<uint32_t>(class_bytes >> 32)...}};
};
static_assert(Sizes<Explicit<16, 48, 4368 | uint64_t{8} << 32>>);

}  // namespace hs

// The ways a block can be made and given back.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs {

enum class Family : uint8_t { malloc, scalar_new, array_new };

struct Way {
  Family family;
  bool is_aligned;  // by operator new with an alignment
};
// Of a size that the caller does not say.
inline constexpr size_t unsaid_bytes = ~size_t{0};

}  // namespace hs

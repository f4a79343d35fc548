// Quarantine: freed blocks wait, and leave in random order.
//
// Promise: a block is not handed out again at once, and what is written to it while it waits ends the program
// when it leaves. At most `blocks` blocks and `bytes` bytes wait (per shard of threads; there are eight).
#pragma once

#include <stddef.h>

namespace hs {
template <size_t blocks_, size_t bytes_>
struct Quarantine {
  static_assert(blocks_ >= 8 && blocks_ <= 4096);
  static constexpr size_t blocks = blocks_;
  static constexpr size_t bytes = bytes_;
};
}  // namespace hs

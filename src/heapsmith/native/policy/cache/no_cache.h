// NoCache: every call goes to the central heap, under the lock of its size class.
//
// Promise: no block is ever held back by a thread: least memory, most locking.
#pragma once

#include "policy/concepts.h"

namespace hs {

struct NoCache {
  static constexpr bool caches = false;
  static size_t limit_bytes() { return 0; }
  static constexpr uint32_t magazine_blocks(size_t, unsigned) { return 1; }
};
static_assert(Cache<NoCache>);

}  // namespace hs

// PurgeOnDemand: nothing goes back until the program calls `recycle()` (or malloc_trim).
//
// Promise: no call of malloc or free ever waits for the kernel to take pages back.
#pragma once

#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

struct PurgeOnDemand {
  template <class Below>
  struct Over : Forward<Below> {
    size_t keep_bytes(size_t) { return ~size_t{0}; }
    size_t rest_bytes(size_t) { return ~size_t{0}; }
    uint64_t keep_ms() { return ~uint64_t{0}; }
  };
};
static_assert(Pages<Pipe<OsPages<>, PurgeOnDemand>>);

}  // namespace hs

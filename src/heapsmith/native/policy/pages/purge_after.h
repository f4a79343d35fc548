// PurgeAfter: free pages stay warm for a moment, bounded, and then go back.
//
// Promise: no free page stays resident longer than `delay_ms` of a program that still allocates, unless pages
// were missed within the last second after they had gone back; and at no time are more than `keep_bytes` plus
// a keep_share-th of the live bytes (and what was missed) kept free and resident. Most of what a spike leaves
// is gone when the last of it is freed, although no thread of ours is there to take it away later.
#pragma once

#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

template <uint64_t delay_ms, size_t keep_bytes_, size_t keep_share>
struct PurgeAfter {
  template <class Below>
  struct Over : Forward<Below> {
    size_t keep_bytes(size_t live_bytes) { return keep_bytes_ + (keep_share ? live_bytes / keep_share : 0); }
    size_t rest_bytes(size_t live_bytes) { return keep_bytes_ / 2 + live_bytes / 32; }
    uint64_t keep_ms() { return delay_ms; }
  };
};
static_assert(Pages<Pipe<OsPages<>, PurgeAfter<10, 4_MiB, 8>>>);

}  // namespace hs

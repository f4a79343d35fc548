// Limit: at most so many bytes of pages in use or kept free; beyond it, allocations fail with ENOMEM.
//
// Promise: committed_bytes <= limit_bytes, always; pages kept free are given back before a request is
// refused.
#pragma once

#include "base/atomic.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

template <size_t limit_bytes_>
struct Limit {
  template <class Below>
  struct Over : Forward<Below> {
    size_t committed_bytes = 0;

    // Called under the lock of the page heap.
    bool take(size_t bytes) {
      if (bytes > limit_bytes_ || committed_bytes > limit_bytes_ - bytes) return false;
      if (!this->below.take(bytes)) return false;
      committed_bytes += bytes;
      return true;
    }
    void give_back(size_t bytes) {
      committed_bytes -= bytes;
      this->below.give_back(bytes);
    }
    size_t limit_bytes() { return limit_bytes_; }
  };
};
static_assert(Pages<Pipe<OsPages<>, Limit<1_MiB>>>);

}  // namespace hs

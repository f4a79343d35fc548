// PurgeAtOnce: free pages go back as soon as there are more of them than a threshold.
//
// Promise: at most `threshold_bytes` are kept free and resident, at any time.
#pragma once

#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

template <size_t threshold_bytes>
struct PurgeAtOnce {
  template <class Below>
  struct Over : Forward<Below> {
    size_t keep_bytes(size_t) { return threshold_bytes; }
    size_t rest_bytes(size_t) { return threshold_bytes; }
  };
};
static_assert(Pages<Pipe<OsPages<>, PurgeAtOnce<0>>>);

}  // namespace hs

// Prefault: pages are populated when they are taken, not when they are first written.
//
// Promise: the program meets no page fault on heap memory after malloc returned it. Price: pages it never
// writes take memory too.
#pragma once

#include "os/linux.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

template <OperatingSystem Os = Linux>
struct PrefaultOn {
  template <class Below>
  struct Over : Forward<Below> {
    void touch(void* start, size_t bytes) {
      Os::populate(start, bytes);  // an old kernel cannot: the pages are then faulted in as they are written
    }
  };
};
using Prefault = PrefaultOn<Linux>;
static_assert(Pages<Pipe<OsPages<>, Prefault>>);

}  // namespace hs

// PurgeLazily: pages that go back are only offered (MADV_FREE): the kernel takes them when it wants them, and until then
// using them again costs no page fault.
//
// Promise: what was purged is the kernel's to take at any moment; it counts as resident until then. Price: purged pages
// do not read as zero, so `calloc` writes them.
#pragma once

#include "os/linux.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

template <OperatingSystem Os = Linux>
struct PurgeLazilyOn {
  template <class Below>
  struct Over : Forward<Below> {
    bool purge(void* start, size_t bytes) { return Os::purge_lazily(start, bytes) || this->below.purge(start, bytes); }
    bool purged_reads_zero() { return false; }
  };
};
using PurgeLazily = PurgeLazilyOn<Linux>;
static_assert(Pages<Pipe<OsPages<>, PurgeLazily>>);

}  // namespace hs

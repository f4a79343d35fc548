// AtStart: what a launcher wants of the pages, over what was forged; the last stage of every pipe.
//
// Promise: without a wish it hands everything on. With a limit, committed bytes never pass the lower of both.
#pragma once

#include "policy/knobs.h"
#include "policy/pages/huge_pages.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

template <OperatingSystem Os = Linux>
struct AtStartOn {
  template <class Below>
  struct Over : Forward<Below> {
    size_t committed_bytes = 0;

    Segment map(size_t bytes, bool for_blocks) {
      const HugePageWish wish = knobs.huge_pages;
      const bool huge = for_blocks && bytes >= huge_page_bytes &&
                        (wish == HugePageWish::transparent || wish == HugePageWish::reserved);
      if (!huge) return this->below.map(bytes, for_blocks);
      return map_huge_segment<Os>(this->below, bytes, wish == HugePageWish::reserved);
    }
    bool may_hold_reserved() { return knobs.huge_pages == HugePageWish::reserved || this->below.may_hold_reserved(); }
    // Called under the lock of the page heap.
    bool take(size_t bytes) {
      const size_t limit = knobs.limit_bytes;
      if (limit != Knobs::as_forged && (bytes > limit || committed_bytes > limit - bytes)) return false;
      if (!this->below.take(bytes)) return false;
      committed_bytes += bytes;
      return true;
    }
    void give_back(size_t bytes) {
      committed_bytes -= bytes;
      this->below.give_back(bytes);
    }
    bool purge(void* start, size_t bytes) {
      if (knobs.purge == PurgeWish::lazily) return Os::purge_lazily(start, bytes) || Os::purge(start, bytes);
      if (knobs.purge == PurgeWish::at_once) return Os::purge(start, bytes);
      return this->below.purge(start, bytes);
    }
    bool purged_reads_zero() {
      return knobs.purge == PurgeWish::as_forged ? this->below.purged_reads_zero() : knobs.purge == PurgeWish::at_once;
    }
    size_t keep_bytes(size_t live_bytes) { return keeps_nothing() ? 0 : this->below.keep_bytes(live_bytes); }
    size_t rest_bytes(size_t live_bytes) { return keeps_nothing() ? 0 : this->below.rest_bytes(live_bytes); }
    uint64_t keep_ms() {
      if (knobs.purge_delay_ms == Knobs::as_forged) return this->below.keep_ms();
      return knobs.purge_delay_ms == Knobs::never_ms ? ~uint64_t{0} : knobs.purge_delay_ms;
    }
    size_t limit_bytes() { return smaller_of(knobs.limit_bytes, this->below.limit_bytes()); }

   private:
    static bool keeps_nothing() { return knobs.purge_delay_ms == 0; }
  };
};
using AtStart = AtStartOn<Linux>;
static_assert(Pages<Pipe<OsPages<>, AtStart>>);

}  // namespace hs

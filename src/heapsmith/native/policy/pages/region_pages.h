// RegionPages: pages out of one fixed range of addresses, given once and never more; for enclaves, devices, arenas.
//
// Promise: no page lies outside the range, and what is handed out first reads as zero, whatever was there.
// The heap's own metadata lies elsewhere, so that all of the range can be blocks.
#pragma once

#include <string.h>

#include "base/bits.h"
#include "os/linux.h"
#include "policy/concepts.h"

namespace hs {

struct RegionPages {
  static constexpr size_t unlimited_bytes = ~size_t{0};
  static constexpr bool makes_huge = false;
  static constexpr size_t huge_after_bytes = unlimited_bytes;

  static void give(void* start, void* end) {
    next_ = round_up(address_of(start), page_bytes);
    end_ = round_down(address_of(end), page_bytes);
  }

  Segment map(size_t bytes, bool) {
    if (end_ <= next_ || bytes > end_ - next_) return {nullptr, false};
    void* start = pointer_to(next_);
    next_ += bytes;
    memset(start, 0, bytes);
    return {start, false};
  }
  // The range is for life: nothing of it goes back.
  bool release(void*, size_t) { return false; }
  bool purge(void*, size_t) { return false; }
  bool purged_reads_zero() { return true; }
  bool take(size_t) { return true; }
  void give_back(size_t) {}
  void touch(void*, size_t) {}
  bool may_hold_reserved() { return false; }
  bool make_huge(void*, size_t) { return false; }
  size_t keep_bytes(size_t) { return unlimited_bytes; }
  size_t rest_bytes(size_t) { return unlimited_bytes; }
  uint64_t keep_ms() { return ~uint64_t{0}; }
  size_t limit_bytes() { return end_ - next_; }

 private:
  // One range for the process; the page heap's lock guards it.
  static inline uintptr_t next_;
  static inline uintptr_t end_;
};
static_assert(Pages<RegionPages>);

}  // namespace hs

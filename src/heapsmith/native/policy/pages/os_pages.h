// OsPages: pages straight from the operating system, in segments; the source of every page pipe.
//
// Promise: fresh pages read as zero and take no memory until they are written.
#pragma once

#include "os/linux.h"
#include "policy/concepts.h"

namespace hs {

template <OperatingSystem Os = Linux>
struct OsPages {
  static constexpr size_t unlimited_bytes = ~size_t{0};
  static constexpr bool makes_huge = false;
  // So much is mapped before segments may be of huge pages.
  static constexpr size_t huge_after_bytes = unlimited_bytes;

  Segment map(size_t bytes, bool) { return {Os::map(bytes), false}; }
  bool release(void* start, size_t bytes) { return Os::unmap(start, bytes); }
  bool purge(void* start, size_t bytes) { return Os::purge(start, bytes); }
  // Whether purged pages read as zero from then on.
  bool purged_reads_zero() { return true; }
  bool take(size_t) { return true; }
  void give_back(size_t) {}
  void touch(void*, size_t) {}
  // Whether segments of huge pages may be reserved ones, which the kernel neither moves nor takes in parts.
  bool may_hold_reserved() { return false; }
  bool make_huge(void*, size_t) { return false; }
  size_t keep_bytes(size_t) { return unlimited_bytes; }
  size_t rest_bytes(size_t) { return unlimited_bytes; }
  uint64_t keep_ms() { return ~uint64_t{0}; }
  size_t limit_bytes() { return unlimited_bytes; }
};
static_assert(Pages<OsPages<>>);

}  // namespace hs

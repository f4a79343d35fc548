// Pipe: stages of the page slot, the source first; each wraps what stands before it as a member and hands on
// what it does not care about.
#pragma once

#include "base/bits.h"
#include "policy/concepts.h"

namespace hs {

namespace detail {
template <class Source, class... Stages>
struct Piped {
  using Type = Source;
};
template <class Source, class First, class... Rest>
struct Piped<Source, First, Rest...> {
  using Type = typename Piped<typename First::template Over<Source>, Rest...>::Type;
};
}  // namespace detail

template <class Source, class... Stages>
using Pipe = typename detail::Piped<Source, Stages...>::Type;

// Everything handed on; a stage replaces what it is for.
template <class Below>
struct Forward {
  static constexpr bool makes_huge = Below::makes_huge;
  static constexpr size_t huge_after_bytes = Below::huge_after_bytes;
  Below below;

  Segment map(size_t bytes, bool for_blocks) { return below.map(bytes, for_blocks); }
  bool release(void* start, size_t bytes) { return below.release(start, bytes); }
  bool purge(void* start, size_t bytes) { return below.purge(start, bytes); }
  bool purged_reads_zero() { return below.purged_reads_zero(); }
  bool take(size_t bytes) { return below.take(bytes); }
  void give_back(size_t bytes) { below.give_back(bytes); }
  void touch(void* start, size_t bytes) { below.touch(start, bytes); }
  bool may_hold_reserved() { return below.may_hold_reserved(); }
  bool make_huge(void* start, size_t bytes) { return below.make_huge(start, bytes); }
  size_t keep_bytes(size_t live_bytes) { return below.keep_bytes(live_bytes); }
  size_t rest_bytes(size_t live_bytes) { return below.rest_bytes(live_bytes); }
  uint64_t keep_ms() { return below.keep_ms(); }
  size_t limit_bytes() { return below.limit_bytes(); }
};

}  // namespace hs

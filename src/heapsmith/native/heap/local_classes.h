// The size classes of a local heap: those of its spec up to 32 KiB, where several blocks share a span.
#pragma once

#include "policy/sizes/size_classes.h"

namespace hs {

template <Sizes Policy>
struct LocalClasses {
  using Of = SizeClasses<Policy>;

  static constexpr unsigned count = [] {
    unsigned found = 0;
    while (found < Of::count && Of::shapes.of[found + 1].span_blocks > 1) found++;
    return found;
  }();
  static constexpr unsigned index_count = count + 1;
  // Requests from here on are large.
  static constexpr size_t end_bytes = count == 0 ? 0 : Of::shapes.of[count].class_bytes + 1;

  HS_FAST_PATH static constexpr unsigned small_count() { return count; }
  HS_FAST_PATH static constexpr size_t small_end_bytes() { return end_bytes; }
  HS_FAST_PATH static unsigned class_of(size_t requested_bytes) { return Of::class_of(requested_bytes); }
  static unsigned class_of_aligned(size_t alignment, size_t requested_bytes) {
    const unsigned index = requested_bytes < end_bytes ? Of::class_of_aligned(alignment, requested_bytes) : 0;
    return index <= count ? index : 0;
  }
  static size_t bytes_of(unsigned index) { return Of::bytes_of(index); }
  static constexpr size_t span_pages(unsigned index) { return Of::shapes.of[index].span_pages; }
  static constexpr size_t alignment() { return Of::guaranteed_alignment; }
};

}  // namespace hs

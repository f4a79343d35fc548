// HugePages: segments mapped after the heap has grown beyond `after_bytes` ask for transparent huge pages.
//
// Promise: a small program never holds a huge page it does not fill; a large one meets a page fault per 2
// MiB. Where transparent huge pages are switched off, the advice has no effect.
#pragma once

#include "os/linux.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

template <size_t after_bytes, OperatingSystem Os = Linux>
struct HugePages {
  template <class Below>
  struct Over : Forward<Below> {
    static constexpr bool makes_huge = true;
    size_t mapped_bytes = 0;

    Segment map(size_t bytes, bool for_blocks) {
      // A large block may stay empty for the most part; spans of small blocks are filled before others are
      // begun.
      const bool huge = for_blocks && mapped_bytes >= after_bytes && bytes >= huge_page_bytes;
      const Segment segment = huge ? map_aligned(bytes) : this->below.map(bytes, for_blocks);
      if (segment.start) mapped_bytes += bytes;
      return segment;
    }

    // `start` and `bytes` are multiples of the size of a huge page.
    bool make_huge(void* start, size_t bytes) {
      return mapped_bytes >= after_bytes && Os::advise_huge_pages(start, bytes);
    }

   private:
    Segment map_aligned(size_t bytes) {
      Segment segment = this->below.map(bytes, true);
      if (!segment.start) return segment;
      uintptr_t start = address_of(segment.start);
      if (start % huge_page_bytes != 0) {
        if (!this->below.release(segment.start, bytes)) return segment;
        segment = this->below.map(bytes + huge_page_bytes, true);
        if (!segment.start) return segment;
        const uintptr_t mapped = address_of(segment.start);
        start = round_up(mapped, huge_page_bytes);
        if (start > mapped) this->below.release(segment.start, start - mapped);
        this->below.release(pointer_to(start + bytes), mapped + huge_page_bytes - start);
      }
      return {pointer_to(start), Os::advise_huge_pages(pointer_to(start), bytes)};
    }
  };
};
static_assert(Pages<Pipe<OsPages<>, HugePages<32_MiB>>>);

}  // namespace hs

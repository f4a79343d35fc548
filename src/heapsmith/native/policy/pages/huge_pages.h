// HugePages: segments mapped after the heap has grown beyond `after_bytes` are huge pages: transparent ones, or those
// that were `reserved` for such use, as long as there are any.
//
// Promise: a small program never holds a huge page it does not fill; a large one meets a page fault per 2
// MiB. Where transparent huge pages are switched off, the advice has no effect. Where reserved ones run out, one line on
// standard error says so. Price of reserved ones: they never go back to the kernel as less than 2 MiB, are not moved, and
// a forked child that writes to one needs another, or is ended by the kernel.
#pragma once

#include "os/linux.h"
#include "os/say.h"
#include "policy/knobs.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

// A segment of huge pages out of what `below` maps, at a multiple of them: reserved ones where wished and there, else
// transparent ones; `huge` in the answer says whether it is any.
template <class Os, class Below>
Segment map_huge_segment(Below& below, size_t bytes, bool reserved) {
  if (reserved && bytes % huge_page_bytes == 0) {
    if (void* start = Os::map_reserved(bytes)) return {start, true};
    static bool is_said = false;
    if (!is_said) say("no reserved huge pages are left (vm.nr_hugepages): transparent ones are asked for");
    is_said = true;
  }
  Segment segment = below.map(bytes, true);
  if (!segment.start) return segment;
  uintptr_t start = address_of(segment.start);
  if (start % huge_page_bytes != 0) {
    if (!below.release(segment.start, bytes)) return segment;
    segment = below.map(bytes + huge_page_bytes, true);
    if (!segment.start) return segment;
    const uintptr_t mapped = address_of(segment.start);
    start = round_up(mapped, huge_page_bytes);
    if (start > mapped) below.release(segment.start, start - mapped);
    below.release(pointer_to(start + bytes), mapped + huge_page_bytes - start);
  }
  return {pointer_to(start), Os::advise_huge_pages(pointer_to(start), bytes)};
}

template <size_t after_bytes, bool reserved = false, OperatingSystem Os = Linux>
struct HugePages {
  template <class Below>
  struct Over : Forward<Below> {
    static constexpr bool makes_huge = true;
    static constexpr size_t huge_after_bytes = after_bytes;
    size_t mapped_bytes = 0;

    Segment map(size_t bytes, bool for_blocks) {
      // A large block may stay empty for the most part; spans of small blocks are filled before others are
      // begun.
      const bool huge = for_blocks && mapped_bytes >= after_bytes && bytes >= huge_page_bytes &&
                        knobs.huge_pages != HugePageWish::off;
      const Segment segment =
          huge ? map_huge_segment<Os>(this->below, bytes, reserved) : this->below.map(bytes, for_blocks);
      if (segment.start && for_blocks) mapped_bytes += bytes;
      return segment;
    }

    bool may_hold_reserved() { return reserved; }

    // `start` and `bytes` are multiples of the size of a huge page.
    bool make_huge(void* start, size_t bytes) {
      return knobs.huge_pages != HugePageWish::off && Os::advise_huge_pages(start, bytes);
    }
  };
};
static_assert(Pages<Pipe<OsPages<>, HugePages<32_MiB>>>);

}  // namespace hs

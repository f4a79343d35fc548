// HugePages: segments mapped after the heap has grown beyond `after_bytes` are huge pages: transparent ones, or those
// that were `reserved` for such use, as long as there are any.
//
// Promise: a small program never holds a huge page it does not fill; a large one meets a page fault per 2
// MiB, as long as the system has them ready. Where transparent huge pages are switched off, the advice has no effect. Where reserved ones run out, one line on
// standard error says so. Price of reserved ones: they never go back to the kernel as less than 2 MiB, are not moved, and
// a forked child that writes to one needs another, or is ended by the kernel.
#pragma once

#include "os/linux.h"
#include "os/say.h"
#include "policy/knobs.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"

namespace hs {

// Whether huge pages are worth their first touch. On a virtual machine whose host has taken its unused memory back, one costs 4
// to 22 ms where it costs 0.25 ms otherwise and 512 small pages, which the kernel has at hand, 0.6 ms. So the first touch is
// timed now and then; where it was slow, what comes next is made of small pages.
template <class Os>
class FirstTouch {
 public:
  // Whether `bytes` more should be huge.
  bool is_worth_it(size_t bytes) {
    if (!is_slow_ || left_bytes_ == 0) return true;
    left_bytes_ -= smaller_of(bytes, left_bytes_);
    return false;
  }

  // Asks for huge pages from `start`, a multiple of their size; false where they turn out not to be worth it.
  bool advise(void* start, size_t bytes) {
    if (knobs.huge_pages == HugePageWish::transparent) return Os::advise_huge_pages(start, bytes);
    if (!is_slow_ && left_bytes_ > 0) {
      left_bytes_ -= smaller_of(bytes, left_bytes_);
    } else if (!try_one(start)) {
      return false;
    }
    return Os::advise_huge_pages(start, bytes);
  }

 private:
  static constexpr uint64_t slow_us = 1500;
  static constexpr size_t most_bytes = 256_MiB;

  bool try_one(void* start) {
    if (!Os::advise_huge_pages(start, huge_page_bytes)) return false;
    const uint64_t began_us = Os::now_us();
    Os::populate(start, huge_page_bytes);
    const bool is_slow = Os::now_us() - began_us >= slow_us;
    const size_t first_bytes = is_slow ? 16 * huge_page_bytes : huge_page_bytes;
    run_bytes_ = is_slow == is_slow_ && run_bytes_ > 0 ? smaller_of(2 * run_bytes_, most_bytes) : first_bytes;
    left_bytes_ = run_bytes_;
    is_slow_ = is_slow;
    return !is_slow;
  }

  bool is_slow_ = false;
  size_t run_bytes_ = 0;   // for how many the last time is taken to hold
  size_t left_bytes_ = 0;  // and how many of these are to come
};

// A segment of huge pages out of what `below` maps, at a multiple of them: reserved ones where wished and there, else
// transparent ones; `huge` in the answer says whether it is any.
template <class Os, class Below>
Segment map_huge_segment(Below& below, size_t bytes, bool reserved, FirstTouch<Os>& first_touch) {
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
  return {pointer_to(start), first_touch.advise(pointer_to(start), bytes)};
}

template <size_t after_bytes, bool reserved = false, OperatingSystem Os = Linux>
struct HugePages {
  template <class Below>
  struct Over : Forward<Below> {
    static constexpr bool makes_huge = true;
    static constexpr size_t huge_after_bytes = after_bytes;
    size_t mapped_bytes = 0;
    FirstTouch<Os> first_touch;

    Segment map(size_t bytes, bool for_blocks) {
      // A large block may stay empty for the most part; spans of small blocks are filled before others are
      // begun.
      const bool huge = for_blocks && mapped_bytes >= after_bytes && bytes >= huge_page_bytes &&
                        knobs.huge_pages != HugePageWish::off && first_touch.is_worth_it(bytes);
      const Segment segment =
          huge ? map_huge_segment<Os>(this->below, bytes, reserved, first_touch) : this->below.map(bytes, for_blocks);
      if (segment.start && for_blocks) mapped_bytes += bytes;
      return segment;
    }

    bool may_hold_reserved() { return reserved; }

    // `start` and `bytes` are multiples of the size of a huge page.
    bool make_huge(void* start, size_t bytes) {
      return knobs.huge_pages != HugePageWish::off && first_touch.is_worth_it(bytes) &&
             first_touch.advise(start, bytes);
    }
  };
};
static_assert(Pages<Pipe<OsPages<>, HugePages<32_MiB>>>);

}  // namespace hs

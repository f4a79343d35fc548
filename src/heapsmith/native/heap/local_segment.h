// The segments of local heaps: mapped at multiples of their size, and a few kept for the next heap, so that a heap for
// each request costs no system call.
#pragma once

#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "os/linux.h"
#include "policy/concepts.h"

namespace hs {

// The first bytes of a segment. One that holds spans has a class for each page; one that is a mapping of a single
// block has `block_bytes`.
struct LocalSegment {
  static constexpr size_t bytes = 4_MiB;
  static constexpr size_t page_count = bytes / page_bytes;
  static constexpr uint8_t medium = 255;  // in class_of_page: a block of whole pages

  LocalSegment* after;
  LocalSegment* before;
  void* owner;  // whoever the heap belongs to
  // Of a mapping of one block:
  size_t mapped_bytes;   // a multiple of a segment's size, so that neighbours can be put together
  size_t charged_bytes;  // that may be resident
  size_t block_bytes;
  bool is_kept;
  size_t warm_bytes;     // while it waits for the next heap
  uint32_t begun_pages;  // from the first on; those beyond were never used
  uint32_t free_pages;   // among the begun ones, in no span
  uint8_t class_of_page[page_count];
  uint8_t place_of_page[page_count];  // within its span; of a medium block's first page: the index of its page count
  // Only while pages are recycled, by the first page of each span; on a page that is not touched before.
  uint16_t free_blocks[page_count];

  static const size_t header_pages;
  static const size_t own_header_bytes;

  static LocalSegment* of(const void* block) { return pointer_to<LocalSegment>(round_down(address_of(block), bytes)); }
  static size_t page_of(const void* block) { return (address_of(block) & (bytes - 1)) >> page_shift; }
  uintptr_t address_of_page(size_t page) const { return address_of(this) + page * page_bytes; }

  // Pages in a row, free ones before unbegun ones; 0 where there are none.
  uintptr_t take(size_t wanted) {
    if (free_pages >= wanted) {
      size_t found = 0;
      for (size_t page = header_pages; page < begun_pages; page++) {
        found = class_of_page[page] == 0 ? found + 1 : 0;
        if (found < wanted) continue;
        free_pages -= static_cast<uint32_t>(wanted);
        return address_of_page(page + 1 - wanted);
      }
    }
    if (begun_pages + wanted > page_count) return 0;
    begun_pages += static_cast<uint32_t>(wanted);
    return address_of_page(begun_pages - wanted);
  }
};
inline constexpr size_t LocalSegment::header_pages = divide_up(sizeof(LocalSegment), page_bytes);
inline constexpr size_t LocalSegment::own_header_bytes = page_bytes;

template <Pages PagesType, OperatingSystem Os>
class LocalSegments {
 public:
  // A segment for spans, its description zeroed; its pages may be warm. nullptr where there is no memory.
  static LocalSegment* get(PagesType& pages) {
    for (LocalSegment*& place : waiting_) {
      LocalSegment* segment = load_relaxed(place);
      // Pairs with the release in `give`.
      if (segment && compare_exchange_acquire(place, segment, static_cast<LocalSegment*>(nullptr))) {
        fetch_add_relaxed(warm_bytes_, size_t{0} - segment->warm_bytes);
        return segment;
      }
    }
    return map(pages, LocalSegment::bytes);
  }

  // Takes a segment for spans back: to wait for the next heap, with as much of it warm as the page policy keeps where
  // nothing is live; or to the system.
  static void give(PagesType& pages, LocalSegment* segment) {
    const size_t begun_bytes = size_t{segment->begun_pages} << page_shift;
    const size_t keep_bytes = pages.keep_bytes(0);
    const size_t others_bytes = load_relaxed(warm_bytes_);
    const size_t warm_bytes = smaller_of(begun_bytes, keep_bytes - smaller_of(keep_bytes, others_bytes));
    if (warm_bytes >= LocalSegment::header_pages * page_bytes) {
      if (warm_bytes < begun_bytes) pages.purge(pointer_to(address_of(segment) + warm_bytes), begun_bytes - warm_bytes);
      memset(static_cast<void*>(segment), 0, offsetof(LocalSegment, class_of_page) + segment->begun_pages);
      segment->warm_bytes = warm_bytes;
      fetch_add_relaxed(warm_bytes_, warm_bytes);
      for (LocalSegment*& place : waiting_) {
        LocalSegment* expected = nullptr;
        if (__atomic_compare_exchange_n(&place, &expected, segment, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) return;
      }
      fetch_add_relaxed(warm_bytes_, size_t{0} - warm_bytes);
    }
    pages.release(segment, LocalSegment::bytes);
  }

  // A fresh mapping that begins at a multiple of a segment's size; it reads as zero.
  static LocalSegment* map(PagesType& pages, size_t bytes) {
    bytes = round_up(bytes, page_bytes);
    void* start = pages.map(bytes, true).start;
    if (!start || address_of(start) % LocalSegment::bytes == 0) return static_cast<LocalSegment*>(start);
    pages.release(start, bytes);
    start = pages.map(bytes + LocalSegment::bytes, true).start;
    if (!start) return nullptr;
    const uintptr_t mapped = address_of(start);
    const uintptr_t aligned = round_up(mapped, LocalSegment::bytes);
    if (aligned > mapped) pages.release(start, aligned - mapped);
    const size_t after_bytes = mapped + LocalSegment::bytes - aligned;
    if (after_bytes > 0) pages.release(pointer_to(aligned + bytes), after_bytes);
    return pointer_to<LocalSegment>(aligned);
  }
  static void unmap(PagesType& pages, LocalSegment* segment) { pages.release(segment, segment->mapped_bytes); }

 private:
  // For all heaps of this kind; a slot changes hands by one atomic exchange.
  static inline LocalSegment* waiting_[4];
  static inline size_t warm_bytes_;  // in all that wait
};

}  // namespace hs

// Size classes and pages of a local heap that are chosen when it is made, not when it is compiled.
#pragma once

#include "heap/local_segment.h"
#include "policy/concepts.h"
#include "policy/pages/os_pages.h"
#include "policy/sizes/geometric.h"
#include "policy/sizes/size_classes.h"

namespace hs {

class ChosenClasses {
 public:
  static constexpr unsigned most_classes = 250;
  static constexpr unsigned index_count = most_classes + 1;

  // False where the list is none that a heap can have.
  bool choose(const uint32_t* class_bytes, size_t class_count) {
    if (class_count == 0 || class_count > most_classes) return false;
    count_ = 0;
    alignment_ = page_bytes;
    for (size_t i = 0; i < class_count; i++) {
      const uint32_t bytes = class_bytes[i];
      if (bytes == 0 || bytes % 8 != 0 || (i > 0 && bytes <= class_bytes[i - 1])) return false;
      if (bytes > largest_small_bytes) continue;
      while (bytes % alignment_ != 0) alignment_ /= 2;
      bytes_[++count_] = bytes;
      span_pages_[count_] = static_cast<uint8_t>(Shapes::shape_of_class(bytes).span_pages);
    }
    unsigned index = 1;
    for (size_t entry = 0; entry <= fine_bytes / fine_grain; entry++) {
      while (index < count_ && bytes_[index] < entry * fine_grain) index++;
      fine_[entry] = static_cast<uint8_t>(index);
    }
    return true;
  }

  unsigned small_count() const { return count_; }
  size_t small_end_bytes() const { return count_ == 0 ? 0 : bytes_[count_] + size_t{1}; }
  // Precondition: requested_bytes < small_end_bytes().
  unsigned class_of(size_t requested_bytes) const {
    if (HS_LIKELY(requested_bytes <= fine_bytes)) return fine_[(requested_bytes + fine_grain - 1) / fine_grain];
    unsigned low = 1, high = count_;
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      if (bytes_[middle] < requested_bytes) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
  unsigned class_of_aligned(size_t alignment, size_t requested_bytes) const {
    if (alignment > page_bytes || requested_bytes >= small_end_bytes()) return 0;
    for (unsigned index = class_of(requested_bytes); index <= count_; index++)
      if (bytes_[index] % alignment == 0) return bytes_[index] <= 4 * larger_of(requested_bytes, alignment) ? index : 0;
    return 0;
  }
  size_t bytes_of(unsigned index) const { return bytes_[index]; }
  size_t span_pages(unsigned index) const { return span_pages_[index]; }
  size_t alignment() const { return alignment_; }

 private:
  using Shapes = SizeClasses<Geometric<16, 32768, 4>>;
  static constexpr size_t largest_small_bytes = 32_KiB;
  static constexpr size_t fine_grain = 8;
  static constexpr size_t fine_bytes = 1024;

  unsigned count_ = 0;
  size_t alignment_ = 16;
  uint32_t bytes_[index_count] = {};
  uint8_t span_pages_[index_count] = {};
  uint8_t fine_[fine_bytes / fine_grain + 1] = {};
};

struct ChosenPages : OsPages<> {
  size_t retain_bytes = unlimited_bytes;
  uint64_t retain_ms = ~uint64_t{0};
  // Mappings from here on are advised to become huge pages.
  size_t huge_from_bytes = unlimited_bytes;
  bool prefaults = false;

  // What waits for the next heap, of all heaps of the process: Python programs make one for each request as well.
  static constexpr size_t waiting_bytes = 1_MiB;

  // By the C library's names, so that whoever watches the process sees these mappings among its others.
  Segment map(size_t bytes, bool) {
    void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return {nullptr, false};
    return {start, bytes >= huge_from_bytes && Linux::advise_huge_pages(start, bytes)};
  }
  bool release(void* start, size_t bytes) { return munmap(start, bytes) == 0; }
  void touch(void* start, size_t bytes) {
    if (prefaults) Linux::populate(start, bytes);
  }
  size_t keep_bytes(size_t live_bytes) {
    if (live_bytes > 0) return retain_bytes;
    // Segments that may be made of huge pages are no use to heaps that did not ask for them.
    return huge_from_bytes <= LocalSegment::bytes ? 0 : waiting_bytes;
  }
  size_t rest_bytes(size_t live_bytes) { return keep_bytes(live_bytes); }
  uint64_t keep_ms() { return retain_ms; }
};
static_assert(Pages<ChosenPages>);

}  // namespace hs

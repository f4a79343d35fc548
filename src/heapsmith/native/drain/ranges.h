// The program's mappings: sorted, disjoint ranges, each an object until any part of it goes.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace hs::drain {

struct Range {
  uint64_t begin;
  uint64_t end;
  uint64_t object;
};

class Ranges {
 public:
  void close() { free(ranges_); }

  // Takes out every range that meets this one, whole; calls `gone` for each, then `left` for each of its parts outside.
  template <class Gone, class Left>
  void cut(uint64_t begin, uint64_t end, Gone gone, Left left) {
    size_t at = first_ending_after(begin);
    while (at < count_ && ranges_[at].begin < end) {
      const Range range = ranges_[at];
      memmove(ranges_ + at, ranges_ + at + 1, (count_ - at - 1) * sizeof(Range));
      --count_;
      gone(range);
      if (range.begin < begin) {
        insert({range.begin, begin, left(begin - range.begin)});
        ++at;
      }
      if (range.end > end) insert({end, range.end, left(range.end - end)});
    }
  }

  bool insert(const Range& range) {
    if (count_ == capacity_) {
      const size_t capacity = capacity_ == 0 ? 64 : capacity_ * 2;
      auto* more = static_cast<Range*>(realloc(ranges_, capacity * sizeof(Range)));
      if (more == nullptr) return false;
      ranges_ = more;
      capacity_ = capacity;
    }
    const size_t at = first_ending_after(range.begin);
    memmove(ranges_ + at + 1, ranges_ + at, (count_ - at) * sizeof(Range));
    ranges_[at] = range;
    ++count_;
    return true;
  }

 private:
  size_t first_ending_after(uint64_t address) const {
    size_t low = 0;
    size_t high = count_;
    while (low < high) {
      const size_t middle = low + (high - low) / 2;
      if (ranges_[middle].end <= address) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  Range* ranges_ = nullptr;
  size_t count_ = 0;
  size_t capacity_ = 0;
};

}  // namespace hs::drain

#include "probe/mappings.h"

#include <string.h>

#include "base/atomic.h"
#include "base/bounded_lock.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "probe/region.h"
#include "probe/thread.h"

namespace hs::probe {

namespace {

struct Range {
  uintptr_t begin;
  uintptr_t end;
};

// Twice what the kernel allows a process by default. Address space: a page is backed when ranges need it.
constexpr size_t kRangeCapacity = 131072;

// Invariant: sorted, disjoint; neighbours that touch stay apart, since they are unmapped apart as well.
Range* ranges = nullptr;
size_t range_count = 0;
BoundedLock ranges_lock;

size_t first_ending_after(uintptr_t address) {
  size_t low = 0;
  size_t high = range_count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (ranges[middle].end <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

bool make_room(size_t at, size_t more) {
  if (range_count + more > kRangeCapacity) return false;
  memmove(ranges + at + more, ranges + at, (range_count - at) * sizeof(Range));
  range_count += more;
  return true;
}

void remove(size_t at, size_t count) {
  memmove(ranges + at, ranges + at + count, (range_count - at - count) * sizeof(Range));
  range_count -= count;
}

// Answers the bytes that were followed in the range.
size_t cut(uintptr_t begin, uintptr_t end) {
  size_t cut_bytes = 0;
  size_t at = first_ending_after(begin);
  while (at < range_count && ranges[at].begin < end) {
    Range& range = ranges[at];
    const uintptr_t from = range.begin > begin ? range.begin : begin;
    const uintptr_t to = range.end < end ? range.end : end;
    cut_bytes += to - from;
    if (range.begin < from && to < range.end) {
      const Range behind = {to, range.end};
      if (!make_room(at + 1, 1)) {
        fetch_add_relaxed(region.header->lost_mappings, 1u);
      } else {
        ranges[at + 1] = behind;
      }
      ranges[at].end = from;
      return cut_bytes;
    }
    if (range.begin < from) {
      range.end = from;
      ++at;
    } else if (to < range.end) {
      range.begin = to;
      return cut_bytes;
    } else {
      remove(at, 1);
    }
  }
  return cut_bytes;
}

void change_mapped(int64_t bytes) {
  wire::RegionHeader& header = *region.header;
  const int64_t mapped_bytes = fetch_add_relaxed(header.mapped_bytes, bytes) + bytes;
  raise_to(header.mapped_bytes_peak, mapped_bytes);
}

// Counting needs a region; a thread's first call makes it.
bool begin_noting() {
  if (this_thread.slot == nullptr && attach() == nullptr && !can_share()) return false;
  if (!ranges_lock.lock(os::yield_processor)) {
    fetch_add_relaxed(region.header->lost_mappings, 1u);
    return false;
  }
  if (ranges == nullptr) ranges = static_cast<Range*>(os::map_private(kRangeCapacity * sizeof(Range)));
  if (ranges != nullptr) return true;
  ranges_lock.unlock();
  return false;
}

}  // namespace

void note_map(uintptr_t begin, size_t bytes) {
  const os::KeepErrno keep;
  if (!begin_noting()) return;
  const auto replaced_bytes = static_cast<int64_t>(cut(begin, begin + bytes));
  const size_t at = first_ending_after(begin);
  if (make_room(at, 1)) {
    ranges[at] = {begin, begin + bytes};
    fetch_add_relaxed(region.header->maps, 1u);
    change_mapped(static_cast<int64_t>(bytes) - replaced_bytes);
  } else {
    fetch_add_relaxed(region.header->lost_mappings, 1u);
    change_mapped(-replaced_bytes);
  }
  ranges_lock.unlock();
}

void note_unmap(uintptr_t begin, size_t bytes) {
  const os::KeepErrno keep;
  if (ranges == nullptr || !begin_noting()) return;
  const size_t cut_bytes = cut(begin, begin + bytes);
  if (cut_bytes != 0) {
    fetch_add_relaxed(region.header->unmaps, 1u);
    change_mapped(-static_cast<int64_t>(cut_bytes));
  }
  ranges_lock.unlock();
}

bool is_mapped(uintptr_t begin, size_t bytes) {
  const os::KeepErrno keep;
  if (ranges == nullptr || !begin_noting()) return false;
  const size_t at = first_ending_after(begin);
  const bool found = at < range_count && ranges[at].begin < begin + bytes;
  ranges_lock.unlock();
  return found;
}

namespace {
bool has_lock_for_fork = false;
}

void mappings_fork_prepare() { has_lock_for_fork = ranges_lock.lock(os::yield_processor); }

void mappings_fork_parent() {
  if (has_lock_for_fork) ranges_lock.unlock();
  has_lock_for_fork = false;
}

void mappings_fork_child() {
  ranges_lock.reset();
  has_lock_for_fork = false;
}

}  // namespace hs::probe

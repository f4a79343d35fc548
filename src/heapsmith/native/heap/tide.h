// Tide: how the pages in use rise and fall, and whether what a fall leaves will be wanted again.
//
// Promise: a fall to less than half of the highest level of the last second or two is an ebb, unless the program has
// lately made good at least half as large a fall: then it will again. An ebb ends when the level rises again. Nothing is
// decided from a single fall of less than `least_pages`.
#pragma once

#include <stdint.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "os/linux.h"

namespace hs {

// Changed under the lock of the page heap; whether there is an ebb may be asked by anybody.
class Tide {
 public:
  static constexpr uint64_t window_ms = 1000;
  static constexpr size_t least_pages = 4_MiB >> page_shift;

  void rise(size_t level) {
    if (level > now_.highest) {
      now_.highest = lowest_ = level;
      store_relaxed(is_ebb_, false);
      return;
    }
    if (level <= lowest_) return;
    now_.made_good = larger_of(now_.made_good, level - lowest_);
    if (is_ebb_ && level - lowest_ > least_pages / 4) store_relaxed(is_ebb_, false);
  }

  void fall(size_t from, size_t to, uint64_t now_ms) {
    if (now_ms - began_ms_ >= window_ms) {
      before_ = now_ms - began_ms_ < 2 * window_ms ? now_ : Window{0, 0};
      now_ = {from, 0};
      lowest_ = to;
      began_ms_ = now_ms;
    }
    lowest_ = smaller_of(lowest_, to);
    const size_t highest = larger_of(larger_of(now_.highest, before_.highest), from);
    const size_t depth = highest - to;
    const bool is_ebb =
        depth >= least_pages && depth >= highest / 2 && 2 * larger_of(now_.made_good, before_.made_good) < depth;
    if (is_ebb && (!is_ebb_ || to < told_at_ / 2)) {
      told_at_ = to;
      store_relaxed(ebbs_, ebbs_ + 1);
    }
    store_relaxed(is_ebb_, is_ebb);
  }

  bool is_ebb() const { return load_relaxed(is_ebb_); }
  // Becomes another number when an ebb begins, and whenever the level has halved since.
  uint32_t ebbs() const { return load_relaxed(ebbs_); }

 private:
  struct Window {
    size_t highest;
    size_t made_good;  // the largest rise after a fall, up to where it had fallen from
  };
  Window now_;
  Window before_;
  size_t lowest_;  // since the highest level of this window
  size_t told_at_;
  uint64_t began_ms_;
  uint32_t ebbs_;
  bool is_ebb_;
};

}  // namespace hs

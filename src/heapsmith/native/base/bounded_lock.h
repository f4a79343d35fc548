// A lock for the rare paths that gives up: whoever cannot have it counts a loss and goes on, so that a signal handler or
// a forked child never waits for an owner that will not come.
#pragma once

#include <stdint.h>

#include "base/atomic.h"

namespace hs {

class BoundedLock {
 public:
  // `yield` is called between attempts.
  template <class Yield>
  bool lock(Yield yield) {
    for (uint32_t attempt = 0; attempt < kAttempts; ++attempt) {
      uint32_t free = 0;
      if (compare_exchange_acquire(taken_, free, uint32_t{1})) return true;
      yield();
    }
    return false;
  }
  void unlock() { store_release(taken_, 0u); }
  // In a forked child, where the owner does not exist.
  void reset() { taken_ = 0; }

 private:
  static constexpr uint32_t kAttempts = 20000;
  uint32_t taken_ = 0;
};

}  // namespace hs

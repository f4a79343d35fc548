// SpinLock: never sleeps in a wait of its own; gives the processor away after a bounded spin.
//
// Promise: at most one holder; a preempted holder gets to run, because waiters yield.
#pragma once

#include "base/atomic.h"
#include "os/linux.h"
#include "policy/concepts.h"

namespace hs {

struct SpinLock {
  uint32_t word = 0;

  HS_FAST_PATH void lock() {
    while (HS_UNLIKELY(__atomic_exchange_n(&word, 1, __ATOMIC_ACQUIRE) != 0)) wait_until_free();
  }
  // Pairs with the acquire in `lock`.
  HS_FAST_PATH void unlock() { store_release(word, 0); }
  void reset() { word = 0; }

 private:
  HS_SLOW_PATH void wait_until_free() {
    for (int spin = 0; load_relaxed(word) != 0; spin++) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
      if (spin == 256) {
        system_call(SYS_sched_yield);
        spin = 0;
      }
    }
  }
};
static_assert(Lock<SpinLock>);

}  // namespace hs

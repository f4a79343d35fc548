// FutexLock: a short spin, then sleep in the kernel.
//
// Promise: at most one holder; a waiter costs no processor time once the holder is known to be slow.
// Invariant: word is 0 (free), 1 (held) or 2 (held, somebody may sleep).
#pragma once

#include "base/atomic.h"
#include "os/linux.h"
#include "os/single_thread.h"
#include "policy/concepts.h"

namespace hs {

struct FutexLock {
  uint32_t word = 0;

  HS_FAST_PATH void lock() {
    // Nobody to race, and no second thread can begin before `unlock`: an atomic instruction would only wait for the
    // stores into free blocks before it, which miss the caches.
    if (HS_LIKELY(is_single_threaded() && load_relaxed(word) == 0)) {
      store_relaxed(word, uint32_t{1});
      __asm__ volatile("" ::: "memory");
      return;
    }
    uint32_t expected = 0;
    if (HS_UNLIKELY(!compare_exchange_acquire(word, expected, uint32_t{1}))) lock_contended();
  }
  // Pairs with the acquire in `lock`.
  HS_FAST_PATH void unlock() {
    if (HS_LIKELY(is_single_threaded())) {
      __asm__ volatile("" ::: "memory");
      store_relaxed(word, uint32_t{0});
      return;
    }
    if (HS_UNLIKELY(__atomic_exchange_n(&word, 0, __ATOMIC_RELEASE) == 2)) Linux::wake_one(&word);
  }
  // For the child of a fork, which alone holds what its parent's forking thread locked.
  void reset() { word = 0; }

 private:
  HS_SLOW_PATH void lock_contended() {
    for (int spin = 0; spin < 64; spin++) {
      uint32_t expected = 0;
      if (load_relaxed(word) == 0 && compare_exchange_acquire(word, expected, uint32_t{1})) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    while (__atomic_exchange_n(&word, 2, __ATOMIC_ACQUIRE) != 0) Linux::wait(&word, 2);
  }
};
static_assert(Lock<FutexLock>);

}  // namespace hs

// The processor's counter, and a word that follows it and never goes back.
#pragma once

#include <stdint.h>

#include "base/atomic.h"

namespace hs {

// In step on all processors.
inline uint64_t read_stamp() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t value;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#else
#error "no counter is known for this processor"
#endif
}

// A store of another processor is seen within this, in counts of its counter: some microseconds.
#if defined(__x86_64__)
constexpr uint64_t kStoreDelay = 20000;
#else
constexpr uint64_t kStoreDelay = 1000;
#endif

// The word holds a stamp, and in so many bits below it a count of its changes. Moves it to now, but always on; answers what it
// is then. Stamps that have lost their upper bits are still told apart by their difference.
inline uint64_t move_on(uint64_t& word, uint64_t now, uint32_t count_bits) {
  const uint64_t count_mask = (uint64_t{1} << count_bits) - 1;
  uint64_t seen = load_relaxed(word);
  uint64_t next;
  do {
    next = now << count_bits;
    const uint64_t least = (seen | count_mask) + 1;
    if (static_cast<int64_t>(next - least) < 0) next = least;
    next |= (seen + 1) & count_mask;
  } while (!__atomic_compare_exchange_n(&word, &seen, next, true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  return next;
}

}  // namespace hs

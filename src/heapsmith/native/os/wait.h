// Waiting for a word of this process to change, and waking whoever waits: futexes, which a signal handler may
// wake.
#pragma once

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace hs::os {

// Returns when `word` is no longer `seen`, when woken, when a signal came, or when the time is over.
inline void wait_while(const uint32_t& word, uint32_t seen, uint64_t timeout_ns) {
  const timespec timeout = {static_cast<time_t>(timeout_ns / 1'000'000'000u),
                            static_cast<long>(timeout_ns % 1'000'000'000u)};
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, timeout_ns == UINT64_MAX ? nullptr : &timeout, nullptr, 0);
}

inline void wake_all(const uint32_t& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace hs::os

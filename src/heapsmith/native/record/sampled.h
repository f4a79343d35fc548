// Sampling: which births are recorded when not all are, and which deaths belong to them.
//
// A thread counts bytes down to its next sample, exponentially distributed, so that each byte of the program is as likely as
// any other to be the one; a death asks a filter by page, which is almost always empty, and then the exact set.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"

namespace hs::record {

inline constexpr uint32_t kFilterPages = 1u << 16;
extern uint16_t sampled_pages[kFilterPages];

HS_FAST_PATH uint16_t& page_of(const void* block) {
  return sampled_pages[(reinterpret_cast<uintptr_t>(block) >> 12) % kFilterPages];
}
HS_FAST_PATH bool may_be_sampled(const void* block) { return HS_UNLIKELY(load_relaxed(page_of(block)) != 0); }

// Bytes until the next sample, and how the countdown goes on.
struct Countdown {
  int64_t left_bytes;
  uint64_t random;
};

// The countdown has run out by this birth: whether it is sampled. (A new thread's first time only starts it.)
HS_SLOW_PATH bool draw(Countdown& countdown, size_t requested_bytes, uint64_t mean_bytes);

// Answers false where there is no room: then the block is not recorded at all.
bool remember_sampled(const void* block);
// Whether it was sampled; then it is no more.
bool forget_sampled(const void* block);
void sampled_fork_child();

}  // namespace hs::record

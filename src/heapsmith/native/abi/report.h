// The parts of a report that do not depend on who counts: what the allocator tells, what the kernel allows,
// what pools hold.
#pragma once

#include <stdint.h>

#include "abi/heapsmith.h"
#include "base/compiler.h"
#include "heap/told.h"
#include "os/limits.h"

namespace hs::report {

inline void say(hs_stats_t& stats, uint64_t field, uint64_t& place, uint64_t value, bool is_exact) {
  place = value;
  stats.valid |= field;
  if (is_exact) {
    stats.exact |= field;
  } else {
    stats.exact &= ~field;
  }
}

// Copies what the caller knows of; HS_INVALID_PARAMETER where that is nothing.
int hand_over(const hs_stats_t& full, hs_stats_t* to);
bool are_flags_known(unsigned flags);

void add_told(hs_stats_t& stats, const Told& told);

// The tightest of the cap (0 is none), the allocator's own limit and the kernel's bounds, each as heap bytes.
// `refresh` reads the kernel's; otherwise those of the last refresh hold.
void add_limit(hs_stats_t& stats, uint64_t cap_bytes, uint64_t warn_at_bytes, const Told& told, bool refresh,
               bool wants_raw);

// Where the pools' figures are kept; the region's table where there is one.
struct PoolFigures {
  char* name;
  int64_t* live_bytes;
  int64_t* live_bytes_peak;
  uint32_t* state;
  uint32_t* in_heap;
};
inline constexpr uint32_t kPoolNameBytes = 24;
PoolFigures pool_figures(uint32_t index);  // of whoever counts

void add_pools(hs_stats_t& stats, bool asks);
// In a forked child, whose region is new: the pools are still those of the program.
void tell_pools_again();

}  // namespace hs::report

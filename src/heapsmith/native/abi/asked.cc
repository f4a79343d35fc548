// heapsmith.h without a probe: what the allocator itself tells and what the kernel allows; what would have to
// be counted is not valid. A preloaded heapsmith comes first among a program's libraries, and then these are
// not called.
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#include "abi/report.h"
#include "base/atomic.h"
#include "os/process.h"
#include "wire/region.h"

namespace {

using namespace hs;
using report::say;

wire::Pool own_pools[wire::kPoolCapacity];

}  // namespace

namespace hs::report {

PoolFigures pool_figures(uint32_t index) {
  wire::Pool& pool = own_pools[index];
  return {pool.name, &pool.live_bytes, &pool.live_bytes_peak, &pool.state, &pool.in_heap};
}

}  // namespace hs::report

extern "C" {

HS_EXPORT int hs_stats_get(hs_stats_t* stats, unsigned flags) {
  if (stats == nullptr || stats->size < offsetof(hs_stats_t, valid) || !report::are_flags_known(flags)) {
    return HS_INVALID_PARAMETER;
  }
  // Allocators answer under their locks.
  if ((flags & HS_EXACT) == 0) return HS_UNSUPPORTED;
  const os::KeepErrno keep;
  static uint64_t sequence = 0;
  hs_stats_t full = {};
  full.version = HS_STATS_VERSION;
  full.mode = HS_MODE_ASKED;
  full.time_ns = os::monotonic_ns();
  full.sequence = __atomic_add_fetch(&sequence, 1u, __ATOMIC_RELAXED);
  const Told told = ask_allocator(dlsym(RTLD_DEFAULT, "malloc"));
  report::add_told(full, told);
  if ((told.valid & kToldCurrent) != 0) {
    full.count_unit = full.allocator_unit;
    say(full, HS_F_CURRENT, full.current_bytes, told.current_bytes, (told.exact & kToldCurrent) != 0);
  }
  if (const uint64_t bytes = os::resident_bytes(); bytes != 0) {
    say(full, HS_F_RESIDENT, full.resident_bytes, bytes, true);
  }
  report::add_pools(full, true);
  report::add_limit(full, 0, 0, told, true, (flags & HS_RAW_LIMIT) != 0);
  return report::hand_over(full, stats);
}

HS_EXPORT int hs_peak_reset(hs_peak_t*) { return HS_UNSUPPORTED; }
HS_EXPORT int hs_peak_read(const hs_peak_t*, uint64_t*, uint64_t*) { return HS_UNSUPPORTED; }
HS_EXPORT int hs_peak_end(const hs_peak_t*, uint64_t*, uint64_t*) { return HS_UNSUPPORTED; }
HS_EXPORT int hs_limit_set(uint64_t, unsigned) { return HS_UNSUPPORTED; }
HS_EXPORT int hs_watch(uint64_t, uint64_t, hs_crossing_fn, void*, uint32_t*) { return HS_UNSUPPORTED; }
HS_EXPORT int hs_watch_wait(uint32_t, uint64_t, hs_crossing_t*) { return HS_UNSUPPORTED; }
HS_EXPORT int hs_watch_end(uint32_t) { return HS_UNSUPPORTED; }
HS_EXPORT int hs_on_failure(hs_failure_fn, void*) { return HS_UNSUPPORTED; }

}  // extern "C"

#include "abi/report.h"

#include <string.h>

#include "base/atomic.h"
#include "base/bounded_lock.h"
#include "os/process.h"
#include "wire/region.h"

namespace hs::report {

namespace {

static_assert(static_cast<uint32_t>(os::LimitSource::kPhysical) == HS_SOURCE_PHYSICAL);
static_assert(static_cast<uint32_t>(os::LimitSource::kCgroup1) == HS_SOURCE_CGROUP1);
static_assert(static_cast<uint32_t>(os::LimitEffect::kThrottle) == HS_EFFECT_THROTTLE);
static_assert(kToldCurrent == HS_F_ALLOCATOR_CURRENT && kToldFreeCached == HS_F_FREE_CACHED);
static_assert(sizeof(Told{}.name) == sizeof(hs_stats_t{}.allocator));

// The kernel's bounds at the last refresh, as heap bytes: what was live then and what was available.
struct {
  uint64_t heap_bytes;
  uint64_t raw_bytes;
  uint64_t soft_heap_bytes;
  uint32_t source;
  uint32_t effect;
} last_bounds;

struct Tightest {
  uint64_t heap_bytes = UINT64_MAX;
  uint64_t raw_bytes = 0;
  uint32_t source = HS_SOURCE_NONE;
  uint32_t effect = HS_EFFECT_NONE;

  void meet(uint64_t candidate_bytes, uint64_t candidate_raw_bytes, uint32_t its_source, uint32_t its_effect) {
    if (candidate_bytes >= heap_bytes) return;
    heap_bytes = candidate_bytes;
    raw_bytes = candidate_raw_bytes;
    source = its_source;
    effect = its_effect;
  }
};

uint64_t sum_or_most(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

void refresh_bounds(uint64_t current_bytes) {
  const os::Bounds bounds = os::read_bounds();
  store_relaxed(last_bounds.heap_bytes, sum_or_most(current_bytes, bounds.hard.available_bytes));
  store_relaxed(last_bounds.raw_bytes, bounds.hard.limit_bytes);
  store_relaxed(last_bounds.soft_heap_bytes, bounds.soft.source == os::LimitSource::kNone
                                                 ? 0
                                                 : sum_or_most(current_bytes, bounds.soft.available_bytes));
  store_relaxed(last_bounds.source, static_cast<uint32_t>(bounds.hard.source));
  store_relaxed(last_bounds.effect, static_cast<uint32_t>(bounds.hard.effect));
}

struct Pool {
  hs_pool_fn ask;
  void* argument;
  uint32_t generation;  // odd while in use
  char name[kPoolNameBytes];
  bool in_heap;
};
Pool pools[wire::kPoolCapacity];
BoundedLock pools_lock;

bool is_current(uint32_t pool) {
  const uint32_t index = pool % wire::kPoolCapacity;
  const uint32_t generation = load_acquire(pools[index].generation);
  return generation % 2 == 1 && pool == generation * wire::kPoolCapacity + index;
}

void tell(uint32_t index) {
  const PoolFigures figures = pool_figures(index);
  memcpy(figures.name, pools[index].name, kPoolNameBytes);
  store_relaxed(*figures.in_heap, pools[index].in_heap ? 1u : 0u);
  store_release(*figures.state, static_cast<uint32_t>(wire::SlotState::kAlive));
}

void note(uint32_t index, uint64_t live_bytes) {
  const PoolFigures figures = pool_figures(index);
  store_relaxed(*figures.live_bytes, live_bytes);
  raise_to(*figures.live_bytes_peak, static_cast<int64_t>(live_bytes));
}

}  // namespace

int hand_over(const hs_stats_t& full, hs_stats_t* to) {
  const uint32_t bytes = to->size < sizeof full ? to->size : static_cast<uint32_t>(sizeof full);
  memcpy(reinterpret_cast<char*>(to) + sizeof to->size, reinterpret_cast<const char*>(&full) + sizeof full.size,
         bytes - sizeof full.size);
  return HS_OK;
}

bool are_flags_known(unsigned flags) { return (flags & ~(HS_EXACT | HS_RAW_LIMIT)) == 0; }

void add_told(hs_stats_t& stats, const Told& told) {
  memcpy(stats.allocator, told.name, sizeof stats.allocator);
  stats.allocator_unit = static_cast<uint32_t>(told.unit);
  stats.allocator_current_bytes = told.current_bytes;
  stats.committed_bytes = told.committed_bytes;
  stats.reserved_bytes = told.reserved_bytes;
  stats.metadata_bytes = told.metadata_bytes;
  stats.free_cached_bytes = told.free_cached_bytes;
  stats.valid |= told.valid & ~kToldLimit;
  stats.exact |= told.exact & ~kToldLimit;
}

void add_limit(hs_stats_t& stats, uint64_t cap_bytes, uint64_t warn_at_bytes, const Told& told, bool refresh,
               bool wants_raw) {
  const bool knows_current = (stats.valid & HS_F_CURRENT) != 0;
  const uint64_t current_bytes = knows_current ? stats.current_bytes : 0;
  if (refresh) refresh_bounds(current_bytes);
  Tightest tightest;
  if (cap_bytes != 0) tightest.meet(cap_bytes, cap_bytes, HS_SOURCE_CAP, HS_EFFECT_NULL);
  if ((told.valid & kToldLimit) != 0) {
    tightest.meet(told.limit_bytes, told.limit_bytes, HS_SOURCE_ALLOCATOR, HS_EFFECT_NULL);
  }
  if (const uint32_t source = load_relaxed(last_bounds.source); source != HS_SOURCE_NONE) {
    tightest.meet(load_relaxed(last_bounds.heap_bytes), load_relaxed(last_bounds.raw_bytes), source,
                  load_relaxed(last_bounds.effect));
  }
  const uint64_t soft_heap_bytes = load_relaxed(last_bounds.soft_heap_bytes);
  const uint64_t soft_bytes =
      warn_at_bytes != 0 && (soft_heap_bytes == 0 || warn_at_bytes < soft_heap_bytes) ? warn_at_bytes : soft_heap_bytes;
  if (soft_bytes != 0) say(stats, HS_F_SOFT_LIMIT, stats.soft_limit_bytes, soft_bytes, soft_bytes == warn_at_bytes);
  if (tightest.source == HS_SOURCE_NONE) return;
  const bool is_exact = tightest.source == HS_SOURCE_CAP;
  const uint64_t heap_bytes = tightest.heap_bytes > current_bytes ? tightest.heap_bytes : current_bytes;
  say(stats, HS_F_LIMIT, stats.limit_bytes, wants_raw ? tightest.raw_bytes : heap_bytes, is_exact || wants_raw);
  stats.limit_source = tightest.source;
  stats.limit_effect = tightest.effect;
  if (!knows_current) return;
  const bool current_is_exact = (stats.exact & HS_F_CURRENT) != 0;
  say(stats, HS_F_AVAILABLE, stats.available_bytes, heap_bytes - current_bytes, is_exact && current_is_exact);
  if (told.largest_request == nullptr) return;
  say(stats, HS_F_LARGEST_BLOCK, stats.largest_block_bytes, told.largest_request(stats.available_bytes), false);
}

void add_pools(hs_stats_t& stats, bool asks) {
  uint64_t sum_bytes = 0;
  bool is_any = false;
  for (uint32_t index = 0; index < wire::kPoolCapacity; ++index) {
    Pool& pool = pools[index];
    if (load_acquire(pool.generation) % 2 == 0) continue;
    if (asks && pool.ask != nullptr) note(index, pool.ask(pool.argument));
    is_any = true;
    if (!pool.in_heap) sum_bytes += static_cast<uint64_t>(load_relaxed(*pool_figures(index).live_bytes));
  }
  if (is_any) say(stats, HS_F_POOLS, stats.pool_bytes, sum_bytes, true);
}

void tell_pools_again() {
  pools_lock.reset();
  for (uint32_t index = 0; index < wire::kPoolCapacity; ++index) {
    if (pools[index].generation % 2 == 1) tell(index);
  }
}

}  // namespace hs::report

using namespace hs;
using namespace hs::report;

extern "C" {

HS_EXPORT int hs_pool_register(const char* name, unsigned flags, hs_pool_fn live_bytes, void* argument,
                               uint32_t* pool) {
  if (name == nullptr || pool == nullptr || (flags & ~HS_POOL_IN_HEAP) != 0) return HS_INVALID_PARAMETER;
  if (!pools_lock.lock(os::yield_processor)) return HS_FAILURE;
  int result = HS_OUT_OF_MEMORY;
  for (uint32_t index = 0; index < wire::kPoolCapacity; ++index) {
    Pool& place = pools[index];
    if (place.generation % 2 == 1) continue;
    place.ask = live_bytes;
    place.argument = argument;
    place.in_heap = (flags & HS_POOL_IN_HEAP) != 0;
    strncpy(place.name, name, kPoolNameBytes - 1);
    *pool_figures(index).live_bytes = *pool_figures(index).live_bytes_peak = 0;
    tell(index);
    store_release(place.generation, place.generation + 1);
    *pool = place.generation * wire::kPoolCapacity + index;
    result = HS_OK;
    break;
  }
  pools_lock.unlock();
  return result;
}

HS_EXPORT int hs_pool_set(uint32_t pool, uint64_t live_bytes) {
  if (!is_current(pool)) return HS_INVALID_PARAMETER;
  note(pool % wire::kPoolCapacity, live_bytes);
  return HS_OK;
}

HS_EXPORT int hs_pool_end(uint32_t pool) {
  if (!pools_lock.lock(os::yield_processor)) return HS_FAILURE;
  const bool ended = is_current(pool);
  if (ended) {
    const uint32_t index = pool % wire::kPoolCapacity;
    store_release(pools[index].generation, pools[index].generation + 1);
    store_release(*pool_figures(index).state, static_cast<uint32_t>(wire::SlotState::kFree));
  }
  pools_lock.unlock();
  return ended ? HS_OK : HS_INVALID_PARAMETER;
}

}  // extern "C"

// heapsmith.h over the probe: the program is watched, every field that counters can answer is answered.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "abi/heap.h"
#include "abi/report.h"
#include "base/atomic.h"
#include "os/process.h"
#include "os/wait.h"
#include "probe/account.h"
#include "probe/attention.h"
#include "probe/count.h"
#include "probe/failure.h"
#include "probe/region.h"
#include "probe/size_class.h"
#include "probe/thread.h"

namespace {

using namespace hs;
using report::say;

constexpr uint32_t kAlive = static_cast<uint32_t>(wire::SlotState::kAlive);

uint64_t not_negative(int64_t bytes) { return bytes > 0 ? static_cast<uint64_t>(bytes) : 0; }

// A forked child has no region before its first allocation.
bool has_region() {
  if (HS_LIKELY(probe::region.header != nullptr)) return true;
  probe::attach();
  return probe::region.header != nullptr;
}

bool is_counted() { return has_region() && probe::region.header->malloc_is_ours != 0; }

bool is_python(uint32_t kind) { return kind % 2 == static_cast<uint32_t>(wire::SlotKind::kPython); }
bool is_inherited(uint32_t kind) { return kind >= static_cast<uint32_t>(wire::SlotKind::kInheritedNative); }

int64_t sum_live_bytes() {
  int64_t bytes = load_acquire(probe::region.header->published_live_bytes);
  const uint32_t used = load_acquire(probe::region.header->slots_used);
  for (uint32_t index = wire::kSharedSlots; index < used; ++index) {
    const wire::Slot& slot = probe::region.slots[index];
    if (load_relaxed(slot.state) != kAlive) continue;
    bytes += load_relaxed(slot.live_bytes) - load_relaxed(slot.published_bytes);
  }
  return bytes;
}

// Sums until two sums agree: then nobody moved in between. Otherwise what they differ by is how much is not
// known.
int64_t sum_settled_live_bytes(int64_t& error_bound_bytes) {
  constexpr int kAttempts = 4;
  int64_t before = sum_live_bytes();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int64_t now = sum_live_bytes();
    error_bound_bytes = now > before ? now - before : before - now;
    if (error_bound_bytes == 0) return now;
    before = now;
  }
  return before;
}

struct Sums {
  uint64_t allocations = 0;
  uint64_t frees = 0;
  uint64_t allocated_bytes = 0;
  uint64_t freed_bytes = 0;
  int64_t live_blocks = 0;
  int64_t python_bytes = 0;
  bool bytes_are_exact = true;

  void add(const wire::Slot& slot, uint64_t native_excess_bytes) {
    const bool python = is_python(slot.kind);
    const bool inherited = is_inherited(slot.kind);
    for (uint32_t index = 0; index < wire::kClassCount; ++index) {
      const wire::Cell& cell = slot.cells[index];
      const uint64_t now_allocations = load_relaxed(cell.allocations);
      const int64_t blocks = probe::live_blocks(cell);
      const uint64_t now_frees = now_allocations - static_cast<uint64_t>(blocks);
      if (now_allocations == 0 && now_frees == 0) continue;
      const bool is_coarse = index >= wire::kFineClasses;
      uint64_t usable_bytes = 16 * index + (python && index <= 32 ? 0 : native_excess_bytes);
      if (is_coarse) {  // half way between its bounds
        const uint64_t upper =
            index + 1 < wire::kClassCount ? wire::kClassBytes[index] : 2 * wire::kClassBytes[index - 1];
        usable_bytes = wire::kClassBytes[index - 1] / 2 + upper / 2;
        bytes_are_exact = false;
      }
      live_blocks += blocks;
      if (python) {
        python_bytes += is_coarse ? load_relaxed(slot.large[index - wire::kFineClasses].live_bytes)
                                  : blocks * static_cast<int64_t>(usable_bytes);
      }
      if (inherited) continue;
      allocations += now_allocations;
      frees += now_frees;
      allocated_bytes += now_allocations * usable_bytes;
      freed_bytes += now_frees * usable_bytes;
    }
  }
};

void add_sums(hs_stats_t& stats) {
  const wire::RegionHeader& header = *probe::region.header;
  // Usable sizes are 8 above a multiple of 16 in glibc.
  const uint64_t excess_bytes = header.allocator == static_cast<uint32_t>(wire::Allocator::kGlibc) ? 8 : 0;
  Sums sums;
  const uint32_t used = load_acquire(header.slots_used);
  for (uint32_t index = 0; index < used; ++index) {
    const wire::Slot& slot = probe::region.slots[index];
    if (load_relaxed(slot.state) == kAlive) sums.add(slot, excess_bytes);
  }
  const bool is_settled = (stats.exact & HS_F_CURRENT) != 0;
  say(stats, HS_F_BLOCKS, stats.live_blocks, not_negative(sums.live_blocks), is_settled);
  say(stats, HS_F_ALLOCATIONS, stats.allocations, sums.allocations, is_settled);
  say(stats, HS_F_FREES, stats.frees, sums.frees, is_settled);
  say(stats, HS_F_ALLOCATED, stats.allocated_bytes, sums.allocated_bytes, is_settled && sums.bytes_are_exact);
  say(stats, HS_F_FREED, stats.freed_bytes, sums.freed_bytes, is_settled && sums.bytes_are_exact);
  if (header.python_state == static_cast<uint32_t>(wire::PythonState::kCounted)) {
    say(stats, HS_F_PYTHON, stats.python_bytes, not_negative(sums.python_bytes), is_settled);
  }
}

void add_counters(hs_stats_t& stats, bool is_exact) {
  const wire::RegionHeader& header = *probe::region.header;
  int64_t error_bound_bytes = 0;
  const int64_t live_bytes =
      is_exact ? sum_settled_live_bytes(error_bound_bytes) : probe::estimate_live_bytes(error_bound_bytes);
  const uint64_t current_bytes = not_negative(live_bytes);
  stats.count_unit = HS_UNIT_USABLE;
  stats.error_bound_bytes = static_cast<uint64_t>(error_bound_bytes);
  say(stats, HS_F_CURRENT, stats.current_bytes, current_bytes, error_bound_bytes == 0);
  const uint64_t peak_bytes = not_negative(load_relaxed(header.live_bytes_peak));
  const uint64_t at_most_bytes = not_negative(load_relaxed(header.live_bytes_peak_at_most));
  stats.peak_error_bound_bytes = at_most_bytes > peak_bytes ? at_most_bytes - peak_bytes : 0;
  say(stats, HS_F_PEAK, stats.peak_bytes, peak_bytes > current_bytes ? peak_bytes : current_bytes,
      stats.peak_error_bound_bytes == 0);
  say(stats, HS_F_FAILURES, stats.failures,
      load_relaxed(header.refused) + load_relaxed(header.out_of_memory) + load_relaxed(header.overflowed), true);
  if (stats.failures != 0) {
    say(stats, HS_F_LAST_FAILED, stats.last_failed_bytes, load_relaxed(header.last_failed_bytes), true);
  }
  say(stats, HS_F_THREADS, stats.threads, probe::count_writers(), true);
}

void publish_told(const Told& told) {
  wire::RegionHeader& header = *probe::region.header;
  store_relaxed(header.told_version, HS_STATS_VERSION);
  store_relaxed(header.told_fields, told.valid & ~static_cast<uint64_t>(kToldLimit | kToldCurrent));
  store_relaxed(header.told_committed_bytes, told.committed_bytes);
  store_relaxed(header.told_reserved_bytes, told.reserved_bytes);
  store_relaxed(header.told_metadata_bytes, told.metadata_bytes);
  store_relaxed(header.told_free_cached_bytes, told.free_cached_bytes);
  store_release(header.told_ns, os::monotonic_coarse_ns());
}

// For the fast call, which asks nobody: what does not change, from the last exact one.
Told last_told;

void fill(hs_stats_t& stats, unsigned flags) {
  static uint64_t sequence = 0;
  const bool is_exact = (flags & HS_EXACT) != 0;
  stats.version = HS_STATS_VERSION;
  stats.mode = HS_MODE_WATCHED;
  stats.time_ns = is_exact ? os::monotonic_ns() : os::monotonic_coarse_ns();
  stats.sequence = __atomic_add_fetch(&sequence, 1u, __ATOMIC_RELAXED);
  const wire::RegionHeader& header = *probe::region.header;
  const bool counts = header.malloc_is_ours != 0;
  Told fixed;
  Told* told = &last_told;
  if (is_exact) {
    fixed = ask_allocator(reinterpret_cast<const void*>(TheHeap::functions().allocate));
    told = &fixed;
    last_told.largest_request = fixed.largest_request;
    memcpy(last_told.name, fixed.name, sizeof fixed.name);
    if (counts) publish_told(fixed);
  }
  if (counts) {
    add_counters(stats, is_exact);
    report::add_told(stats, *told);
  }
  say(stats, HS_F_MAPPED, stats.mapped_bytes, not_negative(load_relaxed(header.mapped_bytes)),
      header.lost_mappings == 0);
  if (header.python_state != static_cast<uint32_t>(wire::PythonState::kNoPython)) {
    say(stats, HS_F_PYTHON_ARENAS, stats.python_arena_bytes, not_negative(load_relaxed(header.python_arena_bytes)),
        true);
  }
  if (is_exact) {
    if (counts) add_sums(stats);
    if (const uint64_t bytes = os::resident_bytes(); bytes != 0) {
      say(stats, HS_F_RESIDENT, stats.resident_bytes, bytes, true);
    }
  }
  report::add_pools(stats, is_exact);
  report::add_limit(stats, load_relaxed(probe::region.control->limit_bytes),
                    load_relaxed(probe::region.control->warn_at_bytes), *told, is_exact, (flags & HS_RAW_LIMIT) != 0);
}

// A watch or scope, as one number: its generation tells those apart that had the same place.
constexpr uint32_t kIndexBits = 6;
uint32_t watch_number(uint32_t index, uint32_t generation) { return generation << kIndexBits | index; }

probe::Watch* find_watch(uint32_t number, uint32_t& generation) {
  const uint32_t index = number & ((1u << kIndexBits) - 1);
  if (index >= probe::kWatchCapacity) return nullptr;
  probe::Watch& watch = probe::watches[index];
  generation = load_acquire(watch.generation);
  if (generation % 2 == 0 || watch_number(index, generation) != number) return nullptr;
  return &watch;
}

struct Delivery {
  uint32_t watch;
  hs_crossing_fn callback;
  void* argument;
};
Delivery deliveries[probe::kWatchCapacity];

void* deliver(void* of) {
  const Delivery delivery = *static_cast<const Delivery*>(of);
  pthread_setname_np(pthread_self(), "heapsmith");
  hs_crossing_t crossing;
  for (;;) {
    const int result = hs_watch_wait(delivery.watch, UINT64_MAX, &crossing);
    if (result == HS_INVALID_PARAMETER) return nullptr;
    if (result == HS_OK) delivery.callback(&crossing, delivery.argument);
  }
}

bool start_delivery(Delivery& delivery) {
  constexpr size_t kStackBytes = 256 * 1024;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  // Signals are the program's: they go to its own threads.
  sigset_t every;
  sigset_t before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, deliver, &delivery) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

hs_failure_fn on_failure = nullptr;
void* on_failure_argument = nullptr;
__thread bool is_telling_failure;

void pass_on_failure(size_t requested_bytes, bool is_refused) {
  hs_failure_fn callback = load_acquire(on_failure);
  if (callback == nullptr || is_telling_failure) return;
  const os::KeepErrno keep;
  is_telling_failure = true;
  callback(requested_bytes, is_refused ? 1 : 0, on_failure_argument);
  is_telling_failure = false;
}

}  // namespace

namespace hs::report {

PoolFigures pool_figures(uint32_t index) {
  wire::Pool& pool = probe::region.header->pools[index];
  return {pool.name, &pool.live_bytes, &pool.live_bytes_peak, &pool.state, &pool.in_heap};
}

}  // namespace hs::report

extern "C" {

HS_EXPORT int hs_stats_get(hs_stats_t* stats, unsigned flags) {
  if (stats == nullptr || stats->size < offsetof(hs_stats_t, valid) || !report::are_flags_known(flags)) {
    return HS_INVALID_PARAMETER;
  }
  const os::KeepErrno keep;
  if (!has_region()) return HS_FAILURE;
  hs_stats_t full = {};
  fill(full, flags);
  return report::hand_over(full, stats);
}

HS_EXPORT int hs_peak_reset(hs_peak_t* scope) {
  if (scope == nullptr) return HS_INVALID_PARAMETER;
  const os::KeepErrno keep;
  if (!is_counted()) return HS_UNSUPPORTED;
  int64_t error_bound_bytes = 0;
  const int64_t live_bytes = sum_settled_live_bytes(error_bound_bytes);
  return probe::open_scope(live_bytes, error_bound_bytes, scope->scope, scope->generation) ? HS_OK : HS_OUT_OF_MEMORY;
}

HS_EXPORT int hs_peak_read(const hs_peak_t* scope, uint64_t* peak_bytes, uint64_t* error_bound_bytes) {
  if (scope == nullptr || peak_bytes == nullptr || scope->scope >= probe::kScopeCapacity) return HS_INVALID_PARAMETER;
  const os::KeepErrno keep;
  if (!is_counted()) return HS_UNSUPPORTED;
  const probe::Scope& place = probe::scopes[scope->scope];
  int64_t now_bound_bytes = 0;
  const int64_t now_bytes = sum_settled_live_bytes(now_bound_bytes);
  const int64_t highest_bytes = load_relaxed(place.peak_bytes);
  const int64_t at_most_bytes = load_relaxed(place.peak_at_most_bytes);
  if (load_acquire(place.generation) != scope->generation) return HS_INVALID_PARAMETER;
  const int64_t peak = now_bytes > highest_bytes ? now_bytes : highest_bytes;
  *peak_bytes = not_negative(peak);
  if (error_bound_bytes != nullptr) *error_bound_bytes = not_negative(at_most_bytes - peak);
  return HS_OK;
}

HS_EXPORT int hs_peak_end(const hs_peak_t* scope, uint64_t* peak_bytes, uint64_t* error_bound_bytes) {
  uint64_t unwanted = 0;
  const int result = hs_peak_read(scope, peak_bytes != nullptr ? peak_bytes : &unwanted, error_bound_bytes);
  if (result != HS_OK) return result;
  return probe::close_scope(scope->scope, scope->generation) ? HS_OK : HS_INVALID_PARAMETER;
}

HS_EXPORT int hs_limit_set(uint64_t limit_bytes, unsigned flags) {
  if ((flags & ~HS_LIMIT_FORCE) != 0 || limit_bytes > INT64_MAX) return HS_INVALID_PARAMETER;
  const os::KeepErrno keep;
  if (!is_counted()) return HS_UNSUPPORTED;
  int64_t error_bound_bytes = 0;
  const int64_t live_bytes = sum_settled_live_bytes(error_bound_bytes);
  if (limit_bytes != 0 && (flags & HS_LIMIT_FORCE) == 0 && static_cast<int64_t>(limit_bytes) < live_bytes) {
    return HS_FAILURE;
  }
  probe::wish_limit(limit_bytes);
  return HS_OK;
}

HS_EXPORT int hs_watch(uint64_t threshold_bytes, uint64_t hysteresis_bytes, hs_crossing_fn callback, void* argument,
                       uint32_t* watch) {
  if (threshold_bytes == 0 || threshold_bytes > INT64_MAX || watch == nullptr) return HS_INVALID_PARAMETER;
  const os::KeepErrno keep;
  if (!is_counted()) return HS_UNSUPPORTED;
  const uint64_t below_bytes = hysteresis_bytes < threshold_bytes ? hysteresis_bytes : threshold_bytes;
  uint32_t index = 0;
  uint32_t generation = 0;
  if (!probe::open_watch(static_cast<int64_t>(threshold_bytes), static_cast<int64_t>(threshold_bytes - below_bytes),
                         index, generation)) {
    return HS_OUT_OF_MEMORY;
  }
  *watch = watch_number(index, generation);
  if (callback == nullptr) return HS_OK;
  deliveries[index] = {*watch, callback, argument};
  if (start_delivery(deliveries[index])) return HS_OK;
  probe::close_watch(index, generation);
  return HS_FAILURE;
}

HS_EXPORT int hs_watch_wait(uint32_t watch, uint64_t timeout_ns, hs_crossing_t* crossing) {
  if (crossing == nullptr) return HS_INVALID_PARAMETER;
  const os::KeepErrno keep;
  const uint64_t end_ns = timeout_ns == UINT64_MAX ? UINT64_MAX : os::monotonic_ns() + timeout_ns;
  for (;;) {
    uint32_t generation = 0;
    probe::Watch* found = find_watch(watch, generation);
    if (found == nullptr) return HS_INVALID_PARAMETER;
    // Pairs with the release in compare_with_watches.
    const uint32_t crossings = load_acquire(found->crossings);
    const uint32_t delivered = load_relaxed(found->delivered);
    if (crossings != delivered) {
      store_relaxed(found->delivered, crossings);
      *crossing = {watch, crossings - delivered, static_cast<uint64_t>(load_relaxed(found->threshold_bytes)),
                   not_negative(load_relaxed(found->crossed_at_bytes)), load_relaxed(found->crossed_ns)};
      return HS_OK;
    }
    const uint64_t now_ns = end_ns == UINT64_MAX ? 0 : os::monotonic_ns();
    if (now_ns >= end_ns) return HS_FAILURE;
    os::wait_while(found->crossings, crossings, end_ns == UINT64_MAX ? UINT64_MAX : end_ns - now_ns);
  }
}

HS_EXPORT int hs_watch_end(uint32_t watch) {
  uint32_t generation = 0;
  probe::Watch* found = find_watch(watch, generation);
  if (found == nullptr) return HS_INVALID_PARAMETER;
  return probe::close_watch(static_cast<uint32_t>(found - probe::watches), generation) ? HS_OK : HS_INVALID_PARAMETER;
}

HS_EXPORT int hs_on_failure(hs_failure_fn callback, void* argument) {
  if (!is_counted()) return HS_UNSUPPORTED;
  store_release(on_failure, nullptr);
  on_failure_argument = argument;
  store_release(on_failure, callback);
  store_release(probe::failure_listener, callback != nullptr ? pass_on_failure : nullptr);
  return HS_OK;
}

}  // extern "C"

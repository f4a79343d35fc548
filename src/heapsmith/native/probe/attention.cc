#include "probe/attention.h"

#include "os/process.h"
#include "os/wait.h"
#include "probe/failure.h"
#include "probe/region.h"

namespace hs::probe {

uint32_t scopes_in_use = 0;
uint32_t watches_in_use = 0;
uint32_t marks_epoch = 0;
Scope scopes[kScopeCapacity];
Watch watches[kWatchCapacity];
void (*failure_listener)(size_t requested_bytes, bool is_refused) = nullptr;

namespace {

bool is_in_use(uint32_t generation) { return generation % 2 == 1; }

// Claims a place whose generation is even by making it odd; `prepare` fills it before anybody can see it in
// use.
template <class Place, uint32_t kCapacity, class Prepare>
bool claim(Place (&places)[kCapacity], uint32_t& index, Prepare prepare) {
  constexpr uint32_t kBeingPrepared = 1u << 31;
  for (index = 0; index < kCapacity; ++index) {
    uint32_t generation = load_relaxed(places[index].generation);
    if (is_in_use(generation) || (generation & kBeingPrepared) != 0) continue;
    uint32_t expected = generation;
    if (!compare_exchange_acquire(places[index].generation, expected, generation | kBeingPrepared)) continue;
    prepare(places[index]);
    store_release(places[index].generation, (generation + 1) & ~kBeingPrepared);
    return true;
  }
  return false;
}

template <class Place, uint32_t kCapacity>
bool let_go(Place (&places)[kCapacity], uint32_t index, uint32_t generation) {
  if (index >= kCapacity || !is_in_use(generation)) return false;
  uint32_t expected = generation;
  return compare_exchange_acquire(places[index].generation, expected, generation + 1);
}

}  // namespace

void raise_scopes(int64_t live_bytes, int64_t unpublished_bytes) {
  for (Scope& scope : scopes) {
    if (!is_in_use(load_acquire(scope.generation))) continue;
    if (unpublished_bytes != 0) raise_to(scope.peak_at_most_bytes, live_bytes + unpublished_bytes);
    raise_to(scope.peak_bytes, live_bytes);
  }
}

void compare_with_watches(int64_t live_bytes) {
  for (Watch& watch : watches) {
    if (!is_in_use(load_acquire(watch.generation))) continue;
    uint32_t above = load_relaxed(watch.is_above);
    if (above == 0 && live_bytes > load_relaxed(watch.threshold_bytes)) {
      if (!compare_exchange_acquire(watch.is_above, above, 1u)) continue;
      store_relaxed(watch.crossed_at_bytes, live_bytes);
      store_relaxed(watch.crossed_ns, os::monotonic_coarse_ns());
      // Pairs with the acquire of whoever waits: the two values above are seen with the count.
      store_release(watch.crossings, load_relaxed(watch.crossings) + 1);
      os::wake_all(watch.crossings);
    } else if (above != 0 && live_bytes <= load_relaxed(watch.rearm_bytes)) {
      store_relaxed(watch.is_above, 0u);
    }
  }
}

int64_t next_scope_bytes() {
  int64_t next = INT64_MAX;
  for (const Scope& scope : scopes) {
    if (!is_in_use(load_acquire(scope.generation))) continue;
    const int64_t peak_bytes = load_relaxed(scope.peak_bytes);
    if (peak_bytes < next) next = peak_bytes;
  }
  return next;
}

int64_t next_watch_bytes() {
  int64_t next = INT64_MAX;
  for (const Watch& watch : watches) {
    if (!is_in_use(load_acquire(watch.generation)) || load_relaxed(watch.is_above) != 0) continue;
    const int64_t threshold_bytes = load_relaxed(watch.threshold_bytes);
    if (threshold_bytes < next) next = threshold_bytes;
  }
  return next;
}

int64_t next_rearm_bytes() {
  int64_t next = INT64_MIN;
  for (const Watch& watch : watches) {
    if (!is_in_use(load_acquire(watch.generation)) || load_relaxed(watch.is_above) == 0) continue;
    const int64_t rearm_bytes = load_relaxed(watch.rearm_bytes);
    if (rearm_bytes > next) next = rearm_bytes;
  }
  return next;
}

void change_marks() {
  __atomic_fetch_add(&marks_epoch, 1u, __ATOMIC_SEQ_CST);
  if (region.header == nullptr) return;
  const uint32_t used = load_acquire(region.header->slots_used);
  for (uint32_t index = wire::kSharedSlots; index < used; ++index) {
    wire::Slot& slot = region.slots[index];
    if (slot.kind != static_cast<uint32_t>(wire::SlotKind::kNative)) continue;
    store_sequential(slot.mark_high_bytes, INT64_MIN);
    store_sequential(slot.mark_low_bytes, INT64_MAX);
  }
}

bool open_scope(int64_t live_bytes, int64_t error_bound_bytes, uint32_t& index, uint32_t& generation) {
  const bool opened = claim(scopes, index, [=](Scope& scope) {
    store_relaxed(scope.peak_bytes, live_bytes);
    store_relaxed(scope.peak_at_most_bytes, live_bytes + error_bound_bytes);
  });
  if (!opened) return false;
  generation = load_relaxed(scopes[index].generation);
  __atomic_fetch_add(&scopes_in_use, 1u, __ATOMIC_SEQ_CST);
  change_marks();
  return true;
}

bool close_scope(uint32_t index, uint32_t generation) {
  if (!let_go(scopes, index, generation)) return false;
  __atomic_fetch_sub(&scopes_in_use, 1u, __ATOMIC_SEQ_CST);
  return true;
}

bool open_watch(int64_t threshold_bytes, int64_t rearm_bytes, uint32_t& index, uint32_t& generation) {
  const bool opened = claim(watches, index, [=](Watch& watch) {
    store_relaxed(watch.threshold_bytes, threshold_bytes);
    store_relaxed(watch.rearm_bytes, rearm_bytes);
    store_relaxed(watch.is_above,
                  0u);  // a threshold that has been passed already is crossed by the next allocation
    store_relaxed(watch.crossed_at_bytes, int64_t{0});
    store_relaxed(watch.delivered, load_relaxed(watch.crossings));
  });
  if (!opened) return false;
  generation = load_relaxed(watches[index].generation);
  __atomic_fetch_add(&watches_in_use, 1u, __ATOMIC_SEQ_CST);
  change_marks();
  return true;
}

bool close_watch(uint32_t index, uint32_t generation) {
  if (!let_go(watches, index, generation)) return false;
  __atomic_fetch_sub(&watches_in_use, 1u, __ATOMIC_SEQ_CST);
  // Not a crossing (nothing is delivered of a watch that is gone), only a reason to look.
  __atomic_fetch_add(&watches[index].crossings, 1u, __ATOMIC_RELEASE);
  os::wake_all(watches[index].crossings);
  return true;
}

void attention_fork_child() {
  watches_in_use = 0;
  for (Watch& watch : watches) {
    if (is_in_use(watch.generation)) ++watch.generation;
  }
}

}  // namespace hs::probe

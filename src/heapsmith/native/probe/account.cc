#include "probe/account.h"

#include "base/atomic.h"
#include "os/process.h"
#include "probe/attention.h"
#include "probe/region.h"
#include "probe/thread.h"

namespace hs::probe {

uint32_t control_sequence = 0;

namespace {

// Threads with a slot, and for a moment each that writes without one.
uint32_t writers = 0;
// How often somebody began to write: one that has come and gone again has still changed what was published.
uint32_t arrivals = 0;
// The thread that was alone when it began or when it last looked up.
const wire::Slot* alone_slot = nullptr;

// Live bytes must fall this share below the threshold before the next crossing is a new one.
constexpr int64_t kHysteresisDivisor = 20;
// Failures in a row are one event until live bytes have moved on or this much time has gone by.
constexpr uint64_t kQuietNs = 100'000'000;

uint32_t is_above_warning = 0;
int64_t stamped_peak_bytes = 0;
uint64_t last_failure_event_ns = 0;

int64_t lowest(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t highest(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t rearm_bytes(int64_t warn_at_bytes) { return warn_at_bytes - warn_at_bytes / kHysteresisDivisor; }

void read_control(int64_t live_bytes) {
  const uint32_t sequence = load_acquire(region.control->sequence);
  if (HS_LIKELY(sequence == load_relaxed(control_sequence))) return;
  store_relaxed(control_sequence, sequence);
  wire::RegionHeader& header = *region.header;
  const uint64_t limit_bytes = load_relaxed(region.control->limit_bytes);
  store_relaxed(header.limit_bytes, limit_bytes);
  const uint64_t warn_at_bytes = load_relaxed(region.control->warn_at_bytes);
  if (load_relaxed(header.warn_at_bytes) != warn_at_bytes) store_relaxed(is_above_warning, 0u);
  store_relaxed(header.warn_at_bytes, warn_at_bytes);
  write_event(wire::EventKind::kLimitChanged, live_bytes, static_cast<int64_t>(limit_bytes), 0);
}

bool is_over_limit(int64_t live_bytes) {
  const uint64_t limit_bytes = load_relaxed(region.header->limit_bytes);
  return HS_UNLIKELY(limit_bytes != 0) && live_bytes > static_cast<int64_t>(limit_bytes);
}

void note_failure(wire::EventKind kind, int64_t live_bytes, size_t requested_bytes) {
  wire::RegionHeader& header = *region.header;
  const bool refused = kind == wire::EventKind::kRefused;
  const bool overflowed = requested_bytes > static_cast<size_t>(PTRDIFF_MAX);
  uint64_t& counter = overflowed ? header.overflowed : refused ? header.refused : header.out_of_memory;
  fetch_add_relaxed(counter, 1u);
  this_thread.last_failure = &counter;
  store_relaxed(header.last_failed_bytes, requested_bytes);
  const uint64_t now_ns = os::monotonic_coarse_ns();
  if (now_ns - load_relaxed(last_failure_event_ns) < kQuietNs) return;
  store_relaxed(last_failure_event_ns, now_ns);
  write_event(kind, live_bytes, refused ? static_cast<int64_t>(load_relaxed(header.limit_bytes)) : 0, requested_bytes);
}

void compare_with_warning(int64_t live_bytes) {
  if (HS_UNLIKELY(load_relaxed(watches_in_use) != 0)) compare_with_watches(live_bytes);
  wire::RegionHeader& header = *region.header;
  const auto warn_at_bytes = static_cast<int64_t>(load_relaxed(header.warn_at_bytes));
  if (HS_LIKELY(warn_at_bytes == 0)) return;
  uint32_t above = load_relaxed(is_above_warning);
  if (above == 0 && live_bytes > warn_at_bytes) {
    if (!compare_exchange_acquire(is_above_warning, above, 1u)) return;
    fetch_add_relaxed(header.warnings, 1u);
    write_event(wire::EventKind::kWarning, live_bytes, warn_at_bytes, 0);
  } else if (above != 0 && live_bytes <= rearm_bytes(warn_at_bytes)) {
    store_relaxed(is_above_warning, 0u);
  }
}

// `unpublished_bytes`: how much more than `live_bytes` may be live before the next look.
HS_FAST_PATH void raise_peak(int64_t live_bytes, int64_t unpublished_bytes) {
  wire::RegionHeader& header = *region.header;
  if (HS_UNLIKELY(load_relaxed(scopes_in_use) != 0)) raise_scopes(live_bytes, unpublished_bytes);
  if (unpublished_bytes != 0) raise_to(header.live_bytes_peak_at_most, live_bytes + unpublished_bytes);
  if (live_bytes <= load_relaxed(header.live_bytes_peak)) return;
  raise_to(header.live_bytes_peak, live_bytes);
  // The clock costs more than all the rest; a page more or less is the same moment.
  if (live_bytes - load_relaxed(stamped_peak_bytes) < static_cast<int64_t>(wire::kPageBytes)) return;
  store_relaxed(stamped_peak_bytes, live_bytes);
  store_relaxed(header.live_bytes_peak_ns, os::monotonic_coarse_ns());
}

// How far live bytes may rise from `live_bytes` before something has to be decided.
int64_t headroom(int64_t live_bytes) {
  const wire::RegionHeader& header = *region.header;
  int64_t room = kLookUpBytes;
  if (const auto limit = static_cast<int64_t>(load_relaxed(header.limit_bytes)); limit != 0) {
    room = lowest(room, limit - live_bytes);
  }
  if (const auto warn = static_cast<int64_t>(load_relaxed(header.warn_at_bytes));
      warn != 0 && load_relaxed(is_above_warning) == 0) {
    room = lowest(room, warn - live_bytes);
  }
  if (HS_UNLIKELY(load_relaxed(watches_in_use) != 0)) room = lowest(room, next_watch_bytes() - live_bytes);
  return room < 0 ? 0 : room;
}

int64_t unpublished_among(uint32_t count) { return static_cast<int64_t>(count) * kPublishBytes; }

int64_t alone_live_bytes(const wire::Slot& slot) {
  return load_relaxed(region.header->published_live_bytes) + slot.live_bytes - load_relaxed(slot.published_bytes);
}

// Whoever exchanges adds what lies between the two values: in whatever order two threads do it, the sum is right.
int64_t publish(wire::Slot& slot) {
  const int64_t now = load_relaxed(slot.live_bytes);
  const int64_t moved_bytes = now - exchange_relaxed(slot.published_bytes, now);
  return fetch_add_relaxed(region.header->published_live_bytes, moved_bytes) + moved_bytes;
}

// For the one that was alone: its marks and what it has published hold only while it is. Callers hold the lock of the
// slots, so that none changes its owner meanwhile.
void settle_others(const wire::Slot* own) {
  constexpr uint32_t kLooks = 4;
  const uint32_t used = load_acquire(region.header->slots_used);
  for (uint32_t index = wire::kSharedSlots; index < used; ++index) {
    wire::Slot& other = region.slots[index];
    if (&other == own || other.kind != static_cast<uint32_t>(wire::SlotKind::kNative) ||
        load_acquire(other.state) != static_cast<uint32_t>(wire::SlotState::kAlive)) {
      continue;
    }
    store_sequential(other.mark_high_bytes, INT64_MIN);
    store_sequential(other.mark_low_bytes, INT64_MAX);
    for (uint32_t look = 0; look < kLooks; ++look) {
      raise_peak(publish(other), unpublished_among(load_relaxed(writers)));
      if (load_relaxed(other.live_bytes) == load_relaxed(other.published_bytes)) break;
    }
  }
}

void arrive(const wire::Slot* own) {
  const uint32_t before = fetch_add_sequential(writers, 1u);
  fetch_add_sequential(arrivals, 1u);
  if (before != 1 || !slots_lock.lock(os::yield_processor)) return;
  settle_others(own);
  slots_lock.unlock();
}

void leave() { fetch_add_sequential(writers, static_cast<uint32_t>(-1)); }

void add_shared(int64_t grown_bytes) {
  const int64_t live_bytes = fetch_add_relaxed(region.header->published_live_bytes, grown_bytes) + grown_bytes;
  raise_peak(live_bytes, unpublished_among(load_relaxed(writers)));
  compare_with_warning(live_bytes);
}

int64_t live_bytes_now() {
  const wire::Slot* slot = this_thread.slot;
  return slot == nullptr ? load_relaxed(region.header->published_live_bytes) : alone_live_bytes(*slot);
}

void set_marks_alone(wire::Slot& slot, int64_t live_bytes) {
  const wire::RegionHeader& header = *region.header;
  store_relaxed(alone_slot, &slot);
  int64_t peak_bytes = load_relaxed(header.live_bytes_peak);
  if (HS_UNLIKELY(load_relaxed(scopes_in_use) != 0)) peak_bytes = lowest(peak_bytes, next_scope_bytes());
  const int64_t below_peak = peak_bytes - live_bytes;
  const int64_t room = lowest(headroom(live_bytes), below_peak < 0 ? 0 : below_peak);
  int64_t low = INT64_MIN;
  if (const auto warn = static_cast<int64_t>(load_relaxed(header.warn_at_bytes));
      warn != 0 && load_relaxed(is_above_warning) != 0) {
    low = slot.live_bytes - (live_bytes - rearm_bytes(warn));
  }
  if (HS_UNLIKELY(load_relaxed(watches_in_use) != 0)) {
    const int64_t rearm = next_rearm_bytes();
    if (rearm != INT64_MIN) low = highest(low, slot.live_bytes - (live_bytes - rearm));
  }
  store_relaxed(slot.mark_high_bytes, slot.live_bytes + room);
  store_relaxed(slot.mark_low_bytes, low);
}

void set_marks_among(wire::Slot& slot, int64_t live_bytes, uint32_t others) {
  // Near the limit the threads together must not pass it between two looks.
  const int64_t share = headroom(live_bytes) / static_cast<int64_t>(others + 1);
  store_relaxed(slot.mark_high_bytes, slot.live_bytes + lowest(kPublishBytes, share));
  store_relaxed(slot.mark_low_bytes, slot.live_bytes - kPublishBytes);
}

// A program that grows is at its peak with every allocation: nothing to decide, so only the peak moves. The next
// allocation looks up again, and the low mark is left as a newcomer may just have set it, so no fence is needed.
HS_FAST_PATH bool only_the_peak_moves(wire::Slot& slot, int64_t grown_bytes) {
  const wire::RegionHeader& header = *region.header;
  if (grown_bytes <= 0 || load_relaxed(writers) > 1 || load_relaxed(slot.mark_low_bytes) != INT64_MIN ||
      load_relaxed(header.limit_bytes) != 0 || load_relaxed(header.warn_at_bytes) != 0 ||
      load_relaxed(watches_in_use) != 0 || is_control_changed()) {
    return false;
  }
  const int64_t live_bytes = alone_live_bytes(slot);
  if (live_bytes <= load_relaxed(header.live_bytes_peak)) return false;
  raise_peak(live_bytes, 0);
  store_relaxed(slot.mark_high_bytes, slot.live_bytes);
  return true;
}

}  // namespace

bool look_up(wire::Slot& slot, int64_t grown_bytes, size_t requested_bytes) {
  if (only_the_peak_moves(slot, grown_bytes)) return true;
  const os::KeepErrno keep;
  bool admitted = true;
  for (;;) {
    const uint32_t seen_arrivals = load_sequential(arrivals);
    const uint32_t epoch = load_sequential(marks_epoch);
    const uint32_t count = load_sequential(writers);
    const bool alone = count <= 1;
    int64_t live_bytes = alone ? alone_live_bytes(slot) : publish(slot);
    read_control(live_bytes);
    if (admitted && grown_bytes > 0 && is_over_limit(live_bytes)) {
      note_failure(wire::EventKind::kRefused, live_bytes - grown_bytes, requested_bytes);
      store_relaxed(slot.live_bytes, slot.live_bytes - grown_bytes);
      admitted = false;
      live_bytes = alone ? alone_live_bytes(slot) : publish(slot);
    }
    raise_peak(live_bytes, alone ? 0 : unpublished_among(count));
    compare_with_warning(live_bytes);
    if (alone) {
      set_marks_alone(slot, live_bytes);
    } else {
      set_marks_among(slot, live_bytes, count - 1);
    }
    // Pairs with the addition to `arrivals` in arrive: either we see the newcomer here, or it resets our marks.
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    // So with the epoch in change_marks.
    const bool is_alone_still = !alone || load_sequential(arrivals) == seen_arrivals;
    if (is_alone_still && load_sequential(marks_epoch) == epoch) return admitted;
  }
}

bool would_admit(wire::Slot& slot, size_t more_bytes, size_t requested_bytes) {
  if (load_relaxed(region.header->limit_bytes) == 0 &&
      load_acquire(region.control->sequence) == load_relaxed(control_sequence)) {
    return true;
  }
  const os::KeepErrno keep;
  const int64_t live_bytes = load_sequential(writers) <= 1 ? alone_live_bytes(slot) : publish(slot);
  read_control(live_bytes);
  if (more_bytes <= INT64_MAX / 2 && !is_over_limit(live_bytes + static_cast<int64_t>(more_bytes))) return true;
  if (load_relaxed(region.header->limit_bytes) == 0) return true;
  note_failure(wire::EventKind::kRefused, live_bytes, requested_bytes);
  return false;
}

bool look_up_shared(int64_t grown_bytes, size_t requested_bytes) {
  const os::KeepErrno keep;
  arrive(nullptr);
  const int64_t live_bytes = load_relaxed(region.header->published_live_bytes);
  read_control(live_bytes);
  const bool admitted = !is_over_limit(live_bytes + grown_bytes);
  if (admitted) {
    add_shared(grown_bytes);
  } else {
    note_failure(wire::EventKind::kRefused, live_bytes, requested_bytes);
  }
  leave();
  return admitted;
}

void grow_shared(int64_t grown_bytes) {
  const os::KeepErrno keep;
  // Of a fall the others need not hear: their marks stay on the safe side.
  if (grown_bytes > 0) arrive(nullptr);
  add_shared(grown_bytes);
  if (grown_bytes > 0) leave();
}

void note_out_of_memory(size_t requested_bytes) {
  const os::KeepErrno keep;
  note_failure(wire::EventKind::kOutOfMemory, live_bytes_now(), requested_bytes);
}

void take_back_failure() {
  if (this_thread.last_failure == nullptr) return;
  fetch_add_relaxed(*this_thread.last_failure, -1);
  this_thread.last_failure = nullptr;
}

bool is_last_failure_refused() { return this_thread.last_failure == &region.header->refused; }

void writer_begins(wire::Slot& slot) {
  slot.mark_high_bytes = INT64_MIN;
  slot.mark_low_bytes = INT64_MIN;
  arrive(&slot);
  if (load_relaxed(writers) == 1) store_relaxed(alone_slot, static_cast<const wire::Slot*>(&slot));
}

void writer_ends(wire::Slot& slot) {
  publish(slot);
  leave();
}

uint32_t count_writers() { return load_relaxed(writers); }

int64_t estimate_live_bytes(int64_t& error_bound_bytes) {
  const int64_t published_bytes = load_relaxed(region.header->published_live_bytes);
  const uint32_t count = load_sequential(writers);
  const wire::Slot* slot = load_relaxed(alone_slot);
  if (count <= 1 && slot != nullptr) {
    error_bound_bytes = 0;
    return published_bytes + load_relaxed(slot->live_bytes) - load_relaxed(slot->published_bytes);
  }
  error_bound_bytes = unpublished_among(count);
  return published_bytes;
}

void wish_limit(uint64_t limit_bytes) {
  // The page is ours; others only have it because we share it.
  auto* control = const_cast<wire::ControlBlock*>(region.control);
  store_relaxed(control->limit_bytes, limit_bytes);
  fetch_add_sequential(control->sequence, 1u);
  int64_t error_bound_bytes = 0;
  read_control(estimate_live_bytes(error_bound_bytes));
  change_marks();
}

void account_inherited(int64_t live_bytes) {
  const auto warn_at_bytes = static_cast<int64_t>(region.header->warn_at_bytes);
  writers = 0;
  alone_slot = nullptr;
  control_sequence = 0;
  // What came with the fork has crossed the threshold in the parent.
  is_above_warning = warn_at_bytes != 0 && live_bytes > warn_at_bytes;
  stamped_peak_bytes = 0;
  region.header->published_live_bytes = live_bytes;
  region.header->live_bytes_peak = live_bytes;
  region.header->live_bytes_peak_ns = os::monotonic_coarse_ns();
}

}  // namespace hs::probe

// Live bytes of the process against its peak, limit and warning threshold, without a lock or a shared counter on the hot
// path: a thread compares its own live bytes with two marks of its own, and looks up from its work only beyond them.
//
// While one thread alone has a slot, its marks are set so that the peak is exact at every moment. With more, each
// publishes whenever its live bytes moved by kPublishBytes (less near the limit), so that the process's sum is off by at
// most that, times the threads: the stated error bound. Whoever ends a thread's being alone publishes for it, since it
// may have moved far, and may not look up again for long.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "probe/region.h"
#include "wire/region.h"

namespace hs::probe {

inline constexpr int64_t kPublishBytes = 32 * 1024;
// A thread rereads the control block at least each time its live bytes grow by this.
inline constexpr int64_t kLookUpBytes = 64 * 1024;

// The slot's live bytes have passed a mark, `grown_bytes` of it just now (negative for a free). Answers whether the
// growth is admitted; if not, it has been taken back.
HS_SLOW_PATH bool look_up(wire::Slot& slot, int64_t grown_bytes, size_t requested_bytes);

// Whether `more_bytes` would be admitted now: for what cannot be taken back afterwards.
HS_SLOW_PATH bool would_admit(wire::Slot& slot, size_t more_bytes, size_t requested_bytes);

// For threads without a slot of their own: the same, published at once.
HS_SLOW_PATH bool look_up_shared(int64_t grown_bytes, size_t requested_bytes);

// The same for growth that has already happened for good.
HS_SLOW_PATH void grow_shared(int64_t grown_bytes);

// The allocator itself had nothing to give.
HS_SLOW_PATH void note_out_of_memory(size_t requested_bytes);

// This thread's last failure is asked for once more, by somebody who will count it if it fails again.
HS_SLOW_PATH void take_back_failure();

bool is_last_failure_refused();

// Somebody outside has changed the limit or the threshold.
HS_FAST_PATH bool is_control_changed();
extern uint32_t control_sequence;

// A thread begins to write, into a slot that is not yet its own: from here on nobody may rely on being alone.
void writer_begins(wire::Slot& slot);
// Callers hold the lock of the slots.
void writer_ends(wire::Slot& slot);

// Live bytes of the process in O(1), from any thread or signal handler, and how far they may be from the truth.
int64_t estimate_live_bytes(int64_t& error_bound_bytes);
// Threads that have allocated and are alive.
uint32_t count_writers();

// The program itself wants a limit: through the control block, as from outside, and in force at once.
void wish_limit(uint64_t limit_bytes);

// In a forked child: what is live came with the fork.
void account_inherited(int64_t live_bytes);

HS_FAST_PATH bool account_allocation(wire::Slot& slot, size_t usable_bytes, size_t requested_bytes) {
  const int64_t live_bytes = slot.live_bytes + static_cast<int64_t>(usable_bytes);
  store_relaxed(slot.live_bytes, live_bytes);
  if (HS_LIKELY(live_bytes <= load_relaxed(slot.mark_high_bytes))) return true;
  return look_up(slot, static_cast<int64_t>(usable_bytes), requested_bytes);
}

HS_FAST_PATH void account_free(wire::Slot& slot, size_t usable_bytes) {
  const int64_t live_bytes = slot.live_bytes - static_cast<int64_t>(usable_bytes);
  store_relaxed(slot.live_bytes, live_bytes);
  if (HS_UNLIKELY(live_bytes < load_relaxed(slot.mark_low_bytes)))
    look_up(slot, -static_cast<int64_t>(usable_bytes), 0);
}

// For growth that was admitted before and cannot be taken back.
inline void account_growth(wire::Slot& slot, int64_t grown_bytes) {
  const int64_t live_bytes = slot.live_bytes + grown_bytes;
  store_relaxed(slot.live_bytes, live_bytes);
  if (live_bytes > load_relaxed(slot.mark_high_bytes) || live_bytes < load_relaxed(slot.mark_low_bytes)) {
    look_up(slot, 0, 0);
  }
}

HS_FAST_PATH bool is_control_changed() {
  return HS_UNLIKELY(load_relaxed(region.control->sequence) != load_relaxed(control_sequence));
}

}  // namespace hs::probe

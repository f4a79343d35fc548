#include "probe/thread.h"

#include <pthread.h>
#include <string.h>

#include "base/atomic.h"
#include "os/process.h"
#include "probe/account.h"
#include "probe/attention.h"
#include "probe/count.h"
#include "probe/follow.h"
#include "probe/region.h"

namespace hs::probe {

__thread ThreadProbe this_thread;
bool has_fast_sizes = false;
void (*on_region_open)() = nullptr;

namespace {

enum : uint32_t { kNoRegion, kOpeningRegion, kRegionOpen };
uint32_t region_state = kNoRegion;
bool is_forked = false;

bool has_lock_for_fork = false;
pthread_key_t end_of_thread;
bool has_key = false;
// Destructors of other keys may still free: ours asks to be called again until the last round.
constexpr intptr_t kRounds = 3;
__thread intptr_t rounds_seen;

// What is live in a parent at fork, by class: the inherited blocks of the child.
struct Inherited {
  int64_t blocks[wire::kClassCount];
  wire::Cell followed[wire::kClassCount];
  int64_t large_live_bytes[wire::kClassCount - wire::kFineClasses];
};
HS_BULK Inherited inherited[2];
int64_t inherited_live_bytes = 0;
int64_t inherited_mapped_bytes = 0;
int64_t inherited_arena_bytes = 0;

bool is_python(const wire::Slot& slot) { return slot.kind % 2 == static_cast<uint32_t>(wire::SlotKind::kPython); }

// Samples of two threads become one sample: both halved until they fit, so that the shares stay.
void merge_followed(wire::Cell& into, const wire::Cell& from) {
  uint64_t allocations = uint64_t{into.followed_allocations} + from.followed_allocations;
  uint64_t slack_bytes = uint64_t{into.followed_slack_bytes} + from.followed_slack_bytes;
  for (; allocations > UINT32_MAX || slack_bytes > UINT32_MAX; allocations /= 2) slack_bytes /= 2;
  into.followed_allocations = static_cast<uint32_t>(allocations);
  into.followed_slack_bytes = static_cast<uint32_t>(slack_bytes);
  uint32_t frees = uint32_t{into.followed_frees} + from.followed_frees;
  uint32_t remote_frees = uint32_t{into.followed_remote_frees} + from.followed_remote_frees;
  for (; frees > UINT16_MAX; frees /= 2) remote_frees /= 2;
  into.followed_frees = static_cast<uint16_t>(frees);
  into.followed_remote_frees = static_cast<uint16_t>(remote_frees);
}

void fold(wire::Slot& slot) {
  wire::Slot& ended = region.slots[is_python(slot) ? 1 : 0];
  for (uint32_t index = 0; index < wire::kClassCount; ++index) {
    const wire::Cell& from = slot.cells[index];
    const int64_t live = live_blocks(from);
    if (from.allocations == 0 && live == 0) continue;
    wire::Cell& into = ended.cells[index];
    fetch_add_relaxed(into.allocations, from.allocations);
    // A higher peak leaves what is live as it was, so as much more is below it.
    const uint32_t higher =
        from.live_blocks_peak > into.live_blocks_peak ? from.live_blocks_peak - into.live_blocks_peak : 0;
    into.live_blocks_peak += higher;
    fetch_add_relaxed(into.below_peak_blocks, int64_t{higher} - live);
    merge_followed(into, from);
    if (index < wire::kFineClasses) continue;
    const wire::LargeCell& large = slot.large[index - wire::kFineClasses];
    fetch_add_relaxed(ended.large[index - wire::kFineClasses].live_bytes, large.live_bytes);
    raise_to(ended.large[index - wire::kFineClasses].live_bytes_peak, large.live_bytes_peak);
  }
  fetch_add_relaxed(ended.reallocations, slot.reallocations);
}

void begin_folding() { store_release(region.header->fold_sequence, region.header->fold_sequence + 1); }
void end_folding() { store_release(region.header->fold_sequence, region.header->fold_sequence + 1); }

void detach() {
  ThreadProbe& thread = this_thread;
  thread.is_shared = true;
  wire::Slot* slot = thread.slot;
  wire::Slot* python = thread.python;
  thread.fast = thread.slot = thread.python = nullptr;
  if (slot == nullptr) return;
  if (!slots_lock.lock(os::yield_processor)) return;  // the slot stays, as of a thread that never ended
  begin_folding();
  fold(*slot);
  if (python != nullptr) {
    fold(*python);
    give_back_slot(thread.python_index);
  }
  writer_ends(*slot);
  give_back_slot(thread.slot_index);
  fetch_add_relaxed(region.header->threads_ended, 1u);
  end_folding();
  slots_lock.unlock();
}

void thread_ends(void* value) {
  if (++rounds_seen < kRounds && pthread_setspecific(end_of_thread, value) == 0) return;
  detach();
}

void open_region_once() {
  uint32_t state = kNoRegion;
  if (compare_exchange_acquire(region_state, state, uint32_t{kOpeningRegion})) {
    open_region(is_forked);
    if (is_forked) {
      for (uint32_t kind = 0; kind < 2; ++kind) {
        wire::Slot& slot = region.slots[2 + kind];
        for (uint32_t index = 0; index < wire::kClassCount; ++index) {
          const int64_t blocks = inherited[kind].blocks[index] > 0 ? inherited[kind].blocks[index] : 0;
          slot.cells[index].allocations = static_cast<uint64_t>(blocks);
          slot.cells[index].followed_allocations = inherited[kind].followed[index].followed_allocations;
          slot.cells[index].followed_slack_bytes = inherited[kind].followed[index].followed_slack_bytes;
          slot.cells[index].live_blocks_peak = static_cast<uint32_t>(blocks);
          if (index < wire::kFineClasses) continue;
          const int64_t live_bytes = inherited[kind].large_live_bytes[index - wire::kFineClasses];
          slot.large[index - wire::kFineClasses] = {live_bytes, live_bytes};
        }
      }
      account_inherited(inherited_live_bytes);
      region.header->mapped_bytes = region.header->mapped_bytes_peak = inherited_mapped_bytes;
      region.header->python_arena_bytes = region.header->python_arena_bytes_peak = inherited_arena_bytes;
    }
    if (!has_key) has_key = pthread_key_create(&end_of_thread, thread_ends) == 0;
    if (on_region_open != nullptr) on_region_open();
    store_release(region_state, uint32_t{kRegionOpen});
    return;
  }
  while (load_acquire(region_state) != kRegionOpen) os::yield_processor();
}

wire::Slot* take_named_slot(wire::SlotKind kind, uint32_t& index) {
  if (os::is_restricted) return nullptr;
  if (!slots_lock.lock(os::yield_processor)) return nullptr;
  wire::Slot* slot = take_slot(kind, index);
  if (slot != nullptr) {
    slot->tid = os::thread_id();
    os::thread_name(slot->name);
  }
  slots_lock.unlock();
  return slot;
}

}  // namespace

bool can_share() { return load_acquire(region_state) == kRegionOpen; }

wire::Slot* attach() {
  ThreadProbe& thread = this_thread;
  if (thread.slot != nullptr) return thread.slot;
  if (thread.is_shared) return nullptr;
  thread.is_shared = true;  // what is allocated on the way in is counted as everybody's
  const os::KeepErrno keep;
  if (load_acquire(region_state) != kRegionOpen) open_region_once();
  wire::Slot* slot = take_named_slot(wire::SlotKind::kNative, thread.slot_index);
  if (slot == nullptr) return nullptr;
  writer_begins(*slot);
  store_release(slot->state, static_cast<uint32_t>(wire::SlotState::kAlive));
  fetch_add_relaxed(region.header->threads_started, 1u);
  if (has_key) pthread_setspecific(end_of_thread, slot);
  static_assert(wire::kSlotCapacity <= 1u << 14 && kOwnerBits >= 20);
  thread.owner = thread.slot_index | (slot->generation & 63u) << 14;
  thread.slot = slot;
  thread.fast = has_fast_sizes ? slot : nullptr;
  thread.is_shared = false;
  return slot;
}

wire::Slot* attach_python() {
  ThreadProbe& thread = this_thread;
  if (thread.python != nullptr) return thread.python;
  if (thread.slot == nullptr && attach() == nullptr) return nullptr;
  const os::KeepErrno keep;
  wire::Slot* slot = take_named_slot(wire::SlotKind::kPython, thread.python_index);
  if (slot == nullptr) return nullptr;
  store_release(slot->state, static_cast<uint32_t>(wire::SlotState::kAlive));
  thread.python = slot;
  return slot;
}

void refresh_names() {
  constexpr uint32_t kMostNames = 512;
  uint32_t looked_up = 0;
  const uint32_t used = load_acquire(region.header->slots_used);
  for (uint32_t index = wire::kSharedSlots; index < used && looked_up < kMostNames; ++index) {
    wire::Slot& slot = region.slots[index];
    if (load_acquire(slot.state) != static_cast<uint32_t>(wire::SlotState::kAlive) ||
        slot.kind != static_cast<uint32_t>(wire::SlotKind::kNative)) {
      continue;
    }
    ++looked_up;
    os::name_of_thread(slot.tid, slot.name);
  }
}

void fork_prepare() {
  if (load_acquire(region_state) != kRegionOpen) return;
  const os::KeepErrno keep;
  has_lock_for_fork = slots_lock.lock(os::yield_processor);
  memset(inherited, 0, sizeof inherited);
  int64_t live_bytes = load_relaxed(region.header->published_live_bytes);
  const uint32_t used = load_acquire(region.header->slots_used);
  for (uint32_t index = 0; index < used; ++index) {
    const wire::Slot& slot = region.slots[index];
    if (load_relaxed(slot.state) != static_cast<uint32_t>(wire::SlotState::kAlive)) continue;
    live_bytes += slot.live_bytes - slot.published_bytes;
    Inherited& into = inherited[is_python(slot) ? 1 : 0];
    for (uint32_t number = 0; number < wire::kClassCount; ++number) {
      const wire::Cell& cell = slot.cells[number];
      into.blocks[number] += live_blocks(cell);
      merge_followed(into.followed[number], cell);
      if (number >= wire::kFineClasses) {
        into.large_live_bytes[number - wire::kFineClasses] += slot.large[number - wire::kFineClasses].live_bytes;
      }
    }
  }
  inherited_live_bytes = live_bytes;
  inherited_mapped_bytes = load_relaxed(region.header->mapped_bytes);
  inherited_arena_bytes = load_relaxed(region.header->python_arena_bytes);
}

void fork_parent() {
  if (has_lock_for_fork) slots_lock.unlock();
  has_lock_for_fork = false;
}

void fork_child() {
  if (region_state == kNoRegion) return;
  const os::KeepErrno keep;
  slots_lock.reset();
  has_lock_for_fork = false;
  forget_region();
  // The child's own region is made at its first allocation, so that one that only executes pays nothing.
  region_state = kNoRegion;
  is_forked = true;
  this_thread = {};
  attention_fork_child();
}

}  // namespace hs::probe

#include "probe/count.h"

#include "base/atomic.h"
#include "probe/account.h"
#include "probe/region.h"

namespace hs::probe {

uint64_t followed_blocks[1u << kFollowedBits];

namespace {

bool is_coarse(uint32_t index) { return index >= wire::kFineClasses; }

// Coarse classes hold blocks of many sizes, so their bytes are kept too, and every block is followed.
bool is_followed_in(uint32_t index, const void* block) { return is_coarse(index) || is_followed(block); }

void add(wire::Slot& cells, const void* block, size_t usable_bytes, size_t requested_bytes) {
  const uint32_t index = class_index(usable_bytes);
  wire::Cell& cell = cells.cells[index];
  add_to_cell(cell);
  if (is_followed_in(index, block)) {
    follow(block, this_thread.owner, cell, usable_bytes > requested_bytes ? usable_bytes - requested_bytes : 0);
  }
  if (!is_coarse(index)) return;
  wire::LargeCell& large = cells.large[index - wire::kFineClasses];
  large.live_bytes += static_cast<int64_t>(usable_bytes);
  if (large.live_bytes > large.live_bytes_peak) large.live_bytes_peak = large.live_bytes;
}

void remove(wire::Slot& cells, const void* block, size_t usable_bytes) {
  const uint32_t index = class_index(usable_bytes);
  wire::Cell& cell = cells.cells[index];
  take_from_cell(cell);
  if (is_followed_in(index, block)) unfollow(block, this_thread.owner, cell);
  if (is_coarse(index)) cells.large[index - wire::kFineClasses].live_bytes -= static_cast<int64_t>(usable_bytes);
}

wire::Slot& shared_slot(wire::SlotKind kind) {
  return region.slots[static_cast<uint32_t>(kind) - static_cast<uint32_t>(wire::SlotKind::kEndedNative)];
}

void add_shared(size_t usable_bytes, wire::SlotKind kind) {
  wire::Slot& slot = shared_slot(kind);
  const uint32_t index = class_index(usable_bytes);
  fetch_add_relaxed(slot.cells[index].allocations, 1u);
  fetch_add_relaxed(slot.cells[index].below_peak_blocks, -1);
  if (is_coarse(index)) fetch_add_relaxed(slot.large[index - wire::kFineClasses].live_bytes, usable_bytes);
}

}  // namespace

bool file_slowly(wire::Slot& cells, const void* block, size_t usable_bytes, size_t requested_bytes) {
  // Large and followed blocks come by here however steady the heap is: so a change from outside is always seen.
  if (is_control_changed()) store_relaxed(this_thread.slot->mark_high_bytes, INT64_MIN);
  if (!account_allocation(*this_thread.slot, usable_bytes, requested_bytes)) return false;
  add(cells, block, usable_bytes, requested_bytes);
  return true;
}

void unfile_slowly(wire::Slot& cells, const void* block, size_t usable_bytes) {
  remove(cells, block, usable_bytes);
  account_free(*this_thread.slot, usable_bytes);
}

bool file_shared(const void*, size_t usable_bytes, size_t requested_bytes, wire::SlotKind kind) {
  if (!look_up_shared(static_cast<int64_t>(usable_bytes), requested_bytes)) return false;
  add_shared(usable_bytes, kind);
  return true;
}

void file_moved_shared(size_t usable_bytes, wire::SlotKind kind) {
  grow_shared(static_cast<int64_t>(usable_bytes));
  add_shared(usable_bytes, kind);
}

void unfile_shared(const void*, size_t usable_bytes, wire::SlotKind kind) {
  wire::Slot& slot = shared_slot(kind);
  const uint32_t index = class_index(usable_bytes);
  fetch_add_relaxed(slot.cells[index].below_peak_blocks, 1);
  if (is_coarse(index)) {
    fetch_add_relaxed(slot.large[index - wire::kFineClasses].live_bytes, -static_cast<int64_t>(usable_bytes));
  }
  grow_shared(-static_cast<int64_t>(usable_bytes));
}

Moving begin_move(wire::Slot& cells, const void* block, size_t usable_bytes) {
  remove(cells, block, usable_bytes);
  return {block, usable_bytes};
}

void end_move(wire::Slot& cells, const Moving& from, const void* block, size_t usable_bytes, size_t requested_bytes) {
  add(cells, block, usable_bytes, requested_bytes);
  ++cells.reallocations;
  account_growth(*this_thread.slot, static_cast<int64_t>(usable_bytes) - static_cast<int64_t>(from.usable_bytes));
}

void cancel_move(wire::Slot& cells, const Moving& from) {
  const uint32_t index = class_index(from.usable_bytes);
  --cells.cells[index].below_peak_blocks;
  if (is_coarse(index)) {
    cells.large[index - wire::kFineClasses].live_bytes += static_cast<int64_t>(from.usable_bytes);
  }
}

}  // namespace hs::probe

#include "probe/count.h"

#include "base/atomic.h"
#include "probe/region.h"

namespace hs::probe {

uint64_t followed_blocks[1u << kFollowedBits];

void count_coarse_allocation(wire::Slot& cells, size_t usable_bytes, size_t requested_bytes, const void* block) {
  const uint32_t index = coarse_class_index(usable_bytes);
  count_allocation(cells, index, requested_bytes, block);
  if (!is_followed(block)) follow(block, this_thread.owner);
  wire::LargeCell& large = cells.large[index - wire::kFineClasses];
  large.live_bytes += static_cast<int64_t>(usable_bytes);
  if (large.live_bytes > large.live_bytes_peak) large.live_bytes_peak = large.live_bytes;
}

void count_coarse_free(wire::Slot& cells, size_t usable_bytes, const void* block) {
  const uint32_t index = coarse_class_index(usable_bytes);
  count_free(cells, index, block);
  if (!is_followed(block)) unfollow(block, this_thread.owner, cells.cells[index]);
  cells.large[index - wire::kFineClasses].live_bytes -= static_cast<int64_t>(usable_bytes);
}

void count_shared_allocation(wire::SlotKind kind, size_t usable_bytes, size_t requested_bytes) {
  wire::Slot& slot = region.slots[static_cast<uint32_t>(kind) - static_cast<uint32_t>(wire::SlotKind::kEndedNative)];
  const uint32_t index = class_index(usable_bytes);
  fetch_add_relaxed(slot.cells[index].allocations, 1u);
  fetch_add_relaxed(slot.cells[index].requested_bytes, requested_bytes);
  if (index >= wire::kFineClasses) fetch_add_relaxed(slot.large[index - wire::kFineClasses].live_bytes, usable_bytes);
}

void count_shared_free(wire::SlotKind kind, size_t usable_bytes) {
  wire::Slot& slot = region.slots[static_cast<uint32_t>(kind) - static_cast<uint32_t>(wire::SlotKind::kEndedNative)];
  const uint32_t index = class_index(usable_bytes);
  fetch_add_relaxed(slot.cells[index].frees, 1u);
  if (index >= wire::kFineClasses) {
    fetch_add_relaxed(slot.large[index - wire::kFineClasses].live_bytes, -static_cast<int64_t>(usable_bytes));
  }
}

}  // namespace hs::probe

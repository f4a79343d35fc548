#include "probe/batches.h"

#include "base/atomic.h"
#include "probe/account.h"
#include "probe/size_class.h"
#include "probe/thread.h"

namespace hs::probe {

namespace {

void move_shared(uint32_t index, size_t block_bytes, int64_t count) {
  wire::Slot& ended = region.slots[0];
  wire::Cell& cell = ended.cells[index];
  if (count > 0) fetch_add_relaxed(cell.allocations, count);
  fetch_add_relaxed(cell.below_peak_blocks, -count);
  const int64_t bytes = count * static_cast<int64_t>(block_bytes);
  if (index >= wire::kFineClasses) fetch_add_relaxed(ended.large[index - wire::kFineClasses].live_bytes, bytes);
  grow_shared(bytes);
}

}  // namespace

void move_blocks(size_t block_bytes, int64_t count) {
  const uint32_t index = class_index(block_bytes);
  wire::Slot* slot = this_thread.slot != nullptr ? this_thread.slot : attach();
  if (slot == nullptr) {
    if (can_share()) move_shared(index, block_bytes, count);
    return;
  }
  wire::Cell& cell = slot->cells[index];
  if (count > 0) cell.allocations += static_cast<uint64_t>(count);
  cell.below_peak_blocks -= count;
  if (cell.below_peak_blocks < 0) {
    cell.live_blocks_peak += static_cast<uint32_t>(-cell.below_peak_blocks);
    cell.below_peak_blocks = 0;
  }
  const int64_t bytes = count * static_cast<int64_t>(block_bytes);
  if (index >= wire::kFineClasses) {
    wire::LargeCell& large = slot->large[index - wire::kFineClasses];
    large.live_bytes += bytes;
    if (large.live_bytes > large.live_bytes_peak) large.live_bytes_peak = large.live_bytes;
  }
  account_growth(*slot, bytes);
}

bool admits(size_t bytes) {
  wire::Slot* slot = this_thread.slot;
  return slot == nullptr || would_admit(*slot, bytes, bytes);
}

}  // namespace hs::probe

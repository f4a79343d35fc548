#include "probe/batches.h"

#include "base/atomic.h"
#include "probe/account.h"
#include "probe/attention.h"
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

// Marks that say "now" and "never" are the ends of the range.
bool is_beyond_marks(const wire::Slot& slot, int64_t live_bytes) {
  const int64_t high_bytes = load_relaxed(slot.mark_high_bytes);
  const int64_t low_bytes = load_relaxed(slot.mark_low_bytes);
  if (HS_LIKELY(live_bytes <= high_bytes && live_bytes >= low_bytes)) return false;
  const wire::RegionHeader& header = *region.header;
  const bool is_bounded = (load_relaxed(header.limit_bytes) | load_relaxed(header.warn_at_bytes)) != 0 ||
                          (load_relaxed(watches_in_use) | load_relaxed(scopes_in_use)) != 0;
  const int64_t slack_bytes = is_bounded ? 0 : kUnseenPeakBytes;
  return live_bytes > high_bytes + (high_bytes == INT64_MIN ? 0 : slack_bytes) ||
         live_bytes < low_bytes - (low_bytes == INT64_MIN ? 0 : slack_bytes);
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
  const int64_t live_bytes = slot->live_bytes + bytes;
  store_relaxed(slot->live_bytes, live_bytes);
  if (is_beyond_marks(*slot, live_bytes)) look_up(*slot, 0, 0);
}

bool admits(size_t bytes) {
  wire::Slot* slot = this_thread.slot;
  return slot == nullptr || would_admit(*slot, bytes, bytes);
}

}  // namespace hs::probe

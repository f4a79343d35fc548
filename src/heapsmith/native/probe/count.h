// The counters' hot path.
//
//   malloc  -> account_allocation (live bytes, marks)  -> count_allocation (one cell)
//   free    -> count_free (one cell)                   -> account_free
//
// Budget: no lock, no atomic instruction, no branch that is taken; plain additions, each one instruction so that a signal
// handler that allocates finds nothing half done. Other processes read while we write; nobody else writes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "probe/account.h"
#include "probe/follow.h"
#include "probe/size_class.h"
#include "probe/thread.h"
#include "wire/region.h"

namespace hs::probe {

HS_FAST_PATH void count_allocation(wire::Slot& cells, uint32_t index, size_t requested_bytes, const void* block) {
  wire::Cell& cell = cells.cells[index];
  const uint64_t allocations = ++cell.allocations;
  cell.requested_bytes += requested_bytes;
  const auto live_blocks = static_cast<int64_t>(allocations - cell.frees);
  if (HS_UNLIKELY(live_blocks > static_cast<int64_t>(cell.live_blocks_peak))) {
    cell.live_blocks_peak = static_cast<uint32_t>(live_blocks);
  }
  if (HS_UNLIKELY(is_followed(block))) follow(block, this_thread.owner);
}

HS_FAST_PATH void count_free(wire::Slot& cells, uint32_t index, const void* block) {
  wire::Cell& cell = cells.cells[index];
  ++cell.frees;
  if (HS_UNLIKELY(is_followed(block))) unfollow(block, this_thread.owner, cell);
}

// Coarse classes hold blocks of many sizes, so their bytes are kept too, and every block is followed.
HS_SLOW_PATH void count_coarse_allocation(wire::Slot& cells, size_t usable_bytes, size_t requested_bytes,
                                          const void* block);
HS_SLOW_PATH void count_coarse_free(wire::Slot& cells, size_t usable_bytes, const void* block);

// For threads without a slot of their own.
HS_SLOW_PATH void count_shared_allocation(wire::SlotKind kind, size_t usable_bytes, size_t requested_bytes);
HS_SLOW_PATH void count_shared_free(wire::SlotKind kind, size_t usable_bytes);

}  // namespace hs::probe

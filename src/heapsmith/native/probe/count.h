// Filing blocks: the hot path, and the way for everything that is not small, native and ordinary.
//
//   malloc  next -> file_fast     ok: done           else: file_slowly
//   free    unfile_fast           ok: next           else: unfile_slowly -> next
//
// Budget of the hot path: no lock, no atomic instruction, no call, no side effect before it is sure to succeed. The cells'
// counters are plain additions of one instruction each; live_bytes is loaded, compared and stored, so a signal handler
// that keeps blocks while it interrupts just that is the one thing that can leave it off. Other processes read while we
// write; nobody else writes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "probe/follow.h"
#include "probe/size_class.h"
#include "probe/thread.h"
#include "wire/region.h"

namespace hs::probe {

// One block more in a cell. Counting down to the peak, not up to it, leaves one comparison with zero.
HS_FAST_PATH void add_to_cell(wire::Cell& cell) {
  ++cell.allocations;
  if (HS_UNLIKELY(--cell.below_peak_blocks < 0)) {
    cell.below_peak_blocks = 0;
    ++cell.live_blocks_peak;
  }
}

HS_FAST_PATH void take_from_cell(wire::Cell& cell) { ++cell.below_peak_blocks; }

// Allocated and not yet freed by whoever writes the cell.
inline int64_t live_blocks(const wire::Cell& cell) {
  return static_cast<int64_t>(cell.live_blocks_peak) - cell.below_peak_blocks;
}

// Files a small block of this thread in its class, if it is neither followed nor passes a mark.
HS_FAST_PATH bool file_fast(wire::Slot& slot, wire::Slot& cells, const void* block, size_t usable_bytes,
                            uint32_t index) {
  const int64_t live_bytes = slot.live_bytes + static_cast<int64_t>(usable_bytes);
  if (HS_UNLIKELY(is_followed(block)) || HS_UNLIKELY(live_bytes > load_relaxed(slot.mark_high_bytes))) return false;
  store_relaxed(slot.live_bytes, live_bytes);
  add_to_cell(cells.cells[index]);
  return true;
}

HS_FAST_PATH bool unfile_fast(wire::Slot& slot, wire::Slot& cells, const void* block, size_t usable_bytes,
                              uint32_t index) {
  const int64_t live_bytes = slot.live_bytes - static_cast<int64_t>(usable_bytes);
  if (HS_UNLIKELY(is_followed(block)) || HS_UNLIKELY(live_bytes < load_relaxed(slot.mark_low_bytes))) return false;
  store_relaxed(slot.live_bytes, live_bytes);
  take_from_cell(cells.cells[index]);
  return true;
}

// Files any block of an attached thread. Answers false, with nothing filed, when the limit refuses it.
bool file_slowly(wire::Slot& cells, const void* block, size_t usable_bytes, size_t requested_bytes);
void unfile_slowly(wire::Slot& cells, const void* block, size_t usable_bytes);

// The same for a thread without a slot.
bool file_shared(const void* block, size_t usable_bytes, size_t requested_bytes, wire::SlotKind kind);
void unfile_shared(const void* block, size_t usable_bytes, wire::SlotKind kind);
// A block that has moved already: the limit cannot refuse it any more.
void file_moved_shared(size_t usable_bytes, wire::SlotKind kind);

// A block that becomes another: taken out of the counters before it moves (then its address is anybody's), filed again
// where it went or, if it could not move, as it was. What it grew by has been admitted before.
struct Moving {
  const void* block;
  size_t usable_bytes;
};
Moving begin_move(wire::Slot& cells, const void* block, size_t usable_bytes);
void end_move(wire::Slot& cells, const Moving& from, const void* block, size_t usable_bytes, size_t requested_bytes);
void cancel_move(wire::Slot& cells, const Moving& from);

}  // namespace hs::probe

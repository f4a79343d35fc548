// The life of a thread's counters: attach at its first allocation, fold into the ended ones when it goes, begin anew in a
// forked child.
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "wire/region.h"

namespace hs::probe {

struct ThreadProbe {
  // The slot of a thread for which the hot path holds: it has a slot, sizes can be read without a call, and its blocks
  // are filed as native. Null sends every call the slow way.
  wire::Slot* fast;
  // Live bytes and marks of this thread, and its native cells; null until the first allocation and after the last.
  wire::Slot* slot;
  // This thread's Python objects; null until the first.
  wire::Slot* python;
  uint32_t slot_index;
  uint32_t python_index;
  // Who owns followed blocks: slot and generation.
  uint32_t owner;
  // No slot now: being attached, or past its end, or none left. Counted in the shared slots with atomic additions.
  bool is_shared;
  // CPython is fetching a block that is too large for its pools: malloc files it as Python's.
  bool files_as_python;
  // Where this thread's last failure was counted.
  uint64_t* last_failure;
};

// Initial-exec and trivially constructed: reading it never calls anything.
extern __thread ThreadProbe this_thread;

// Whether `fast` may ever be set; said once, before the first thread attaches.
extern bool has_fast_sizes;

// Makes the region on first use, then gives this thread a slot. Answers null where it has to share.
HS_SLOW_PATH wire::Slot* attach();
// Gives this thread a slot for Python objects; null where it has to share.
HS_SLOW_PATH wire::Slot* attach_python();

// Python's blocks from malloc up to the size of those from its pools are filed as native, so that each of its classes
// holds blocks of one size.
inline bool is_filed_as_python(size_t usable_bytes) {
  return this_thread.files_as_python && usable_bytes > wire::kPythonPoolsEndBytes;
}
// The cells in which this attached thread's malloc files a block now.
inline wire::Slot& filing_cells(size_t usable_bytes) {
  return is_filed_as_python(usable_bytes) && this_thread.python != nullptr ? *this_thread.python : *this_thread.slot;
}
inline wire::SlotKind shared_kind(size_t usable_bytes) {
  return is_filed_as_python(usable_bytes) ? wire::SlotKind::kEndedPython : wire::SlotKind::kEndedNative;
}

// Whether the shared slots can be written: not while the region is being made.
bool can_share();

// Called when the region has been made, of this program and again of each forked child: what the layers above know of
// the process goes into its header.
extern void (*on_region_open)();

// Looks the names of all living threads up again: most are given after a thread's first allocation.
void refresh_names();

// Before, and after in parent and child.
void fork_prepare();
void fork_parent();
void fork_child();

}  // namespace hs::probe

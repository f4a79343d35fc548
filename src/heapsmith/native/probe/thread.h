// The life of a thread's counters: attach at its first allocation, fold into the ended ones when it goes, begin anew in a
// forked child.
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "wire/region.h"

namespace hs::probe {

struct ThreadProbe {
  // Live bytes and marks of this thread, and its native cells; null until the first allocation and after the last.
  wire::Slot* slot;
  // Where malloc files now: `slot`, or `python` while CPython fetches a large block.
  wire::Slot* cells;
  // This thread's Python objects; null until the first.
  wire::Slot* python;
  uint32_t slot_index;
  uint32_t python_index;
  // Who owns followed blocks: slot and generation.
  uint32_t owner;
  // No slot now: being attached, or past its end, or none left. Counted in the shared slots with atomic additions.
  bool is_shared;
};

// Initial-exec and trivially constructed: reading it never calls anything.
extern __thread ThreadProbe this_thread;

// Makes the region on first use, then gives this thread a slot. Answers null where it has to share.
HS_SLOW_PATH wire::Slot* attach();
// Gives this thread a slot for Python objects; null where it has to share.
HS_SLOW_PATH wire::Slot* attach_python();

// Before, and after in parent and child.
void fork_prepare();
void fork_parent();
void fork_child();

// Whether the shared slots can be written: not while the region is being made.
bool can_share();

// Called when the region has been made, of this program and again of each forked child: what the layers above know of
// the process goes into its header.
extern void (*on_region_open)();

}  // namespace hs::probe

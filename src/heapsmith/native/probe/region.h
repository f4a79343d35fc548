// The region of this process image: made at the first allocation, found by others through the launcher's run directory
// or, without a launcher, through this process's descriptors.
//
// Invariant: once open, `region.header` is always writable memory; where nothing can be shared it is private and what
// was measured is lost to the outside, never the program.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bounded_lock.h"
#include "wire/region.h"

namespace hs::probe {

struct Region {
  wire::RegionHeader* header;
  wire::Event* events;
  wire::Slot* slots;
  const wire::ControlBlock* control;
  bool python_objects_wanted;
};

extern Region region;
// Set before it is made: room for a thousand threads, not for sixteen thousand. The others share a slot.
extern bool is_small_region;

// Guards the slots' owners, their free list and the ended counters' totals.
extern BoundedLock slots_lock;

// Makes the region of this image; `forked` when this is a child that has not executed anything.
void open_region(bool forked);
// In a forked child: the parent's region is not ours to write.
void forget_region();

// A zeroed slot of the kind, or null when there is none to be had. Callers hold the lock of the slots.
wire::Slot* take_slot(wire::SlotKind kind, uint32_t& index);
void give_back_slot(uint32_t index);

// Leaves a note for the outside.
void write_event(wire::EventKind kind, int64_t live_bytes, int64_t threshold_bytes, uint64_t requested_bytes);

}  // namespace hs::probe

#include "abi/shared_region.h"

#include "base/atomic.h"
#include "base/compiler.h"
#include "os/process.h"
#include "probe/region.h"

namespace {

using namespace hs;

wire::SpanTable* find_table() {
  wire::RegionHeader& header = *probe::region.header;
  uint32_t index = load_acquire(header.spans_slot);
  if (index == 0) {
    if (os::is_restricted || !probe::slots_lock.lock(os::yield_processor)) return nullptr;
    wire::Slot* slot = probe::take_slot(wire::SlotKind::kSpans, index);
    if (slot != nullptr) {
      store_release(slot->state, static_cast<uint32_t>(wire::SlotState::kSpans));
      store_release(header.spans_slot, index);
    }
    probe::slots_lock.unlock();
    if (slot == nullptr) return nullptr;
  }
  static_assert(sizeof(wire::SpanTable) == sizeof(wire::Slot));
  return reinterpret_cast<wire::SpanTable*>(&probe::region.slots[index]);
}

}  // namespace

extern "C" HS_EXPORT wire::RegionHeader* heapsmith_region(wire::SpanTable** spans) {
  if (probe::region.header == nullptr) return nullptr;
  if (spans != nullptr) *spans = find_table();
  return probe::region.header;
}

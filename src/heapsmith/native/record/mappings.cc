// What abi/mappings.cc says of the program's mappings, recorded. Nothing is followed here: the recorder knows the ranges,
// and an unmapping of what it does not know is none.
#include "probe/mappings.h"

#include "os/process.h"
#include "probe/python_objects.h"
#include "record/events.h"
#include "record/stacks.h"

namespace hs::probe {

namespace {

// Set while a mapping moves: its new place counts only if its old one did.
__thread bool is_moving;

// A sampled recording has sampled mappings; an unmapping of one that it has not is none.
void put(wire::RecordOperation operation, uintptr_t begin, size_t bytes, bool if_old_did) {
  if (is_taking_arena && objects::are_wanted()) return;  // the blocks in it are recorded
  const os::KeepErrno keep;
  const auto* address = reinterpret_cast<const void*>(begin);
  if (record::mode == record::kUnknown) record::attach();
  if (record::mode == record::kNothing || record::mode == record::kUnknown) return;
  const bool is_map = operation == wire::RecordOperation::kMap;
  if (is_map && record::mode == record::kSamples) {
    auto& countdown = record::this_ring.countdown;
    countdown.left_bytes -= static_cast<int64_t>(bytes);
    if (countdown.left_bytes >= 0 || !record::draw(countdown, bytes, record::sample_every_bytes)) return;
  }
  const uint64_t stack = is_map && record::mode != record::kEvery ? record::capture_stack() : 0;
  record::put_birth(record::head_of(operation, if_old_did ? 1 : 0, false), address, bytes, bytes, stack);
}

}  // namespace

void note_map(uintptr_t begin, size_t bytes) {
  put(wire::RecordOperation::kMap, begin, bytes, is_moving);
  is_moving = false;
}

void note_unmap(uintptr_t begin, size_t bytes) { put(wire::RecordOperation::kUnmap, begin, bytes, is_moving); }

bool is_mapped(uintptr_t, size_t) {
  is_moving = true;
  return true;
}

}  // namespace hs::probe

// CPython's objects, recorded: each block in a pool is a block of its own; what goes on to malloc is recorded there, once.
#include "probe/python_objects.h"
#include "probe/thread.h"
#include "record/ring.h"

namespace hs::probe {

bool has_fast_sizes = false;

namespace objects {

namespace {

using record::head_of;
using record::put_birth;
using record::put_death;
using wire::RecordOperation;

HS_FAST_PATH void* born(RecordOperation operation, void* block, size_t bytes) {
  if (HS_LIKELY(block != nullptr) && HS_LIKELY(is_in_pool(block))) {
    put_birth(head_of(operation, 0, true), block, bytes, object_bytes(block), 0);
  }
  return block;
}

}  // namespace

void* allocate(void* context, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  return born(RecordOperation::kAllocate, from.allocate(from.context, bytes), bytes);
}

void* allocate_zeroed(void* context, size_t count, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  return born(RecordOperation::kAllocateZeroed, from.allocate_zeroed(from.context, count, bytes), count * bytes);
}

void* reallocate(void* context, void* block, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (block == nullptr) return allocate(context, bytes);
  if (!is_in_pool(block)) {
    // From malloc; where it shrinks into a pool, the block in the pool is a new one.
    return born(RecordOperation::kAllocate, from.reallocate(from.context, block, bytes), bytes);
  }
  put_death(head_of(RecordOperation::kMoveBegins, 0, true), block);
  void* moved = from.reallocate(from.context, block, bytes);
  if (moved == nullptr) {
    put_death(head_of(RecordOperation::kMoveFailed, 0, true), block);
  } else if (is_in_pool(moved)) {
    put_birth(head_of(RecordOperation::kMoved, 0, true), moved, bytes, object_bytes(moved), 0);
  } else {
    put_death(head_of(RecordOperation::kMovedAway, 0, true), block);
  }
  return moved;
}

void deallocate(void* context, void* block) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (HS_LIKELY(block != nullptr) && HS_LIKELY(is_in_pool(block))) {
    put_death(head_of(RecordOperation::kFree, 0, true), block);
  }
  from.deallocate(from.context, block);
}

void change_arena_bytes(int64_t) {}

bool are_wanted() { return record::recording.recorder != nullptr && record::recording.recorder->python_objects != 0; }

void tell(wire::PythonState state, uint32_t version, const char* note) {
  if (record::recording.header == nullptr) return;
  wire::RecordingHeader& header = *record::recording.header;
  header.has_python = state == wire::PythonState::kCounted ? 1 : 0;
  header.python_version = version;
  __builtin_strncpy(header.python_note, note, sizeof header.python_note - 1);
}

}  // namespace objects

}  // namespace hs::probe

// CPython's objects, recorded: each block in a pool is a block of its own; what goes on to malloc is recorded there, once.
#include "probe/python_objects.h"
#include "probe/thread.h"
#include "record/events.h"
#include "record/python_frames.h"

namespace hs::probe {

bool has_fast_sizes = false;

namespace objects {

namespace {

using wire::RecordOperation;

const char* frames_note = "";

// Of an arena from before the recording: the request was one that only pools answer.
HS_SLOW_PATH void learn_pool(void* block) {
  constexpr uintptr_t kPoolBytes = uintptr_t{1} << kPoolBits;
  mark_pools(reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(block) & ~(kPoolBytes - 1)), kPoolBytes, true);
}

HS_FAST_PATH void* born(RecordOperation operation, void* block, size_t bytes) {
  if (HS_UNLIKELY(block == nullptr)) return block;
  if (HS_UNLIKELY(!is_in_pool(block))) {
    if (!is_for_pools(bytes)) return block;
    learn_pool(block);
  }
  record::born(operation, true, 0, block, bytes, object_bytes(block));
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
    // From malloc, where it stays unless it shrinks into a pool; or from a pool that is not known, which may be so.
    void* moved = from.reallocate(from.context, block, bytes);
    if (moved == nullptr || !is_in_pool(moved)) return moved;
    return born(RecordOperation::kAllocate, moved, bytes);
  }
  const size_t old_bytes = object_bytes(block);
  const record::Move move(true, block);
  void* moved = from.reallocate(from.context, block, bytes);
  if (moved == nullptr) {
    move.failed(old_bytes);
  } else if (is_in_pool(moved)) {
    move.moved(moved, bytes, object_bytes(moved));
  } else {  // to malloc, which has recorded it
    move.gone();
  }
  return moved;
}

void deallocate(void* context, void* block) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (HS_LIKELY(block != nullptr) && HS_LIKELY(is_in_pool(block))) {
    record::died(true, block);
  }
  from.deallocate(from.context, block);
}

void change_arena_bytes(int64_t) {}

bool are_wanted() { return record::recording.recorder != nullptr && record::recording.recorder->python_objects != 0; }

void found(void* library, uint32_t version) { frames_note = record::find_python_frames(library, version); }

void tell(wire::PythonState state, uint32_t version, const char* note) {
  if (record::recording.header == nullptr) return;
  wire::RecordingHeader& header = *record::recording.header;
  header.has_python = state == wire::PythonState::kCounted ? 1 : 0;
  header.python_version = version;
  __builtin_strncpy(header.python_note, note, sizeof header.python_note - 1);
  __builtin_strncpy(header.frames_note, frames_note, sizeof header.frames_note - 1);
}

}  // namespace objects

}  // namespace hs::probe

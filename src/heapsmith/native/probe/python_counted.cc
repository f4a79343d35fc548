// CPython's objects, counted: each block in a pool is filed in this thread's slot for them, under its class.
#include <string.h>

#include "probe/account.h"
#include "probe/count.h"
#include "probe/python_objects.h"
#include "probe/region.h"
#include "probe/thread.h"

namespace hs::probe {

namespace {

// The slot of this thread's Python objects; null where the thread shares.
HS_FAST_PATH wire::Slot* python_slot() {
  wire::Slot* slot = this_thread.python;
  return HS_LIKELY(slot != nullptr) ? slot : attach_python();
}

// While CPython fetches a block that is too large for its pools, malloc files it as Python's.
class FileAsPython {
 public:
  FileAsPython() : before_(this_thread.files_as_python) {
    python_slot();
    this_thread.files_as_python = true;
    this_thread.fast = nullptr;
  }
  ~FileAsPython() {
    this_thread.files_as_python = before_;
    if (!before_ && has_fast_sizes) this_thread.fast = this_thread.slot;
  }
  FileAsPython(const FileAsPython&) = delete;
  FileAsPython& operator=(const FileAsPython&) = delete;

 private:
  bool before_;
};

HS_SLOW_PATH void* file_object_slowly(PyMemAllocatorEx& from, void* block, size_t requested_bytes) {
  if (block == nullptr || !is_in_pool(block)) return block;
  const size_t bytes = object_bytes(block);
  bool admitted = true;
  if (wire::Slot* objects = python_slot()) {
    admitted = file_slowly(*objects, block, bytes, requested_bytes);
  } else if (can_share()) {
    admitted = file_shared(block, bytes, requested_bytes, wire::SlotKind::kEndedPython);
  }
  if (admitted) return block;
  from.deallocate(from.context, block);
  return nullptr;
}

HS_FAST_PATH void* file_object(PyMemAllocatorEx& from, void* block, size_t requested_bytes) {
  wire::Slot* objects = this_thread.python;
  if (HS_LIKELY(objects != nullptr && block != nullptr && is_in_pool(block)) &&
      HS_LIKELY(file_fast(*this_thread.slot, *objects, block, object_bytes(block), object_index(block)))) {
    return block;
  }
  return file_object_slowly(from, block, requested_bytes);
}

HS_SLOW_PATH void unfile_object_slowly(const void* block) {
  if (wire::Slot* objects = python_slot()) {
    unfile_slowly(*objects, block, object_bytes(block));
  } else if (can_share()) {
    unfile_shared(block, object_bytes(block), wire::SlotKind::kEndedPython);
  }
}

HS_FAST_PATH void unfile_object(const void* block) {
  wire::Slot* objects = this_thread.python;
  if (HS_LIKELY(objects != nullptr) &&
      HS_LIKELY(unfile_fast(*this_thread.slot, *objects, block, object_bytes(block), object_index(block)))) {
    return;
  }
  unfile_object_slowly(block);
}

}  // namespace

namespace objects {

void change_arena_bytes(int64_t bytes) {
  if (this_thread.slot == nullptr && attach() == nullptr && !can_share()) return;
  wire::RegionHeader& header = *region.header;
  raise_to(header.python_arena_bytes_peak, fetch_add_relaxed(header.python_arena_bytes, bytes) + bytes);
}

void* allocate(void* context, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (HS_LIKELY(is_for_pools(bytes))) return file_object(from, from.allocate(from.context, bytes), bytes);
  const FileAsPython here;
  return file_object(from, from.allocate(from.context, bytes), bytes);
}

void* allocate_zeroed(void* context, size_t count, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  size_t whole_bytes;
  if (__builtin_mul_overflow(count, bytes, &whole_bytes)) whole_bytes = SIZE_MAX;
  if (HS_LIKELY(is_for_pools(whole_bytes))) {
    return file_object(from, from.allocate_zeroed(from.context, count, bytes), whole_bytes);
  }
  const FileAsPython here;
  return file_object(from, from.allocate_zeroed(from.context, count, bytes), whole_bytes);
}

void* reallocate(void* context, void* block, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (block == nullptr) return allocate(context, bytes);
  if (!is_in_pool(block)) {
    // From malloc; where it shrinks into a pool, the block in the pool is a new one.
    const FileAsPython here;
    return file_object(from, from.reallocate(from.context, block, bytes), bytes);
  }
  const size_t old_bytes = object_bytes(block);
  wire::Slot* objects = python_slot();
  if (objects != nullptr && bytes > old_bytes && !would_admit(*this_thread.slot, bytes - old_bytes, bytes)) {
    return nullptr;
  }
  Moving moving = {block, old_bytes};
  if (objects != nullptr) moving = begin_move(*objects, block, old_bytes);
  void* moved;
  {
    const FileAsPython here;
    moved = from.reallocate(from.context, block, bytes);
  }
  if (objects == nullptr) {
    if (moved != nullptr && can_share()) {
      unfile_shared(block, old_bytes, wire::SlotKind::kEndedPython);
      return file_object_slowly(from, moved, bytes);
    }
  } else if (moved == nullptr) {
    cancel_move(*objects, moving);
  } else if (is_in_pool(moved)) {
    end_move(*objects, moving, moved, object_bytes(moved), bytes);
  } else {  // to malloc, which has filed it
    account_growth(*this_thread.slot, -static_cast<int64_t>(old_bytes));
  }
  return moved;
}

void deallocate(void* context, void* block) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (HS_LIKELY(block != nullptr && is_in_pool(block))) {
    unfile_object(block);
    return from.deallocate(from.context, block);
  }
  const FileAsPython here;
  from.deallocate(from.context, block);
}

bool are_wanted() { return region.python_objects_wanted; }

void found(void*, uint32_t) {}

void tell(wire::PythonState state, uint32_t version, const char* note) {
  if (region.header == nullptr) return;
  region.header->python_state = static_cast<uint32_t>(state);
  region.header->python_version = version;
  strncpy(region.header->python_note, note, sizeof region.header->python_note - 1);
}

}  // namespace objects

}  // namespace hs::probe

// Any heap, recorded: each block's birth is written down after the heap answered, its death before the heap gets it back.
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "probe/thread.h"
#include "record/events.h"

namespace hs {

template <class Heap>
class Recorded {
 public:
  static HS_FAST_PATH void* allocate(size_t bytes) {
    return born(wire::RecordOperation::kAllocate, Heap::allocate(bytes), bytes, 0);
  }

  static HS_FAST_PATH void* allocate_zeroed(size_t count, size_t bytes) {
    return born(wire::RecordOperation::kAllocateZeroed, Heap::allocate_zeroed(count, bytes), count * bytes, 0);
  }

  static HS_FAST_PATH void* filed(void* block, size_t bytes, size_t alignment) {
    const int bits = alignment > 1 ? 64 - __builtin_clzll(alignment - 1) : 0;
    return born(wire::RecordOperation::kAllocateAligned, block, bytes, static_cast<uint32_t>(bits));
  }

  static HS_FAST_PATH void deallocate(void* block) {
    // Nothing of the block itself is read: it is often cold, and the heap waits for it anyway.
    if (HS_LIKELY(block != nullptr) && HS_LIKELY(probe::has_fast_sizes) && HS_LIKELY(!Heap::is_early(block))) {
      record::died(false, block);
      return Heap::deallocate(block);
    }
    deallocate_slowly(block);
  }

  static HS_SLOW_PATH void* reallocate(void* block, size_t bytes) {
    if (block == nullptr) return allocate(bytes);
    if (Heap::is_early(block)) return move_early(block, bytes);
    if (Heap::is_blind()) return Heap::reallocate(block, bytes);
    const record::Move move(false, block);
    void* moved = Heap::reallocate(block, bytes);
    const int errno_after = errno;
    if (HS_LIKELY(moved != nullptr)) {
      move.moved(moved, bytes, Heap::usable_bytes(moved));
    } else if (bytes == 0) {  // freed, as the heap has it
      move.gone();
    } else {
      move.failed(Heap::usable_bytes(block));
    }
    errno = errno_after;
    return moved;
  }

  static size_t usable_bytes(void* block) { return block == nullptr ? 0 : Heap::usable_bytes(block); }

  // A request that no heap could ever meet.
  static HS_SLOW_PATH void* overflow() {
    errno = ENOMEM;
    return nullptr;
  }
  // Nothing is counted here that could be taken back, and nothing refused.
  static bool is_last_failure_refused() { return false; }
  static void take_back_failure() {}

 private:
  static HS_FAST_PATH void* born(wire::RecordOperation operation, void* block, size_t bytes, uint32_t alignment_bits) {
    // The block's header may lie in a line that nobody has read yet.
    if (record::is_passed_over(bytes)) return block;
    size_t usable_bytes;
    uint32_t index;
    if (HS_LIKELY(block != nullptr) && HS_LIKELY(probe::has_fast_sizes) &&
        HS_LIKELY(Heap::read_small(block, usable_bytes, index))) {
      record::born_to_tell(operation, false, alignment_bits, block, bytes, usable_bytes);
      return block;
    }
    return born_slowly(operation, block, bytes, alignment_bits);
  }

  static HS_SLOW_PATH void* born_slowly(wire::RecordOperation operation, void* block, size_t bytes,
                                        uint32_t alignment_bits) {
    if (block == nullptr || Heap::is_early(block) || Heap::is_blind()) return block;
    record::born_to_tell(operation, false, alignment_bits, block, bytes, Heap::usable_bytes(block));
    return block;
  }

  // Early blocks are never given back.
  static HS_SLOW_PATH void deallocate_slowly(void* block) {
    if (block != nullptr) {
      if (Heap::is_early(block)) return;
      if (!Heap::is_blind()) record::died(false, block);
    }
    Heap::deallocate(block);
  }

  static HS_SLOW_PATH void* move_early(void* block, size_t bytes) {
    void* moved = allocate(bytes);
    const size_t old_bytes = Heap::usable_bytes(block);
    if (moved != nullptr) __builtin_memcpy(moved, block, old_bytes < bytes ? old_bytes : bytes);
    return moved;
  }
};

}  // namespace hs

// Any heap, counted: each block is filed when it is handed out and when it comes back, under the same usable size.
//
//   allocate    heap -> small? -> account (live bytes, marks) -> count (one cell)
//   deallocate  small? -> count -> account -> heap
//
// Everything that is not the common case (a thread's first block, a large block, an allocator whose sizes must be asked
// for, a refusal) is out of line.
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "probe/account.h"
#include "probe/count.h"
#include "probe/thread.h"
#include "wire/region.h"

namespace hs {

template <class Heap>
class Counted {
 public:
  static HS_FAST_PATH void* allocate(size_t bytes) {
    wire::Slot* slot = probe::this_thread.slot;
    if (HS_UNLIKELY(slot == nullptr)) return allocate_detached(bytes);
    return filed(*slot, Heap::allocate(bytes), bytes);
  }

  static HS_FAST_PATH void* allocate_zeroed(size_t count, size_t bytes) {
    wire::Slot* slot = probe::this_thread.slot;
    if (HS_UNLIKELY(slot == nullptr)) return allocate_zeroed_detached(count, bytes);
    return filed(*slot, Heap::allocate_zeroed(count, bytes), product(count, bytes));
  }

  // For a block that one of the heap's aligned functions has just handed out (null: it had none).
  static void* file_aligned(void* block, size_t bytes) {
    wire::Slot* slot = probe::this_thread.slot;
    if (HS_UNLIKELY(slot == nullptr) && (slot = probe::attach()) == nullptr) return filed_shared(block, bytes);
    return filed(*slot, block, bytes);
  }

  static HS_FAST_PATH void deallocate(void* block) {
    if (HS_UNLIKELY(block == nullptr)) return;
    wire::Slot* slot = probe::this_thread.slot;
    size_t usable_bytes;
    if (HS_LIKELY(slot != nullptr && Heap::small_usable_bytes(block, usable_bytes))) {
      probe::count_free(*probe::this_thread.cells, small_index(usable_bytes), block);
      probe::account_free(*slot, usable_bytes);
      Heap::deallocate(block);
      return;
    }
    deallocate_slowly(block);
  }

  static HS_SLOW_PATH void* reallocate(void* block, size_t bytes) {
    if (block == nullptr) return allocate(bytes);
    if (Heap::is_early(block)) return move_early(block, bytes);
    wire::Slot* slot = probe::this_thread.slot;
    if (slot == nullptr && (slot = probe::attach()) == nullptr) return reallocate_shared(block, bytes);
    const size_t old_bytes = Heap::usable_bytes(block);
    if (bytes > old_bytes && !probe::would_admit(*slot, bytes - old_bytes, bytes)) {
      errno = ENOMEM;
      return nullptr;
    }
    wire::Slot& cells = *probe::this_thread.cells;
    count_freed(cells, old_bytes, block);
    void* moved = Heap::reallocate(block, bytes);
    if (HS_UNLIKELY(moved == nullptr)) {
      if (bytes != 0) {  // the block is where it was
        take_back_free(cells, old_bytes, block);
        probe::note_out_of_memory(bytes);
      } else {
        probe::account_free(*slot, old_bytes);
      }
      return nullptr;
    }
    const size_t usable_bytes = Heap::usable_bytes(moved);
    count_allocated(cells, usable_bytes, bytes, moved);
    ++slot->reallocations;
    slot->live_bytes += static_cast<int64_t>(usable_bytes) - static_cast<int64_t>(old_bytes);
    if (slot->live_bytes > slot->mark_high_bytes || slot->live_bytes < slot->mark_low_bytes) {
      probe::look_up(*slot, 0, bytes);
    }
    return moved;
  }

  static size_t usable_bytes(void* block) { return block == nullptr ? 0 : Heap::usable_bytes(block); }

 private:
  static HS_FAST_PATH uint32_t small_index(size_t usable_bytes) { return static_cast<uint32_t>((usable_bytes + 7) >> 4); }

  static HS_FAST_PATH void* filed(wire::Slot& slot, void* block, size_t bytes) {
    size_t usable_bytes;
    if (HS_LIKELY(block != nullptr && Heap::small_usable_bytes(block, usable_bytes))) {
      if (HS_UNLIKELY(!probe::account_allocation(slot, usable_bytes, bytes))) return refuse(block);
      probe::count_allocation(*probe::this_thread.cells, small_index(usable_bytes), bytes, block);
      return block;
    }
    return filed_slowly(slot, block, bytes);
  }

  static HS_SLOW_PATH void* filed_slowly(wire::Slot& slot, void* block, size_t bytes) {
    if (block == nullptr) {
      probe::note_out_of_memory(bytes);
      return nullptr;
    }
    const size_t usable_bytes = Heap::usable_bytes(block);
    if (!probe::account_allocation(slot, usable_bytes, bytes)) return refuse(block);
    count_allocated(*probe::this_thread.cells, usable_bytes, bytes, block);
    return block;
  }

  static HS_SLOW_PATH void* filed_shared(void* block, size_t bytes) {
    if (!probe::can_share()) return block;
    if (block == nullptr) {
      probe::note_out_of_memory(bytes);
      return nullptr;
    }
    const size_t usable_bytes = Heap::usable_bytes(block);
    if (!probe::look_up_shared(static_cast<int64_t>(usable_bytes), bytes)) return refuse(block);
    probe::count_shared_allocation(wire::SlotKind::kEndedNative, usable_bytes, bytes);
    return block;
  }

  static HS_SLOW_PATH void* refuse(void* block) {
    Heap::deallocate(block);
    errno = ENOMEM;
    return nullptr;
  }

  static HS_SLOW_PATH void* allocate_detached(size_t bytes) {
    if (HS_UNLIKELY(!Heap::make_ready())) return Heap::allocate_early(bytes);
    if (wire::Slot* slot = probe::attach()) return filed(*slot, Heap::allocate(bytes), bytes);
    return filed_shared(Heap::allocate(bytes), bytes);
  }

  static HS_SLOW_PATH void* allocate_zeroed_detached(size_t count, size_t bytes) {
    if (HS_UNLIKELY(!Heap::make_ready())) return Heap::allocate_early(product(count, bytes));
    if (wire::Slot* slot = probe::attach()) {
      return filed(*slot, Heap::allocate_zeroed(count, bytes), product(count, bytes));
    }
    return filed_shared(Heap::allocate_zeroed(count, bytes), product(count, bytes));
  }

  static HS_SLOW_PATH void deallocate_slowly(void* block) {
    if (Heap::is_early(block)) return;
    wire::Slot* slot = probe::this_thread.slot;
    if (slot == nullptr) slot = probe::attach();
    const size_t usable_bytes = Heap::usable_bytes(block);
    if (slot != nullptr) {
      count_freed(*probe::this_thread.cells, usable_bytes, block);
      probe::account_free(*slot, usable_bytes);
    } else if (probe::can_share()) {
      probe::count_shared_free(wire::SlotKind::kEndedNative, usable_bytes);
      probe::look_up_shared(-static_cast<int64_t>(usable_bytes), 0);
    }
    Heap::deallocate(block);
  }

  static HS_SLOW_PATH void* reallocate_shared(void* block, size_t bytes) {
    const size_t old_bytes = Heap::usable_bytes(block);
    void* moved = Heap::reallocate(block, bytes);
    if (!probe::can_share() || (moved == nullptr && bytes != 0)) return moved;
    probe::count_shared_free(wire::SlotKind::kEndedNative, old_bytes);
    const size_t usable_bytes = moved == nullptr ? 0 : Heap::usable_bytes(moved);
    if (moved != nullptr) probe::count_shared_allocation(wire::SlotKind::kEndedNative, usable_bytes, bytes);
    const int64_t grown_bytes = static_cast<int64_t>(usable_bytes) - static_cast<int64_t>(old_bytes);
    // A block that has moved cannot be taken back: what it grew by is filed without asking.
    probe::look_up_shared(grown_bytes < 0 ? grown_bytes : 0, bytes);
    if (grown_bytes > 0) probe::grow_shared(grown_bytes);
    return moved;
  }

  static HS_SLOW_PATH void* move_early(void* block, size_t bytes) {
    void* moved = allocate(bytes);
    const size_t old_bytes = Heap::usable_bytes(block);
    if (moved != nullptr) __builtin_memcpy(moved, block, old_bytes < bytes ? old_bytes : bytes);
    return moved;
  }

  static void count_allocated(wire::Slot& cells, size_t usable_bytes, size_t bytes, void* block) {
    if (usable_bytes <= wire::kFineLimitBytes) {
      probe::count_allocation(cells, small_index(usable_bytes), bytes, block);
    } else {
      probe::count_coarse_allocation(cells, usable_bytes, bytes, block);
    }
  }

  static void count_freed(wire::Slot& cells, size_t usable_bytes, void* block) {
    if (usable_bytes <= wire::kFineLimitBytes) {
      probe::count_free(cells, small_index(usable_bytes), block);
    } else {
      probe::count_coarse_free(cells, usable_bytes, block);
    }
  }

  static void take_back_free(wire::Slot& cells, size_t usable_bytes, void* block) {
    const uint32_t index = probe::class_index(usable_bytes);
    --cells.cells[index].frees;
    if (index >= wire::kFineClasses) {
      cells.large[index - wire::kFineClasses].live_bytes += static_cast<int64_t>(usable_bytes);
    }
    if (probe::is_followed(block) || index >= wire::kFineClasses) probe::follow(block, probe::this_thread.owner);
  }

  static size_t product(size_t count, size_t bytes) {
    size_t whole;
    return __builtin_mul_overflow(count, bytes, &whole) ? SIZE_MAX : whole;
  }
};

}  // namespace hs

// Any heap, counted: each block is filed when it is handed out and taken out when it comes back, under the same usable size.
//
//   allocate    heap -> file_fast        or file: attach, large, followed, at a mark, refused, a size to be asked for
//   deallocate  unfile_fast -> heap      or unfile
//   reallocate  would_admit -> begin_move -> heap -> end_move
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "probe/account.h"
#include "probe/count.h"
#include "probe/failure.h"
#include "probe/thread.h"

namespace hs {

template <class Heap>
class Counted {
 public:
  static HS_FAST_PATH void* allocate(size_t bytes) { return filed(Heap::allocate(bytes), bytes); }

  static HS_FAST_PATH void* allocate_zeroed(size_t count, size_t bytes) {
    const size_t whole_bytes = product(count, bytes);
    if (HS_UNLIKELY(whole_bytes >= kAskFirstBytes) && !would_admit_zeroed(whole_bytes)) return refuse(whole_bytes);
    return filed(Heap::allocate_zeroed(count, bytes), whole_bytes);
  }

  // Files a block that the heap has just handed out; null if it had none, or if the limit refuses the block.
  static HS_FAST_PATH void* filed(void* block, size_t bytes, size_t /* alignment */ = 0) {
    wire::Slot* slot = probe::this_thread.fast;
    size_t usable_bytes;
    uint32_t index;
    if (HS_LIKELY(slot != nullptr) && HS_LIKELY(block != nullptr) &&
        HS_LIKELY(Heap::read_small(block, usable_bytes, index)) &&
        HS_LIKELY(probe::file_fast(*slot, *slot, block, usable_bytes, index))) {
      return block;
    }
    return file(block, bytes);
  }

  static HS_FAST_PATH void deallocate(void* block) {
    wire::Slot* slot = probe::this_thread.fast;
    size_t usable_bytes;
    uint32_t index;
    if (HS_LIKELY(slot != nullptr) && HS_LIKELY(block != nullptr) &&
        HS_LIKELY(Heap::read_small(block, usable_bytes, index)) &&
        HS_LIKELY(probe::unfile_fast(*slot, *slot, block, usable_bytes, index))) {
      return Heap::deallocate(block);
    }
    unfile(block);
  }

  static HS_SLOW_PATH void* reallocate(void* block, size_t bytes) {
    if (block == nullptr) return allocate(bytes);
    if (Heap::is_early(block)) return move_early(block, bytes);
    if (Heap::is_blind() || Heap::is_nested()) return Heap::reallocate(block, bytes);
    const size_t old_bytes = Heap::usable_bytes(block);
    wire::Slot* slot = probe::attach();
    if (slot == nullptr) return reallocate_shared(block, old_bytes, bytes);
    if (bytes > old_bytes && !probe::would_admit(*slot, bytes - old_bytes, bytes)) return refuse(bytes);
    wire::Slot& cells = probe::filing_cells(old_bytes);
    const probe::Moving moving = probe::begin_move(cells, block, old_bytes);
    void* moved = Heap::reallocate(block, bytes);
    if (HS_LIKELY(moved != nullptr)) {
      const size_t usable_bytes = Heap::usable_bytes(moved);
      probe::end_move(probe::filing_cells(usable_bytes), moving, moved, usable_bytes, bytes);
    } else if (bytes == 0) {  // freed, as the heap has it
      probe::account_growth(*slot, -static_cast<int64_t>(old_bytes));
    } else {
      probe::cancel_move(cells, moving);
      probe::note_out_of_memory(bytes);
      probe::tell_failure(bytes, false);
    }
    return moved;
  }

  static size_t usable_bytes(void* block) { return block == nullptr ? 0 : Heap::usable_bytes(block); }

  // A request that no heap could ever meet.
  // The program's own operator new is asked next, and counts what it is refused itself.
  static bool is_last_failure_refused() { return probe::is_last_failure_refused(); }
  static void take_back_failure() { probe::take_back_failure(); }
  static HS_SLOW_PATH void* overflow() {
    if (probe::this_thread.slot != nullptr || probe::attach() != nullptr || probe::can_share()) {
      probe::note_out_of_memory(SIZE_MAX);
      probe::tell_failure(SIZE_MAX, false);
    }
    return no_memory();
  }

 private:
  // Some write their zeros at once: of so many bytes the limit is asked before the heap is.
  static constexpr size_t kAskFirstBytes = size_t{1} << 20;

  static HS_SLOW_PATH bool would_admit_zeroed(size_t bytes) {
    Heap::functions();  // what is asked next is known only then
    if (bytes > static_cast<size_t>(PTRDIFF_MAX) || Heap::is_blind() || Heap::is_nested()) return true;
    wire::Slot* slot = probe::attach();
    return slot == nullptr || probe::would_admit(*slot, bytes, bytes);
  }

  static HS_SLOW_PATH void* file(void* block, size_t bytes) {
    if (Heap::is_early(block) || Heap::is_blind() || Heap::is_nested()) return block;
    const bool attached = probe::this_thread.slot != nullptr || probe::attach() != nullptr;
    if (!attached && !probe::can_share()) return block;
    if (block == nullptr) {
      probe::note_out_of_memory(bytes);
      probe::tell_failure(bytes, false);
      return nullptr;
    }
    const size_t usable_bytes = Heap::usable_bytes(block);
    const bool admitted = attached ? probe::file_slowly(probe::filing_cells(usable_bytes), block, usable_bytes, bytes)
                                   : probe::file_shared(block, usable_bytes, bytes, probe::shared_kind(usable_bytes));
    if (HS_LIKELY(admitted)) return block;
    Heap::deallocate(block);
    return refuse(bytes);
  }

  static HS_SLOW_PATH void unfile(void* block) {
    if (block == nullptr || Heap::is_early(block)) return;
    if (Heap::is_blind() || Heap::is_nested()) return Heap::deallocate(block);
    const size_t usable_bytes = Heap::usable_bytes(block);
    if (probe::this_thread.slot != nullptr || probe::attach() != nullptr) {
      probe::unfile_slowly(probe::filing_cells(usable_bytes), block, usable_bytes);
    } else if (probe::can_share()) {
      probe::unfile_shared(block, usable_bytes, probe::shared_kind(usable_bytes));
    }
    Heap::deallocate(block);
  }

  static HS_SLOW_PATH void* reallocate_shared(void* block, size_t old_bytes, size_t bytes) {
    void* moved = Heap::reallocate(block, bytes);
    if (!probe::can_share() || (moved == nullptr && bytes != 0)) return moved;
    probe::unfile_shared(block, old_bytes, probe::shared_kind(old_bytes));
    if (moved == nullptr) return moved;
    // A block that has moved cannot be taken back, whatever the limit says now.
    const size_t usable_bytes = Heap::usable_bytes(moved);
    probe::file_moved_shared(usable_bytes, probe::shared_kind(usable_bytes));
    return moved;
  }

  static HS_SLOW_PATH void* move_early(void* block, size_t bytes) {
    void* moved = allocate(bytes);
    const size_t old_bytes = Heap::usable_bytes(block);
    if (moved != nullptr) __builtin_memcpy(moved, block, old_bytes < bytes ? old_bytes : bytes);
    return moved;
  }

  static HS_SLOW_PATH void* refuse(size_t bytes) {
    probe::tell_failure(bytes, true);
    return no_memory();
  }

  static HS_SLOW_PATH void* no_memory() {
    errno = ENOMEM;
    return nullptr;
  }

  static size_t product(size_t count, size_t bytes) {
    size_t whole;
    return __builtin_mul_overflow(count, bytes, &whole) ? SIZE_MAX : whole;
  }
};

}  // namespace hs

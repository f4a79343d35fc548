// What happens to blocks, recorded as the recorder wants it: every event, every event with its stack, or samples.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "record/ring.h"
#include "record/sampled.h"

namespace hs::record {

// Of a birth when not all are recorded: whether the next sample lies behind it. Asked once for each.
HS_FAST_PATH bool is_passed_over(size_t requested_bytes) {
  if (load_relaxed(mode) != kSamples) return false;
  Countdown& countdown = this_ring.countdown;
  countdown.left_bytes -= static_cast<int64_t>(requested_bytes) + (requested_bytes == 0 ? 1 : 0);
  return HS_LIKELY(countdown.left_bytes >= 0);
}

HS_SLOW_PATH void born_slowly(uint64_t head, const void* block, size_t requested_bytes, size_t usable_bytes);

// One that is not passed over.
HS_FAST_PATH void born_to_tell(wire::RecordOperation operation, bool is_python, uint32_t alignment_bits,
                               const void* block, size_t requested_bytes, size_t usable_bytes) {
  const uint64_t head = head_of(operation, alignment_bits, is_python);
  if (HS_LIKELY(load_relaxed(mode) == kEvery)) return put_birth(head, block, requested_bytes, usable_bytes, 0);
  born_slowly(head, block, requested_bytes, usable_bytes);
}

HS_FAST_PATH void born(wire::RecordOperation operation, bool is_python, uint32_t alignment_bits, const void* block,
                       size_t requested_bytes, size_t usable_bytes) {
  if (is_passed_over(requested_bytes)) return;
  born_to_tell(operation, is_python, alignment_bits, block, requested_bytes, usable_bytes);
}

HS_SLOW_PATH void died_slowly(uint64_t head, const void* block);

HS_FAST_PATH void died(bool is_python, const void* block) {
  const uint64_t head = head_of(wire::RecordOperation::kFree, 0, is_python);
  if (HS_LIKELY(load_relaxed(mode) <= kEveryWithStack)) return put_death(head, block);
  if (load_relaxed(mode) == kSamples && !may_be_sampled(block)) return;
  died_slowly(head, block);
}

// A block that may move: told before its address can be anybody's, and again when it is known where it went.
class Move {
 public:
  Move(bool is_python, const void* block)
      : block_(block), is_python_(is_python), is_sampling_(load_relaxed(mode) == kSamples) {
    if (is_sampling_) {
      was_sampled_ = may_be_sampled(block) && forget_sampled(block);
      if (was_sampled_) put_death(head_of(wire::RecordOperation::kFree, 0, is_python), block);
    } else if (load_relaxed(mode) <= kEveryWithStack) {
      put_death(head_of(wire::RecordOperation::kMoveBegins, 0, is_python), block);
    }
  }
  void moved(const void* to, size_t requested_bytes, size_t usable_bytes) const {
    born(is_sampling_ ? wire::RecordOperation::kAllocate : wire::RecordOperation::kMoved, is_python_, 0, to,
         requested_bytes, usable_bytes);
  }
  void failed(size_t usable_bytes) const {
    if (!is_sampling_) {
      end(wire::RecordOperation::kMoveFailed);
    } else if (was_sampled_ && remember_sampled(block_)) {
      put_birth(head_of(wire::RecordOperation::kAllocate, 0, is_python_), block_, usable_bytes, usable_bytes, 0);
    }
  }
  // Freed, or what it became was recorded apart.
  void gone() const {
    if (!is_sampling_) end(wire::RecordOperation::kMovedAway);
  }

 private:
  void end(wire::RecordOperation operation) const {
    if (load_relaxed(mode) <= kEveryWithStack) put_death(head_of(operation, 0, is_python_), block_);
  }

  const void* block_;
  bool is_python_;
  bool is_sampling_;
  bool was_sampled_ = false;
};

}  // namespace hs::record

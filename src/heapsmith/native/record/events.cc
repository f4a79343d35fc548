#include "record/events.h"

#include "os/process.h"
#include "record/python_frames.h"
#include "record/stacks.h"

namespace hs::record {

void born_slowly(uint64_t head, const void* block, size_t requested_bytes, size_t usable_bytes) {
  switch (load_relaxed(mode)) {
    case kUnknown:
      attach();
      if (load_relaxed(mode) != kUnknown && load_relaxed(mode) != kNothing) {
        born(static_cast<wire::RecordOperation>(head & wire::kOperationBits), (head & wire::kPythonBit) != 0,
             static_cast<uint32_t>(head >> wire::kAlignmentShift), block, requested_bytes, usable_bytes);
      }
      return;
    case kEveryWithStack:
      forget_code_at(block, requested_bytes);
      return put_birth(head, block, requested_bytes, usable_bytes, capture_stack());
    case kSamples: {
      if (!draw(this_ring.countdown, requested_bytes, sample_every_bytes)) return;
      if (remember_sampled(block)) {
        put_birth(head, block, requested_bytes, usable_bytes, capture_stack());
      } else if (recording.header != nullptr) {
        fetch_add_relaxed(recording.header->lost_events, 1u);
      }
      return;
    }
    case kEvery:
      return put_birth(head, block, requested_bytes, usable_bytes, 0);
    default:
      return;
  }
}

void died_slowly(uint64_t head, const void* block) {
  switch (load_relaxed(mode)) {
    case kUnknown:
      attach();
      if (load_relaxed(mode) <= kEveryWithStack) put_death(head, block);
      return;
    case kSamples:
      if (forget_sampled(block)) put_death(head, block);
      return;
    default:
      return;
  }
}

}  // namespace hs::record

// Where the heap keeps what it must know for itself: bump-allocated, never given back, reused by kind.
#pragma once

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "os/linux.h"

namespace hs {

// The caller holds the lock that guards the kind of thing it allocates here.
template <OperatingSystem Os, class LockPolicy>
class Metadata {
 public:
  static constexpr size_t segment_bytes = larger_of(64_KiB, page_bytes);

  // Zeroed; aligned to a cache line; nullptr when there is no memory.
  static void* allocate(size_t bytes) {
    bytes = round_up(bytes, 64);
    lock_.lock();
    if (bytes > left_bytes_) {
      const size_t wanted = larger_of(segment_bytes, round_up(bytes, page_bytes));
      // The first one is there already: most programs need no other.
      void* segment = next_ == 0 && bytes <= segment_bytes ? first_segment_ : Os::map(wanted);
      if (!segment) {
        lock_.unlock();
        return nullptr;
      }
      next_ = address_of(segment);
      left_bytes_ = wanted;
    }
    void* result = pointer_to(next_);
    next_ += bytes;
    left_bytes_ -= bytes;
    store_relaxed(used_bytes_, used_bytes_ + bytes);
    lock_.unlock();
    return result;
  }
  static size_t used_bytes() { return load_relaxed(used_bytes_); }
  static LockPolicy& lock() { return lock_; }

 private:
  HS_BULK static inline char first_segment_[segment_bytes];
  static inline LockPolicy lock_;
  static inline uintptr_t next_;
  static inline size_t left_bytes_;
  static inline size_t used_bytes_;
};

}  // namespace hs

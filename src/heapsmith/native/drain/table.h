// From the address of a live block to the number of its object: open addressing, kept at most half full; a removal closes
// the gap, so that nothing is left behind by billions of blocks.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

namespace hs::drain {

struct Live {
  uint64_t address;
  uint64_t object;
  uint64_t usable_bytes;
};

class LiveTable {
 public:
  bool open() {
    mask_ = kFirstCapacity - 1;
    places_ = static_cast<Live*>(calloc(kFirstCapacity, sizeof(Live)));
    return places_ != nullptr;
  }
  void close() { free(places_); }

  void prefetch(uint64_t address) const { __builtin_prefetch(&places_[place_of(address)], 1); }

  // Null where the block is not known.
  Live* find(uint64_t address) const {
    for (uint64_t at = place_of(address);; at = (at + 1) & mask_) {
      if (places_[at].address == address) return &places_[at];
      if (places_[at].address == 0) return nullptr;
    }
  }

  // The address must not be in the table. Answers false where there is no memory for a larger one.
  bool insert(const Live& live) {
    if (count_ * 2 > mask_ && !grow()) return false;
    uint64_t at = place_of(live.address);
    while (places_[at].address != 0) at = (at + 1) & mask_;
    places_[at] = live;
    ++count_;
    return true;
  }

  void remove(Live* live) {
    auto hole = static_cast<uint64_t>(live - places_);
    for (uint64_t at = (hole + 1) & mask_; places_[at].address != 0; at = (at + 1) & mask_) {
      const uint64_t wished = place_of(places_[at].address);
      if (((at - wished) & mask_) < ((at - hole) & mask_)) continue;
      places_[hole] = places_[at];
      hole = at;
    }
    places_[hole] = {};
    --count_;
  }

  uint64_t count() const { return count_; }

 private:
  static constexpr uint64_t kFirstCapacity = 4096;

  // Blocks of one page lie side by side here as they do there.
  uint64_t place_of(uint64_t address) const {
    const uint64_t page = (address >> 12) * 0x9E3779B97F4A7C15u;
    return ((page >> 20) + ((address >> 4) & 255u)) & mask_;
  }

  bool grow() {
    const LiveTable before = *this;
    const uint64_t capacity = (mask_ + 1) * 2;
    places_ = static_cast<Live*>(calloc(capacity, sizeof(Live)));
    if (places_ == nullptr) {
      *this = before;
      return false;
    }
    mask_ = capacity - 1;
    for (uint64_t at = 0; at <= before.mask_; ++at) {
      if (before.places_[at].address == 0) continue;
      uint64_t to = place_of(before.places_[at].address);
      while (places_[to].address != 0) to = (to + 1) & mask_;
      places_[to] = before.places_[at];
    }
    free(before.places_);
    return true;
  }

  Live* places_ = nullptr;
  uint64_t mask_ = 0;
  uint64_t count_ = 0;
};

}  // namespace hs::drain

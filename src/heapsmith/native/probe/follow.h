// What only a sample can tell at no cost: how much more than the program asked for a block is, and who frees it. Blocks
// at some addresses are followed from their allocation to their free, without a word of metadata in anybody's block.
//
// The table forgets (a newer block takes an older one's place); what is forgotten is not counted on either side, so the
// shares stay unbiased. An address is followed by its own bits, so both sides agree without asking.
#pragma once

#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "wire/region.h"

namespace hs::probe {

inline constexpr uint32_t kFollowedBits = 14;
inline constexpr uint32_t kOwnerBits = 20;
extern uint64_t followed_blocks[1u << kFollowedBits];

HS_FAST_PATH bool is_followed(const void* block) {
  return (reinterpret_cast<uintptr_t>(block) & wire::kFollowMask) == 0;
}

inline uint64_t& followed_place(const void* block) {
  const uint64_t scattered = (reinterpret_cast<uintptr_t>(block) >> 4) * 0x9E3779B97F4A7C15u;
  return followed_blocks[scattered >> (64 - kFollowedBits)];
}

inline void follow(const void* block, uint32_t owner, wire::Cell& cell, size_t slack_bytes) {
  store_relaxed(followed_place(block), ((reinterpret_cast<uintptr_t>(block) >> 4) << kOwnerBits) | owner);
  if (cell.followed_slack_bytes > UINT32_MAX - slack_bytes || cell.followed_allocations == UINT32_MAX) {
    cell.followed_allocations /= 2;
    cell.followed_slack_bytes /= 2;
  }
  cell.followed_allocations += 1;
  cell.followed_slack_bytes += static_cast<uint32_t>(slack_bytes);
}

inline void unfollow(const void* block, uint32_t freer, wire::Cell& cell) {
  uint64_t& place = followed_place(block);
  const uint64_t entry = load_relaxed(place);
  if (entry >> kOwnerBits != reinterpret_cast<uintptr_t>(block) >> 4) return;
  store_relaxed(place, 0u);
  const bool remote = (entry & ((1u << kOwnerBits) - 1)) != freer;
  if (cell.followed_frees == UINT16_MAX) {
    cell.followed_frees /= 2;
    cell.followed_remote_frees /= 2;
  }
  cell.followed_frees = static_cast<uint16_t>(cell.followed_frees + 1);
  cell.followed_remote_frees = static_cast<uint16_t>(cell.followed_remote_frees + (remote ? 1 : 0));
}

}  // namespace hs::probe

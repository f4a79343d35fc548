// Shares of followed blocks stay shares: whatever collides or is halved, and remote frees are those of others.
#include "probe/follow.h"

#include <vector>

#include "expect.h"

namespace hs::probe {
uint64_t followed_blocks[1u << kFollowedBits];
}

namespace probe = hs::probe;

int main() {
  constexpr size_t kBlocks = 40000;  // more than the table has places
  static uint32_t owner_of[kBlocks];
  static hs::wire::Cell cells[3];
  Draw draw(3);
  uint64_t frees = 0;
  uint64_t remote_frees = 0;
  for (int step = 0; step < 2000000; ++step) {
    const size_t block = draw.below(kBlocks);
    const auto* address = reinterpret_cast<const void*>((block + 1) << 11);
    EXPECT(probe::is_followed(address));
    const auto thread = static_cast<uint32_t>(1 + draw.below(2));
    if (owner_of[block] == 0) {
      owner_of[block] = thread;
      probe::follow(address, thread, cells[thread], thread * 5);
    } else {
      ++frees;
      remote_frees += owner_of[block] != thread ? 1 : 0;
      probe::unfollow(address, thread, cells[thread]);
      owner_of[block] = 0;
    }
  }
  for (uint32_t thread = 1; thread <= 2; ++thread) {
    const hs::wire::Cell& cell = cells[thread];
    EXPECT(cell.followed_slack_bytes == cell.followed_allocations * thread * 5);
    EXPECT(cell.followed_remote_frees <= cell.followed_frees);
    const double share = double(cell.followed_remote_frees) / cell.followed_frees;
    const double expected = double(remote_frees) / double(frees);
    EXPECT(share > expected - 0.02 && share < expected + 0.02);
  }
  // An address that was never followed, or whose place another has taken, counts on neither side.
  const uint32_t before = cells[1].followed_frees;
  probe::unfollow(reinterpret_cast<const void*>(uintptr_t{1} << 40), 1, cells[1]);
  EXPECT(cells[1].followed_frees == before);
}

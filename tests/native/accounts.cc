// Threads that come and go against an exact sum: nothing is lost, the peak is within its bound, a limit holds.
#include <atomic>
#include <thread>
#include <vector>

#include "expect.h"
#include "probe/account.h"
#include "probe/count.h"
#include "probe/region.h"
#include "probe/thread.h"

namespace probe = hs::probe;
namespace wire = hs::wire;

// Two sums, since nobody can add at the very moment that the probe does: one is never above the truth, one never below.
struct Sum {
  std::atomic<int64_t> live_bytes{0};
  std::atomic<int64_t> peak_bytes{0};

  void add(int64_t bytes) {
    const int64_t now = live_bytes.fetch_add(bytes) + bytes;
    int64_t seen = peak_bytes;
    while (now > seen && !peak_bytes.compare_exchange_weak(seen, now)) {
    }
  }
};
static Sum at_least;
static Sum at_most;
static std::atomic<uint64_t> allocations;

static const void* address_of(size_t number) { return reinterpret_cast<const void*>(4096 + number * 16); }

static bool take(size_t number, size_t bytes) {
  probe::attach();
  const auto signed_bytes = static_cast<int64_t>(bytes);
  at_most.add(signed_bytes);
  if (!probe::file_slowly(*probe::this_thread.slot, address_of(number), bytes, bytes)) {
    at_most.add(-signed_bytes);
    return false;
  }
  ++allocations;
  at_least.add(signed_bytes);
  return true;
}

static void give(size_t number, size_t bytes) {
  const auto signed_bytes = static_cast<int64_t>(bytes);
  at_least.add(-signed_bytes);
  probe::attach();
  probe::unfile_slowly(*probe::this_thread.slot, address_of(number), bytes);
  at_most.add(-signed_bytes);
}

static void work(unsigned long seed, int steps) {
  Draw draw(seed);
  size_t held[64] = {};
  for (int step = 0; step < steps; ++step) {
    size_t& place = held[draw.below(64)];
    if (place != 0) {
      give(seed * 64 + static_cast<size_t>(&place - held), place);
      place = 0;
    } else {
      const size_t bytes = 24 + 16 * draw.below(draw.below(20) == 0 ? 60000 : 100);
      if (take(seed * 64 + static_cast<size_t>(&place - held), bytes)) place = bytes;
    }
  }
  for (size_t& place : held) {
    if (place != 0) give(seed * 64 + static_cast<size_t>(&place - held), place);
  }
}

static int64_t counted_live_bytes() {
  int64_t sum = probe::region.header->published_live_bytes;
  for (uint32_t index = 0; index < probe::region.header->slots_used; ++index) {
    const wire::Slot& slot = probe::region.slots[index];
    if (slot.state == static_cast<uint32_t>(wire::SlotState::kAlive)) sum += slot.live_bytes - slot.published_bytes;
  }
  return sum;
}

static uint64_t counted_allocations() {
  uint64_t sum = 0;
  for (uint32_t index = 0; index < probe::region.header->slots_used; ++index) {
    const wire::Slot& slot = probe::region.slots[index];
    if (slot.state != static_cast<uint32_t>(wire::SlotState::kAlive)) continue;
    for (const wire::Cell& cell : slot.cells) sum += cell.allocations;
  }
  return sum;
}

int main() {
  probe::attach();
  wire::RegionHeader& header = *probe::region.header;
  work(1, 3000);
  EXPECT(header.live_bytes_peak == at_least.peak_bytes);
  EXPECT(header.live_bytes_peak_at_most <= header.live_bytes_peak);
  for (int wave = 0; wave < 40; ++wave) {
    // Alone in between, and then with one, or with several: all the ways from alone to among and back.
    take(1, 50000000);
    std::vector<std::thread> threads;
    for (int number = 0; number < 1 + wave % 5; ++number) {
      threads.emplace_back(work, static_cast<unsigned long>(2 + wave * 5 + number), 500);
    }
    if (wave % 3 != 0) work(1000, 300);
    for (std::thread& thread : threads) thread.join();
    EXPECT(counted_live_bytes() == at_least.live_bytes);
    EXPECT(counted_allocations() == allocations);
    const int64_t above = header.live_bytes_peak_at_most - header.live_bytes_peak;
    const int64_t bound = above > 0 ? above : 0;
    EXPECT(header.live_bytes_peak - bound <= at_most.peak_bytes);
    EXPECT(header.live_bytes_peak + bound >= at_least.peak_bytes);
    give(1, 50000000);
  }
  EXPECT(at_least.live_bytes == 0 && counted_live_bytes() == 0);
  EXPECT(header.threads_started == header.threads_ended + 1);

  constexpr int64_t kLimit = 3000000;
  header.limit_bytes = kLimit;
  at_least.peak_bytes = 0;
  std::vector<std::thread> threads;
  for (unsigned long number = 0; number < 6; ++number) threads.emplace_back(work, 5000 + number, 4000);
  for (std::thread& thread : threads) thread.join();
  EXPECT(header.refused > 0);
  EXPECT(at_least.peak_bytes <= kLimit + 7 * probe::kPublishBytes);
  EXPECT(counted_live_bytes() == 0);
}

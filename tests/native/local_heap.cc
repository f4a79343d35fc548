// Local heaps against a model: blocks do not overlap, keep what was written, and are what is counted.
#include "heap/local_heap.h"

#include <map>
#include <vector>

#include "expect.h"
#include "heap/local_classes.h"
#include "policy/pages/limit.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"
#include "policy/pages/purge_after.h"
#include "policy/pages/purge_at_once.h"
#include "policy/sizes/explicit.h"
#include "policy/sizes/geometric.h"
#include "policy/sizes/powers_of_two.h"

namespace {

using hs::operator""_KiB;
using hs::operator""_MiB;

struct Block {
  size_t requested_bytes;
  unsigned char fill;
};

// The first and last bytes and one of each page: enough to see an overlap, and quick.
void fill(void* start, const Block& block) {
  auto* bytes = static_cast<unsigned char*>(start);
  for (size_t at = 0; at < block.requested_bytes; at += 512) bytes[at] = block.fill;
  if (block.requested_bytes) bytes[block.requested_bytes - 1] = block.fill;
}
bool begins_filled(const void* start, unsigned char filler, size_t until) {
  const auto* bytes = static_cast<const unsigned char*>(start);
  for (size_t at = 0; at < until; at += 512)
    if (bytes[at] != filler) return false;
  return true;
}
bool is_filled(const void* start, const Block& block) {
  if (!begins_filled(start, block.fill, block.requested_bytes)) return false;
  const auto* bytes = static_cast<const unsigned char*>(start);
  return block.requested_bytes == 0 || bytes[block.requested_bytes - 1] == block.fill;
}

size_t some_size(Draw& draw) {
  switch (draw.below(16)) {
    case 0:
      return draw.below(3_MiB);
    case 1:
    case 2:
      return draw.below(1_MiB);
    case 3:
    case 4:
      return draw.below(64_KiB);
    default:
      return draw.below(2_KiB);
  }
}

template <class Heap>
void follow_the_model(unsigned long seed, unsigned steps) {
  Heap heap;
  Draw draw(seed);
  std::map<char*, Block> live;
  size_t usable_live_bytes = 0;
  const auto some = [&] {
    auto found = live.lower_bound(
        live.begin()->first + draw.below(static_cast<unsigned long>(live.rbegin()->first - live.begin()->first + 1)));
    return found == live.end() ? live.begin() : found;
  };
  const auto enter = [&](void* start, size_t bytes, size_t alignment) {
    auto* address = static_cast<char*>(start);
    EXPECT(hs::address_of(start) % alignment == 0);
    const size_t usable = heap.usable_bytes(start);
    EXPECT(usable >= bytes);
    const auto after = live.lower_bound(address);
    EXPECT(after == live.end() || address + usable <= after->first);
    if (after != live.begin()) {
      const auto before = std::prev(after);
      EXPECT(before->first + heap.usable_bytes(before->first) <= address);
    }
    const Block block{bytes, static_cast<unsigned char>(draw.below(256))};
    fill(start, block);
    live.emplace(address, block);
    usable_live_bytes += usable;
  };
  const auto leave = [&](typename std::map<char*, Block>::iterator found) {
    EXPECT(is_filled(found->first, found->second));
    usable_live_bytes -= heap.usable_bytes(found->first);
    live.erase(found);
  };
  for (unsigned step = 0; step < steps; step++) {
    const unsigned long chosen = draw.below(100);
    const size_t bytes = some_size(draw);
    if (chosen < 45 || live.empty()) {
      const size_t alignment = chosen < 8 ? size_t{1} << draw.below(17) : 8;
      void* block = chosen < 8 ? heap.allocate_aligned(alignment, bytes) : heap.allocate(bytes);
      EXPECT(block);
      enter(block, bytes, alignment);
    } else if (chosen < 50) {
      auto* block = static_cast<unsigned char*>(heap.allocate_zeroed(64, bytes));
      EXPECT(block && is_filled(block, {bytes, 0}));
      enter(block, bytes, 64);
    } else if (chosen < 58) {
      auto found = some();
      char* before = found->first;
      const Block block = found->second;
      leave(found);
      auto* moved = static_cast<char*>(heap.reallocate(before, bytes));
      EXPECT(moved && begins_filled(moved, block.fill, hs::smaller_of(bytes, block.requested_bytes)));
      enter(moved, bytes, 8);
    } else if (chosen < 99) {
      auto found = some();
      char* block = found->first;
      leave(found);
      heap.deallocate(block);
    } else {
      heap.recycle();
    }
    if (step % 64 == 0) {
      EXPECT(heap.live_bytes() == usable_live_bytes);
      EXPECT(heap.charged_bytes() >= usable_live_bytes + heap.kept_bytes());
    }
    // Spikes come and go.
    if (live.size() > 600)
      while (live.size() > 100) {
        auto found = some();
        char* block = found->first;
        leave(found);
        heap.deallocate(block);
      }
  }
  for (const auto& [start, block] : live) EXPECT(is_filled(start, block));
  while (!live.empty()) {
    char* block = live.begin()->first;
    leave(live.begin());
    heap.deallocate(block);
  }
  EXPECT(heap.live_bytes() == 0);
  heap.recycle();
  EXPECT(heap.charged_bytes() == 0);
  EXPECT(heap.allocate(100));
  heap.release();
  EXPECT(heap.charged_bytes() == 0 && heap.live_bytes() == 0);
}

template <class Sizes, class Pages = hs::Pipe<hs::OsPages<>, hs::PurgeAfter<1, 4194304, 1>>>
using HeapOf = hs::LocalHeap<hs::LocalClasses<Sizes>, Pages>;

void keep_to_a_limit() {
  HeapOf<hs::Geometric<16, 32768, 4>, hs::Pipe<hs::OsPages<>, hs::Limit<8_MiB>>> heap;
  EXPECT(heap.allocate(9_MiB) == nullptr);
  std::vector<void*> blocks;
  while (void* block = heap.allocate(100_KiB)) blocks.push_back(block);
  EXPECT(blocks.size() > 60 && heap.charged_bytes() <= 8_MiB);
  // What is free, in whatever size, is not in the way of what is asked for.
  for (void* block : blocks) heap.deallocate(block);
  blocks.clear();
  while (void* block = heap.allocate(64)) blocks.push_back(block);
  EXPECT(blocks.size() > 100000 && heap.charged_bytes() <= 8_MiB);
  for (void* block : blocks) heap.deallocate(block);
  EXPECT(heap.allocate(7_MiB));
}

void keep_large_blocks_warm_and_bounded() {
  HeapOf<hs::Geometric<16, 32768, 4>, hs::OsPages<>> heap;
  for (const size_t bytes : {100_KiB, 900_KiB, 8_MiB}) {
    void* first = heap.allocate(bytes);
    heap.deallocate(first);
    EXPECT(heap.allocate(bytes - 100) == first);
    heap.deallocate(first);
  }
  // Not much more than was live at once, whatever comes and goes.
  Draw draw(5);
  for (int i = 0; i < 300; i++) {
    const size_t bytes = draw.below(4) ? draw.below(2_MiB) : draw.below(24_MiB);
    heap.deallocate(heap.allocate(bytes));
    EXPECT(heap.kept_bytes() <= 24_MiB + 17_MiB);
  }
  heap.recycle();
  EXPECT(heap.kept_bytes() == 0);

  // Mappings are cut for what is smaller, and put together for what is larger: their pages are warm.
  const size_t before_bytes = heap.charged_bytes();
  void* whole = heap.allocate(23_MiB);
  heap.deallocate(whole);
  void* parts[] = {heap.allocate(7_MiB), heap.allocate(3_MiB), heap.allocate(10_MiB)};
  for (void* part : parts) EXPECT(part >= whole && part < static_cast<char*>(whole) + 23_MiB);
  EXPECT(heap.charged_bytes() - before_bytes <= 24_MiB);
  for (void* part : parts) heap.deallocate(part);
  EXPECT(heap.allocate(22_MiB) == whole);

  HeapOf<hs::Geometric<16, 32768, 4>, hs::Pipe<hs::OsPages<>, hs::PurgeAtOnce<1048576>>> bounded;
  for (const size_t bytes : {600_KiB, 500_KiB, 400_KiB, 2_MiB}) bounded.deallocate(bounded.allocate(bytes));
  EXPECT(bounded.kept_bytes() <= 1_MiB);
}

// A system that has no memory: nothing is half done.
struct Exhausted : hs::Linux {
  static inline unsigned left = 0;
  static void* map(size_t bytes) { return left > 0 ? (left--, hs::Linux::map(bytes)) : nullptr; }
};
void fail_cleanly() {
  using Pages = hs::OsPages<Exhausted>;
  hs::LocalHeap<hs::LocalClasses<hs::Geometric<16, 32768, 4>>, Pages, Exhausted> heap;
  for (unsigned maps = 0; maps < 4; maps++) {
    Exhausted::left = maps;
    std::vector<void*> blocks;
    while (void* block = heap.allocate(blocks.size() % 2 ? 300_KiB : 40)) blocks.push_back(block);
    EXPECT(heap.allocate(5_MiB) == nullptr);
    EXPECT(heap.live_bytes() <= heap.charged_bytes());
    heap.release();
  }
}

// Time passes when it is told to.
struct Clocked : hs::Linux {
  static inline uint64_t ms = 1000;
  static uint64_t now_ms() { return ms; }
};
void give_back_what_nobody_wants() {
  using Pages = hs::Pipe<hs::OsPages<Clocked>, hs::PurgeAfter<100, 67108864, 1>>;
  hs::LocalHeap<hs::LocalClasses<hs::Geometric<16, 32768, 4>>, Pages, Clocked> heap;
  const auto kept_after_ms = [&](uint64_t pause_ms) {
    heap.deallocate(heap.allocate(8_MiB));
    Clocked::ms += pause_ms;
    heap.age();
    return heap.kept_bytes();
  };
  EXPECT(kept_after_ms(90) >= 8_MiB);
  EXPECT(kept_after_ms(110) == 0);
  // It is missed: kept longer from now on, as long as that helps.
  EXPECT(kept_after_ms(350) >= 8_MiB);
  EXPECT(kept_after_ms(350) >= 8_MiB);
  EXPECT(kept_after_ms(2000) == 0);
}

void refuse_what_cannot_be() {
  HeapOf<hs::Geometric<16, 32768, 4>> heap;
  EXPECT(heap.allocate(~size_t{0}) == nullptr);
  EXPECT(heap.allocate(static_cast<size_t>(PTRDIFF_MAX)) == nullptr);
  EXPECT(heap.allocate_aligned(8_MiB, 1) == nullptr);
  EXPECT(heap.allocate_aligned(2_MiB, 3_MiB) != nullptr);
  EXPECT(heap.allocate(0) != heap.allocate(0));
}

}  // namespace

int main() {
  follow_the_model<HeapOf<hs::Geometric<16, 262144, 8>>>(1, 3000);
  follow_the_model<HeapOf<hs::PowersOfTwo<16, 32768>, hs::OsPages<>>>(2, 1500);
  follow_the_model<HeapOf<hs::Explicit<24, 64, 1000>>>(3, 1500);
  follow_the_model<HeapOf<hs::Explicit<65536>>>(4, 500);
  keep_to_a_limit();
  keep_large_blocks_warm_and_bounded();
  fail_cleanly();
  give_back_what_nobody_wants();
  refuse_what_cannot_be();
}

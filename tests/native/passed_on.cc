// Threads pass blocks on, and the heap passes their addresses on, as fast as can be: the drain tells each birth and death at an
// address apart. Blocks that are kept at random say so: were one taken for another, their bytes would differ.
//
// First with threads that are one, in turns, so that their stamps are as close as they get; then with threads.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "base/stamp.h"
#include "drain/process.h"
#include "expect.h"
#include "record/events.h"
#include "record/ring.h"
#include "recorder.h"

namespace {

using hs::wire::RecordOperation;

constexpr uint32_t kThreads = 3;
constexpr uint64_t kFirstAddress = uint64_t{1} << 32;

void* pointer(uint64_t address) { return reinterpret_cast<void*>(address); }

// A heap of very few free blocks, the last one freed first: an address is used again at once, by whoever comes.
class Heap {
 public:
  uint64_t allocate() {
    lock();
    const uint64_t address = count_ > 0 ? free_[--count_] : next_ += 48;
    unlock();
    return address;
  }
  void deallocate(uint64_t address) {
    lock();
    if (count_ < kFree) free_[count_++] = address;
    unlock();
  }

 private:
  static constexpr uint32_t kFree = 4;
  void lock() {
    while (is_locked_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() { is_locked_.store(false, std::memory_order_release); }

  std::atomic<bool> is_locked_ = false;
  uint32_t count_ = 0;
  uint64_t free_[kFree] = {};
  uint64_t next_ = kFirstAddress;
};

struct Block {
  uint64_t address;
  uint64_t usable_bytes;
};

Heap heap;
// A block lies here for whoever takes it.
std::atomic<Block*> slots[2];
std::atomic<uint64_t> births;
std::atomic<uint64_t> kept_bytes;
std::atomic<uint64_t> kept_blocks;

class Worker {
 public:
  explicit Worker(uint64_t seed) : random_(0x9E3779B97F4A7C15u * (seed + 1)) {}

  // A birth, at times one that moves at once; then the block is ended here or passed on.
  void step() {
    Block block = {heap.allocate(), 0};
    const uint64_t requested_bytes = draw(2000);
    block.usable_bytes = requested_bytes + draw(60000);
    hs::record::born(RecordOperation::kAllocate, false, 0, pointer(block.address), requested_bytes, block.usable_bytes);
    ++births;
    if (draw(8) == 0) move(block);
    if (draw(4) == 0) return end(block);
    Block* taken = slots[draw(2)].exchange(new Block(block), std::memory_order_acq_rel);
    if (taken == nullptr) return;
    end(*taken);
    delete taken;
  }

 private:
  uint64_t draw(uint64_t below) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return (random_ >> 20) % below;
  }
  void move(Block& block) {
    const hs::record::Move move(false, pointer(block.address));
    if (draw(2) == 0) {
      heap.deallocate(block.address);
      block.address = heap.allocate();
    }
    block.usable_bytes = draw(60000);
    move.moved(pointer(block.address), 0, block.usable_bytes);
    ++births;
  }
  void end(const Block& block) {
    if (draw(32) == 0) {
      kept_bytes += block.usable_bytes;
      ++kept_blocks;
      return;
    }
    hs::record::died(false, pointer(block.address));
    heap.deallocate(block.address);
  }

  uint64_t random_;
};

}  // namespace

int main() {
  // Always on, also from ahead of the counter, and from where the upper bits are lost.
  uint64_t stamp = 100 << 12 | 4095;
  EXPECT(hs::move_on(stamp, 50, 12) == (101 << 12));
  EXPECT(hs::move_on(stamp, 200, 12) == (200 << 12 | 1));
  stamp = UINT64_MAX - 4095;
  EXPECT(hs::move_on(stamp, uint64_t{1} << 52 | 7, 12) == (7 << 12 | 1));

  char directory[] = "/dev/shm/heapsmith-rings-XXXXXX";
  EXPECT(mkdtemp(directory) != nullptr);
  const std::string folder = directory;
  Recorder* recorder = hs_recorder_open((folder + "/recorder").c_str(), 1000, 0, 0, 0, 0);
  EXPECT(recorder != nullptr);
  hs::record::set_directory(directory);
  EXPECT(hs::record::attach());
  const std::string file = folder + "/" + std::to_string(getpid()) + ".1.recording";
  hs::drain::Process* process = hs_process_open(recorder, file.c_str());
  EXPECT(process != nullptr);
  const auto drain = [&](uint64_t longest_ns) {
    hs_recorder_run(recorder, &process, 1, longest_ns);
    process->batch_taken();
  };

  // In turns: a thread is what its ring is.
  hs::record::ThreadRing rings[kThreads] = {hs::record::this_ring};
  for (uint32_t ring = 1; ring < kThreads; ++ring) {
    hs::record::this_ring = {};
    EXPECT(hs::record::attach());
    rings[ring] = hs::record::this_ring;
  }
  // Large blocks of one thread that another ends, of which one lives at a time: so the peak has it.
  for (uint64_t round = 0; round < 300; ++round) {
    constexpr size_t kLargeBytes = 1 << 20;
    const uint64_t address = (uint64_t{1} << 40) + (round << 20);
    hs::record::this_ring = rings[0];
    hs::record::born(RecordOperation::kAllocate, false, 0, pointer(address), kLargeBytes, kLargeBytes);
    rings[0] = hs::record::this_ring;
    hs::record::this_ring = rings[1];
    hs::record::died(false, pointer(address));
    rings[1] = hs::record::this_ring;
    ++births;
  }
  drain(1);
  hs::drain::Totals totals;
  process->tell(totals);
  EXPECT(totals.births == births);
  EXPECT(totals.live_bytes_peak == 1 << 20);

  std::vector<Worker> workers;
  for (uint32_t ring = 0; ring < kThreads; ++ring) workers.emplace_back(ring);
  uint64_t turns = 1;
  for (int round = 0; round < 20000; ++round) {
    turns ^= turns << 13;
    turns ^= turns >> 7;
    turns ^= turns << 17;
    const auto ring = static_cast<uint32_t>((turns >> 20) % kThreads);
    hs::record::this_ring = rings[ring];
    workers[ring].step();
    rings[ring] = hs::record::this_ring;
    if (round % 64 == 0) drain(1);
  }
  hs::record::this_ring = rings[0];

  std::atomic<bool> is_over = false;
  std::thread program([&] {
    std::vector<std::thread> threads;
    for (uint32_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([thread] {
        Worker worker(kThreads + thread);
        for (int round = 0; round < 100000; ++round) worker.step();
      });
    }
    for (auto& thread : threads) thread.join();
    is_over = true;
  });
  // One look after the other.
  while (!is_over) drain(1);
  program.join();
  while (hs_process_finish(process, recorder) != 0) process->batch_taken();
  for (auto& slot : slots) {
    const Block* left = slot.load();
    if (left == nullptr) continue;
    kept_bytes += left->usable_bytes;
    ++kept_blocks;
    delete left;
  }
  process->tell(totals);
  EXPECT(totals.births == births);
  EXPECT(totals.lost_events == 0);
  EXPECT(totals.unknown_deaths == 0);
  EXPECT(totals.inferred_deaths == 0);
  EXPECT(totals.live_blocks == kept_blocks);
  EXPECT(totals.live_bytes == kept_bytes);
  hs::record::shut();
  hs_process_close(process);
  hs_recorder_close(recorder);
  std::remove(file.c_str());
  std::remove((folder + "/recorder").c_str());
  std::remove(directory);
  return 0;
}

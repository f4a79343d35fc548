// Threads write records while the drain reads them: nothing is lost, every death meets its birth, rings are used again.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "drain/process.h"
#include "expect.h"
#include "record/events.h"
#include "record/ring.h"
#include "recorder.h"

namespace {

using hs::wire::RecordOperation;

constexpr int kThreads = 4;
constexpr int kWaves = 3;
constexpr uint64_t kBlocks = 20000;

// Addresses that no two threads share, and one that all of them hand round.
void work(uint64_t thread) {
  for (uint64_t number = 0; number < kBlocks; ++number) {
    const uint64_t address = (thread + 1) << 32 | (number % 512 + 1) << 4;
    if (number >= 512) hs::record::died(false, reinterpret_cast<void*>(address));
    hs::record::born(RecordOperation::kAllocate, false, 0, reinterpret_cast<void*>(address), number % 3000, 4000);
  }
  for (uint64_t left = 0; left < 512; ++left) {
    hs::record::died(false, reinterpret_cast<void*>((thread + 1) << 32 | (left + 1) << 4));
  }
  // A size and a slack that need a wide record.
  hs::record::born(RecordOperation::kAllocate, false, 0, reinterpret_cast<void*>(thread << 4 | uint64_t{1} << 44),
                   uint64_t{1} << 41, (uint64_t{1} << 41) + (1 << 20));
}

}  // namespace

int main() {
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

  uint64_t events = 0;
  const auto take = [&] {
    size_t bytes = 0;
    events += process->batch().count();
    EXPECT(process->batch().count() == 0 || process->encode(bytes) != nullptr);
    process->batch_taken();
  };
  for (int wave = 0; wave < kWaves; ++wave) {
    std::vector<std::thread> threads;
    for (uint64_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back(work, static_cast<uint64_t>(wave) * kThreads + thread);
    }
    for (int round = 0; round < 30; ++round) {
      hs_recorder_run(recorder, &process, 1, 5'000'000);
      take();
    }
    std::thread reader([&] {
      for (auto& thread : threads) thread.join();
    });
    // Whoever still waits for room gets it.
    for (bool is_over = false; !is_over;) {
      hs_recorder_run(recorder, &process, 1, 5'000'000);
      take();
      hs::drain::Totals totals;
      process->tell(totals);
      is_over = totals.births == static_cast<uint64_t>(wave + 1) * kThreads * (kBlocks + 1);
    }
    reader.join();
  }
  while (hs_process_finish(process, recorder) != 0) take();
  take();
  hs::drain::Totals totals;
  process->tell(totals);
  constexpr uint64_t kBirths = uint64_t{kThreads} * kWaves * (kBlocks + 1);
  constexpr uint64_t kDeaths = uint64_t{kThreads} * kWaves * kBlocks;
  EXPECT(totals.births == kBirths);
  EXPECT(totals.unknown_deaths == 0);
  EXPECT(totals.inferred_deaths == 0);
  EXPECT(totals.lost_events == 0);
  EXPECT(totals.live_blocks == kBirths - kDeaths);
  // Each thread says that it begins and that it ends; this one only that it began.
  EXPECT(events == kBirths + kDeaths + uint64_t{kThreads} * kWaves * 2 + 1);
  EXPECT(totals.threads == kThreads * kWaves + 1);
  EXPECT(process->header().rings_used <= 2 * kThreads + 1);
  hs::record::shut();
  hs_process_close(process);
  hs_recorder_close(recorder);
  std::remove(file.c_str());
  std::remove((folder + "/recorder").c_str());
  std::remove(directory);
  return 0;
}

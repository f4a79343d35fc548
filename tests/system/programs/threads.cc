// Threads that allocate for each other; tells the exact sums and the exact peak of its own blocks.
#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "tally.h"

namespace {

std::atomic<long> allocations, frees, live_bytes, peak_bytes, refused;

void* take(size_t bytes) {
  void* block = malloc(bytes);
  if (block == nullptr) {
    ++refused;
    return nullptr;
  }
  ++allocations;
  const long usable = static_cast<long>(malloc_usable_size(block));
  const long now = live_bytes.fetch_add(usable) + usable;
  long seen = peak_bytes.load();
  while (now > seen && !peak_bytes.compare_exchange_weak(seen, now)) {
  }
  return block;
}

void give(void* block) {
  if (block == nullptr) return;
  ++frees;
  live_bytes -= static_cast<long>(malloc_usable_size(block));
  free(block);
}

// Not a vector: its own block would be none of the tally.
struct Blocks {
  void* at[100000];
  int count = 0;
  void push_back(void* block) { at[count++] = block; }
  void pop_back() { give(at[--count]); }
} blocks;

void fill(size_t bytes) {
  for (size_t sum = 0; sum < bytes; sum += 1000) blocks.push_back(take(1000));
}

void empty() {
  while (blocks.count != 0) blocks.pop_back();
}

// The one that was alone holds much, and is silent while others go up and down.
void silent_holder() {
  void* much = take(64 << 20);
  fill(4 << 20);
  empty();
  for (int turn = 0; turn < 3; ++turn) {
    std::thread([] {
      void* more = take(16 << 20);
      give(more);
    }).join();
  }
  give(much);
}

// The peak is reached alone, then missed by a hair by two that stay below their marks.
void just_over_by_two() {
  fill(1 << 20);
  for (int number = 0; number < 40; ++number) blocks.pop_back();
  std::atomic<int> step{0};
  std::thread other([&] {
    void* first = take(24);
    step = 1;
    while (step < 2) sched_yield();
    void* held[30];
    for (void*& block : held) block = take(1000);
    step = 3;
    while (step < 4) sched_yield();
    for (void* block : held) give(block);
    give(first);
  });
  while (step < 1) sched_yield();
  void* mine = take(24);
  step = 2;
  while (step < 3) sched_yield();
  for (int number = 0; number < 30; ++number) blocks.push_back(take(1000));
  empty();
  give(mine);
  step = 4;
  other.join();
}

std::atomic<void*> mailbox[256];

void exchange(int turns, unsigned seed) {
  for (int turn = 0; turn < turns; ++turn) {
    seed = seed * 1664525 + 1013904223;
    const size_t bytes = turn % 97 == 0 ? 20000 + seed % 300000 : 1 + seed % 2000;
    give(mailbox[(seed >> 20) % 256].exchange(take(bytes)));
  }
}

void crossing(int count, int turns) {
  std::vector<std::thread> threads;
  for (int number = 0; number < count; ++number) threads.emplace_back(exchange, turns, number * 7919 + 1);
  for (std::thread& thread : threads) thread.join();
  for (auto& place : mailbox) give(place.exchange(nullptr));
}

// In waves, each thread with a few blocks, some left for others to free.
void short_lived(int count) {
  for (int started = 0; started < count; started += 50) {
    std::vector<std::thread> wave;
    for (int number = 0; number < 50; ++number) wave.emplace_back(exchange, 5, started + number);
    for (std::thread& thread : wave) thread.join();
  }
  for (auto& place : mailbox) give(place.exchange(nullptr));
}

// One thread takes, the other gives back, and has blocks of its own.
void handed_over(int count) {
  std::thread giver([=] {
    static void* own[4096];
    for (int number = 0; number < count; ++number) {
      void* block = nullptr;
      while ((block = mailbox[number % 256].exchange(nullptr)) == nullptr) sched_yield();
      give(block);
      if (number % 2 == 0) give(std::exchange(own[number * 7919u % 4096], take(100)));
    }
  });
  for (int number = 0; number < count; ++number) {
    void* block = take(16 + number % 500);
    void* empty = nullptr;
    while (!mailbox[number % 256].compare_exchange_weak(empty, block)) {
      empty = nullptr;
      sched_yield();
    }
  }
  giver.join();
}

// All at once, each holding a block until the last has come.
void together(int count) {
  std::atomic<int> here{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < count; ++number) {
    threads.emplace_back([&] {
      void* block = take(5000);
      ++here;
      while (here < count) sched_yield();
      give(block);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

pthread_key_t late_key;

// Frees and allocates in every round of destructors that there is, so also after any other library's last one.
void late(void* block) {
  give(block);
  pthread_setspecific(late_key, take(3000000));
}

void late_destructors() {
  pthread_key_create(&late_key, late);
  void* much = take(1 << 20);
  for (int number = 0; number < 20; ++number) {
    std::thread([] {
      struct Local {
        void* block = take(700);
        ~Local() { give(block); }
      };
      static thread_local Local local;
      local.block = (give(local.block), take(900));
      pthread_setspecific(late_key, take(100));
    }).join();
  }
  give(much);
}

// Takes all that the limit gives, from eight threads.
void greedy(size_t bytes) {
  std::vector<std::thread> threads;
  static std::atomic<bool> all_are_here;
  for (int number = 0; number < 8; ++number) {
    threads.emplace_back([=] {
      while (!all_are_here) sched_yield();
      for (int failed = 0; failed < 50;) failed += take(bytes) == nullptr ? 1 : 0;
    });
  }
  all_are_here = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "nothing";
  const int number = count > 2 ? atoi(arguments[2]) : 0;
  if (strcmp(what, "silent_holder") == 0) silent_holder();
  if (strcmp(what, "just_over_by_two") == 0) just_over_by_two();
  if (strcmp(what, "crossing") == 0) crossing(number, 20000);
  if (strcmp(what, "short_lived") == 0) short_lived(number);
  if (strcmp(what, "handed_over") == 0) handed_over(number);
  if (strcmp(what, "together") == 0) together(number);
  if (strcmp(what, "late_destructors") == 0) late_destructors();
  if (strcmp(what, "greedy") == 0) greedy(static_cast<size_t>(number));
  say("{\"allocations\": %ld, \"frees\": %ld, \"live_bytes\": %ld, \"live_bytes_peak\": %ld, \"refused\": %ld}\n",
      allocations.load(), frees.load(), live_bytes.load(), peak_bytes.load(), refused.load());
}

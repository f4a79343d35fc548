// A little of everything, for any allocator: sums as text, so that a changed result shows.
#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tally.h"

namespace {

long work(int seed) {
  std::map<std::string, std::vector<int>> table;
  for (int number = 0; number < 3000; ++number) {
    table[std::to_string((number * 7919 + seed) % 700)].push_back(number);
    if (number % 5 == 0) table.erase(std::to_string(number % 300));
  }
  long sum = 0;
  for (const auto& [key, values] : table) sum += static_cast<long>(key.size() * values.size());
  return sum;
}

}  // namespace

int main() {
  long sum = work(0);
  long sums[4];
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&sums, number] { sums[number] = work(number); });
  }
  for (std::thread& thread : threads) thread.join();
  for (long more : sums) sum += more;
  // What is counted from here is exact whatever the allocator.
  static void* blocks[2000];
  for (int number = 0; number < 2000; ++number) blocks[number] = took(malloc(300 + number), 300 + number);
  for (int number = 0; number < 2000; number += 4) free(gives(blocks[number], 300 + number));
  for (int number = 1; number < 2000; number += 4) {
    const size_t old_usable_bytes = malloc_usable_size(blocks[number]);
    blocks[number] = became(realloc(blocks[number], 5000), old_usable_bytes, 300 + number, 5000);
  }
  for (size_t alignment = 16; alignment <= 65536; alignment *= 2) {
    void* block = nullptr;
    if (posix_memalign(&block, alignment, 1000) != 0) return 5;
    took(block, 1000);
    took(aligned_alloc(alignment, alignment), alignment);
  }
  took(calloc(1000, 1000), 1000000);
  say("%ld\n", sum);
  tell_tally();
}

// A heap built into a program: what the documentation shows, run.
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "heap.h"

int main() {
  {
    std::vector<int, heapsmith::StlAllocator<int>> numbers;
    for (int i = 0; i < 1000; i++) numbers.push_back(i);
    long sum = 0;
    for (const int number : numbers) sum += number;
    std::printf("vector %zu %ld\n", numbers.size(), sum);
  }
  {
    heapsmith::MemoryResource resource;
    std::pmr::map<int, std::pmr::string> names(&resource);
    names.emplace(1, "a name that is too long for the string itself");
    names.emplace(2, "b");
    names.emplace(3, "c");
    std::printf("pmr %zu\n", names.size());
  }
  {
    heapsmith::Arena arena;
    const int* kept = arena.make<int>(7);
    const auto mark = arena.mark();
    for (int i = 0; i < 100000; i++) *arena.make<long>() = i;
    arena.release(mark);
    std::printf("arena %d\n", *kept);
  }
  void* forgotten = heapsmith::allocate(40);
  std::printf("leaked %zu\n", heapsmith::live_bytes());
  heapsmith::deallocate(forgotten);
  std::printf("leaked %zu\n", heapsmith::live_bytes());
}

// A heap built into a program: what the documentation shows, run.
#include <cstdint>
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
    heapsmith::LocalHeap heap;
    std::vector<int, heapsmith::LocalAllocator<int>> numbers(heap);
    for (int i = 0; i < 1000; i++) numbers.push_back(i);
    heapsmith::LocalResource resource(heap);
    std::pmr::map<int, std::pmr::string> names(&resource);
    names.emplace(1, "a name that is too long for the string itself");
    struct alignas(64) Line {
      int value;
    };
    std::vector<Line, heapsmith::LocalAllocator<Line>> lines({{1}, {2}, {3}}, heap);
    auto* text = heap.make<std::string>("text");
    std::printf("local %zu %zu %s %d\n", numbers.size(), names.size(), text->c_str(),
                reinterpret_cast<std::uintptr_t>(lines.data()) % 64 == 0);
    heap.destroy(text);
    void* block = heap.allocate(100);
    block = heap.reallocate(block, 100000);
    std::printf("local usable %d live %d\n", heap.usable_bytes(block) >= 100000, heap.live_bytes() >= 100000);
    heap.deallocate(block);
    heap.deallocate(nullptr);
  }
  {
    heapsmith::LocalHeap heap;
    for (int i = 0; i < 1000; i++) heap.allocate(i);
    heap.release();  // everything at once
    std::printf("local released %zu\n", heap.live_bytes());
    try {
      heap.allocate(~std::size_t{0} / 4);
    } catch (const std::bad_alloc&) {
      std::printf("local bad_alloc\n");
    }
  }
  {
    heapsmith::Arena arena;
    const int* kept = arena.make<int>(7);
    const auto mark = arena.mark();
    void* first = arena.allocate(100);
    for (int i = 0; i < 100000; i++) *arena.make<long>() = i;
    arena.allocate(1000000, 4096);
    arena.release(mark);
    std::printf("arena %d %d\n", *kept, first == arena.allocate(100));
    arena.release();
    std::vector<int, heapsmith::ArenaAllocator<int>> numbers(100, 1, arena);
    heapsmith::ArenaResource resource(arena);
    std::pmr::vector<int> more(numbers.begin(), numbers.end(), &resource);
    std::printf("arena %zu\n", more.size());
  }
  void* forgotten = heapsmith::allocate(40);
  std::printf("leaked %zu\n", heapsmith::live_bytes());
  heapsmith::deallocate(forgotten);
  std::printf("leaked %zu\n", heapsmith::live_bytes());
}

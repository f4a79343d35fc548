// A heap built into a program of one's own: allocators for the standard library and leak checks; local heaps and arenas
// are in heap/local_library.h.
//
//   std::vector<int, heapsmith::StlAllocator<int>> numbers;
//   heapsmith::MemoryResource resource;             std::pmr::vector<int> more(&resource);
//
// Nothing is replaced: malloc stays what it is. Unlike everything else here, this header uses the C++
// library.
#pragma once

#include <cstddef>
#include <memory_resource>
#include <new>
#include <type_traits>

#include "heap/heap.h"
#include "heap/local_library.h"

namespace heapsmith {

using SpecHeap = hs::SpecHeap;

// Every thread that allocated calls this before it ends, or is made through `Thread` below: its cache goes
// back.
inline void end_thread() { SpecHeap::thread_exit(); }

inline void* allocate(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  void* block = SpecHeap::allocate_aligned(alignment, bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
inline void deallocate(void* block) noexcept { SpecHeap::deallocate(block); }
// What is handed out and has not come back: 0 where nothing leaked. Approximate while other threads work.
inline std::size_t live_bytes() {
  std::size_t bytes = 0;
  for (const std::uint64_t of_class : SpecHeap::count_out_blocks().bytes) bytes += of_class;
  return bytes;
}

template <class T>
struct StlAllocator {
  using value_type = T;
  using is_always_equal = std::true_type;

  StlAllocator() noexcept = default;
  template <class U>
  StlAllocator(const StlAllocator<U>&) noexcept {}

  T* allocate(std::size_t count) {
    if (count > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(heapsmith::allocate(count * sizeof(T), alignof(T)));
  }
  void deallocate(T* block, std::size_t) noexcept { heapsmith::deallocate(block); }

  template <class U>
  bool operator==(const StlAllocator<U>&) const noexcept {
    return true;
  }
};

class MemoryResource : public std::pmr::memory_resource {
  void* do_allocate(std::size_t bytes, std::size_t alignment) override { return heapsmith::allocate(bytes, alignment); }
  void do_deallocate(void* block, std::size_t, std::size_t) override { heapsmith::deallocate(block); }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return dynamic_cast<const MemoryResource*>(&other) != nullptr;
  }
};

}  // namespace heapsmith

// A heap built into a program of one's own: allocators for the standard library, local heaps, arenas, leak
// checks.
//
//   std::vector<int, heapsmith::StlAllocator<int>> numbers;
//   heapsmith::MemoryResource resource;             std::pmr::vector<int> more(&resource);
//   heapsmith::Arena arena;                         int* brief = arena.make<int>(7);
//
// Nothing is replaced: malloc stays what it is. Unlike everything else here, this header uses the C++
// library.
#pragma once

#include <cstddef>
#include <memory_resource>
#include <new>
#include <type_traits>
#include <utility>

#include "heap/heap.h"

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

// Memory for things that end together: handed out by moving a pointer, given back all at once or to a mark.
class Arena {
 public:
  explicit Arena(std::size_t chunk_bytes = 64 * 1024) : chunk_bytes_(chunk_bytes) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { release(); }

  struct Mark {
    void* chunk;
    char* next;
  };

  void* allocate(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
    char* block = aligned(next_, alignment);
    if (next_ == nullptr || block > end_ || bytes > static_cast<std::size_t>(end_ - block)) {
      add_chunk(bytes + alignment);
      block = aligned(next_, alignment);
    }
    next_ = block + bytes;
    return block;
  }
  // Its destructor will not be called.
  template <class T, class... Arguments>
  T* make(Arguments&&... arguments) {
    static_assert(std::is_trivially_destructible_v<T>, "an arena calls no destructors");
    return new (allocate(sizeof(T), alignof(T))) T(std::forward<Arguments>(arguments)...);
  }

  Mark mark() const { return {chunk_, next_}; }
  // Everything allocated since the mark is gone.
  void release_to(const Mark& mark) {
    while (chunk_ != mark.chunk) drop_chunk();
    next_ = mark.next;
    end_ = chunk_ ? chunk_->end : nullptr;
  }
  void release() { release_to({nullptr, nullptr}); }

 private:
  struct Chunk {
    Chunk* before;
    char* end;
  };

  static char* aligned(char* at, std::size_t alignment) {
    return hs::pointer_to<char>(hs::round_up(hs::address_of(at), alignment));
  }
  void add_chunk(std::size_t least_bytes) {
    const std::size_t bytes = hs::larger_of(chunk_bytes_, least_bytes + sizeof(Chunk));
    auto* chunk = static_cast<Chunk*>(heapsmith::allocate(bytes));
    chunk->before = chunk_;
    chunk->end = reinterpret_cast<char*>(chunk) + bytes;
    chunk_ = chunk;
    next_ = reinterpret_cast<char*>(chunk + 1);
    end_ = chunk->end;
  }
  void drop_chunk() {
    Chunk* before = chunk_->before;
    heapsmith::deallocate(chunk_);
    chunk_ = before;
  }

  std::size_t chunk_bytes_;
  Chunk* chunk_ = nullptr;
  char* next_ = nullptr;
  char* end_ = nullptr;
};

}  // namespace heapsmith

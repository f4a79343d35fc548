// Local heaps and arenas in a C++ program, and what the standard library needs to live in them.
//
//   heapsmith::LocalHeap heap;                      one thread, one request, one data structure
//   std::vector<int, heapsmith::LocalAllocator<int>> numbers(heap);
//   heapsmith::LocalResource resource(heap);        std::pmr::vector<int> more(&resource);
//   heapsmith::Arena arena;                         auto mark = arena.mark();  ...  arena.release(mark);
//
// No locks: whoever lets several threads into one heap brings a lock. What ends, ends without destructors.
#pragma once

#include <cstddef>
#include <memory_resource>
#include <new>
#include <type_traits>
#include <utility>

#include "heap/heap.h"
#include "heap/local_classes.h"
#include "heap/local_heap.h"

namespace heapsmith {

// With the size classes and the pages of the spec; hardening belongs to the heap that all threads share.
class LocalHeap {
 public:
  LocalHeap() = default;
  LocalHeap(const LocalHeap&) = delete;
  LocalHeap& operator=(const LocalHeap&) = delete;

  // What every block is aligned to: that of malloc, unless the spec gives it up.
  static constexpr std::size_t guaranteed_alignment = hs::LocalClasses<hs::SpecSizes>::alignment();

  void* allocate(std::size_t bytes) {
    void* block = heap_.allocate(bytes);
    if (HS_UNLIKELY(block == nullptr)) throw std::bad_alloc();
    return block;
  }
  // Alignments are powers of two, up to 2 MiB.
  void* allocate(std::size_t bytes, std::size_t alignment) {
    void* block = heap_.allocate_aligned(alignment, bytes);
    if (HS_UNLIKELY(block == nullptr)) throw std::bad_alloc();
    return block;
  }
  void* reallocate(void* block, std::size_t bytes) {
    void* moved = heap_.reallocate(block, bytes);
    if (moved == nullptr) throw std::bad_alloc();
    return moved;
  }
  void deallocate(void* block) noexcept {
    if (HS_LIKELY(block != nullptr)) heap_.deallocate(block);
  }
  // Quicker, for who knows what was asked for (without an alignment).
  void deallocate(void* block, std::size_t bytes) noexcept { heap_.deallocate(block, bytes); }

  template <class T, class... Arguments>
  T* make(Arguments&&... arguments) {
    return new (allocate(sizeof(T), alignof(T))) T(std::forward<Arguments>(arguments)...);
  }
  template <class T>
  void destroy(T* object) noexcept {
    object->~T();
    deallocate(object);
  }

  std::size_t usable_bytes(const void* block) const noexcept { return heap_.usable_bytes(block); }
  // Everything at once; the heap can be used again.
  void release() noexcept { heap_.release(); }
  // Free pages go back to the system; answers how many bytes.
  std::size_t recycle() noexcept { return heap_.recycle(); }
  std::size_t live_bytes() const noexcept { return heap_.live_bytes(); }
  std::size_t committed_bytes() const noexcept { return heap_.charged_bytes(); }

 private:
  hs::LocalHeap<hs::LocalClasses<hs::SpecSizes>, hs::SpecPages> heap_;
};

// Memory for things that end together: handed out by moving a pointer, given back all at once or to a mark.
class Arena {
 public:
  explicit Arena(std::size_t chunk_bytes = 64 * 1024) noexcept : chunk_bytes_(chunk_bytes) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    release();
    drop(spare_);
  }

  class Mark {
    friend Arena;
    void* chunk = nullptr;
    std::uintptr_t next = 0;
  };

  void* allocate(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
    const std::uintptr_t start = hs::round_up(next_, alignment);
    if (HS_UNLIKELY(start > end_ || bytes >= end_ - start)) return allocate_in_new_chunk(bytes, alignment);
    next_ = start + bytes;
    return hs::pointer_to(start);
  }
  // Its destructor will not be called.
  template <class T, class... Arguments>
  T* make(Arguments&&... arguments) {
    static_assert(std::is_trivially_destructible_v<T>, "an arena calls no destructors");
    return new (allocate(sizeof(T), alignof(T))) T(std::forward<Arguments>(arguments)...);
  }

  Mark mark() const noexcept {
    Mark made;
    made.chunk = chunk_;
    made.next = next_;
    return made;
  }
  // Everything allocated since the mark is gone, and so is every mark made since.
  void release(const Mark& mark) noexcept {
    while (chunk_ != mark.chunk) {
      Chunk* before = chunk_->before;
      set_aside(chunk_);
      chunk_ = before;
    }
    next_ = mark.next;
    end_ = chunk_ ? chunk_->end : 0;
  }
  // Everything; the arena can be used again.
  void release() noexcept { release(Mark()); }

 private:
  struct Chunk {
    Chunk* before;
    std::uintptr_t end;
  };
  static constexpr unsigned most_spare = 8;

  HS_SLOW_PATH void* allocate_in_new_chunk(std::size_t bytes, std::size_t alignment) {
    if (bytes > PTRDIFF_MAX / 2 || alignment > PTRDIFF_MAX / 2) throw std::bad_alloc();
    const std::size_t least_bytes = sizeof(Chunk) + bytes + alignment;
    Chunk* chunk;
    if (spare_ && least_bytes <= chunk_bytes_) {
      chunk = spare_;
      spare_ = chunk->before;
      spare_count_--;
    } else {
      const std::size_t whole_bytes = hs::larger_of(chunk_bytes_, least_bytes);
      chunk = static_cast<Chunk*>(hs::SpecHeap::allocate(whole_bytes));
      if (chunk == nullptr) throw std::bad_alloc();
      chunk->end = hs::address_of(chunk) + whole_bytes;
    }
    chunk->before = chunk_;
    chunk_ = chunk;
    end_ = chunk->end;
    const std::uintptr_t start = hs::round_up(hs::address_of(chunk + 1), alignment);
    next_ = start + bytes;
    return hs::pointer_to(start);
  }
  // For the next round; chunks that were made for one large block go.
  void set_aside(Chunk* chunk) noexcept {
    if (spare_count_ == most_spare || chunk->end - hs::address_of(chunk) != chunk_bytes_) {
      hs::SpecHeap::deallocate(chunk);
      return;
    }
    chunk->before = spare_;
    spare_ = chunk;
    spare_count_++;
  }
  static void drop(Chunk* chunk) noexcept {
    while (chunk) {
      Chunk* before = chunk->before;
      hs::SpecHeap::deallocate(chunk);
      chunk = before;
    }
  }

  std::uintptr_t next_ = 0;
  std::uintptr_t end_ = 0;
  Chunk* chunk_ = nullptr;
  Chunk* spare_ = nullptr;
  unsigned spare_count_ = 0;
  std::size_t chunk_bytes_;
};

// What a container of the standard library allocates with; it lives no longer than its source.
template <class T, class Source>
class AllocatorFrom {
 public:
  using value_type = T;
  // Containers take their heap along when they are moved or swapped.
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  AllocatorFrom(Source& source) noexcept : source_(&source) {}
  template <class U>
  AllocatorFrom(const AllocatorFrom<U, Source>& other) noexcept : source_(&other.source()) {}

  T* allocate(std::size_t count) {
    if (count > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(source_->allocate(count * sizeof(T), alignof(T)));
  }
  void deallocate(T* block, std::size_t count) noexcept {
    if constexpr (std::is_same_v<Source, LocalHeap>) {
      if constexpr (alignof(T) <= LocalHeap::guaranteed_alignment) {
        source_->deallocate(block, count * sizeof(T));
      } else {
        source_->deallocate(block);
      }
    }
  }
  Source& source() const noexcept { return *source_; }
  template <class U>
  bool operator==(const AllocatorFrom<U, Source>& other) const noexcept {
    return source_ == &other.source();
  }

 private:
  Source* source_;
};
template <class T>
using LocalAllocator = AllocatorFrom<T, LocalHeap>;
template <class T>
using ArenaAllocator = AllocatorFrom<T, Arena>;

// The same for std::pmr.
template <class Source>
class ResourceFrom final : public std::pmr::memory_resource {
 public:
  explicit ResourceFrom(Source& source) noexcept : source_(&source) {}

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override { return source_->allocate(bytes, alignment); }
  void do_deallocate(void* block, std::size_t bytes, std::size_t alignment) override {
    if constexpr (std::is_same_v<Source, LocalHeap>) {
      if (alignment <= LocalHeap::guaranteed_alignment) {
        source_->deallocate(block, bytes);
      } else {
        source_->deallocate(block);
      }
    }
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }

  Source* source_;
};
using LocalResource = ResourceFrom<LocalHeap>;
using ArenaResource = ResourceFrom<Arena>;

}  // namespace heapsmith

// A heap: the composition of one policy per slot, and the paths from a call of malloc to a block.
//
//   allocate    size class -> this thread's list                         (the hot path: no lock, no atomic)
//                 list empty  -> ThreadCache::refill -> Central::fetch -> PageHeap::allocate -> Pages
//               beyond the largest class -> a span of its own
//   deallocate  page map -> size class -> this thread's list                         (the hot path)
//                 list full   -> ThreadCache::overflow -> Central::release -> PageHeap::free -> Pages
//                 no class    -> a large block, or a pointer that is not ours
//
// Budget of the hot path: one load from the page map, one list in one cache line.
#pragma once

#include <string.h>

#include "base/compiler.h"
#include "heap/central.h"
#include "heap/listener.h"
#include "heap/page_heap.h"
#include "heap/thread_cache.h"
#include "os/die.h"
#include "policy/links/plain_links.h"
#include "policy/lock/futex_lock.h"
#include "policy/sizes/size_classes.h"

namespace hs {

// What a forged heap counts and holds, for statistics.
struct HeapGauges {
  size_t committed_bytes;
  size_t reserved_bytes;
  size_t metadata_bytes;
  size_t free_cached_bytes;
  size_t dirty_bytes;
};

template <Sizes SizesPolicy, Cache CachePolicy, Remote RemotePolicy, Pages PagePolicy, Lock LockPolicy = FutexLock,
          class LinksPolicy = PlainLinks, OperatingSystem OsType = Linux>
struct Heap {
  using Os = OsType;
  using Classes = SizeClasses<SizesPolicy>;
  using Cache = CachePolicy;
  using Remote = RemotePolicy;
  using LockType = LockPolicy;
  using Links = LinksPolicy;
  using PageHeapType = PageHeap<Os, LockPolicy, PagePolicy>;
  using Map = typename PageHeapType::Map;
  using CentralType = Central<Heap>;
  using CacheType = ThreadCache<Heap>;

  static constexpr size_t largest_request_bytes = static_cast<size_t>(PTRDIFF_MAX);

  // Set by whoever exports this heap: called once by every thread that begins to use it.
  static inline void (*on_thread_attached)();
  static void thread_attached() {
    if (on_thread_attached) on_thread_attached();
  }

  static inline constinit Listener listener{};
  // Told where no cache is involved.
  static void tell(size_t block_bytes, int64_t count) {
    if (listener.blocks) listener.blocks(block_bytes, count);
  }
  static void listen(const Listener& to) { listener = to; }
  // What this thread has is told up to this moment.
  static void tell_current() { CacheType::tell_current(); }
  // How far off what was told can be by now.
  static size_t untold_bytes() { return CacheType::untold_bytes(); }
  static bool admits(size_t bytes) { return HS_LIKELY(!listener.admits) || listener.admits(bytes); }

  // --- the hot path
  // ---------------------------------------------------------------------------------------------

  // nullptr when there is no memory; zero bytes are a block like any other.
  HS_FAST_PATH static void* allocate(size_t requested_bytes) {
    if (HS_UNLIKELY(requested_bytes > Classes::largest_bytes)) return allocate_large(requested_bytes);
    unsigned class_index = Classes::class_of(requested_bytes);
    if constexpr (Classes::set_count > 1)
      class_index = Classes::translations.of[CacheType::current->class_set][class_index];
    return allocate_class(class_index);
  }

  HS_FAST_PATH static void* allocate_class(unsigned class_index) {
    FreeList& list = CacheType::current->lists[class_index];
    void* block = list.head;
    if (HS_UNLIKELY(!block)) return CacheType::refill(class_index);
    void* next = Links::next(block);
    __builtin_prefetch(next);
    list.head = next;
    list.room++;
    return block;
  }

  HS_FAST_PATH static void deallocate(void* block) {
    const uintptr_t address = address_of(block);
    PageMapLeaf* leaf = Map::leaf_of(address);
    if (HS_UNLIKELY(!leaf)) return deallocate_unknown(block);
    const unsigned class_index = leaf->class_index[Map::page_of(address)];
    if constexpr (Remote::to_span) {
      if (HS_UNLIKELY(class_index != 0 && load_relaxed(load_relaxed(leaf->span[Map::page_of(address)])->blocks.owner) !=
                                              CacheType::current))
        return deallocate_remote(class_index, block);
    }
    // Loaded by itself, not as a part of the addition: the list is found earlier, and with it what the next calls wait for.
    CacheType* cache = CacheType::current;
    __asm__("" : "+r"(cache));
    FreeList& list = cache->lists[class_index];
    // No class has no room either: large blocks and strange pointers leave the hot path by the same branch.
    if (HS_UNLIKELY(list.room == 0)) return deallocate_slowly(class_index, block);
    Links::set_next(block, list.head);
    __asm__ volatile("" ::: "memory");  // a fork between the two stores must find a list
    list.head = block;
    list.room--;
  }

  // --- the rest of malloc's family
  // ------------------------------------------------------------------------------

  static void* allocate_zeroed(size_t requested_bytes) {
    if (HS_UNLIKELY(requested_bytes > zeroed_by_pages_from)) return allocate_zeroed_large(requested_bytes);
    void* block = allocate(requested_bytes);
    if (HS_LIKELY(block != nullptr)) memset(block, 0, requested_bytes);
    return block;
  }

  // `alignment` is a power of two.
  static void* allocate_aligned(size_t alignment, size_t requested_bytes) {
    if (alignment <= Classes::guaranteed_alignment) return allocate(requested_bytes);
    if (const unsigned class_index = Classes::class_of_aligned(alignment, requested_bytes))
      return allocate_class(class_index);
    return allocate_span(requested_bytes, larger_of(alignment, page_bytes));
  }

  // The contents up to the smaller of both sizes are kept; on failure nullptr, and the block is as it was.
  static void* reallocate(void* block, size_t requested_bytes) {
    if (!block) return allocate(requested_bytes);
    const size_t old_bytes = usable_bytes(block);
    if (requested_bytes <= old_bytes) {
      if (old_bytes <= Classes::largest_bytes) {
        // Worth moving only for half the block and more.
        if (requested_bytes >= old_bytes / 2 || old_bytes <= 64) return block;
      } else if (requested_bytes > Classes::largest_bytes) {
        return resize_large(block, requested_bytes, old_bytes);
      }
    } else if (old_bytes > Classes::largest_bytes) {
      return resize_large(block, requested_bytes, old_bytes);
    }
    return move_block(block, requested_bytes, old_bytes);
  }

  static size_t usable_bytes(const void* block) {
    if (!block) return 0;
    const uintptr_t address = address_of(block);
    PageMapLeaf* leaf = Map::leaf_of(address);
    if (HS_UNLIKELY(!leaf)) return unknown_pointer("malloc_usable_size()", block);
    if (const unsigned class_index = leaf->class_index[Map::page_of(address)]) return Classes::bytes_of(class_index);
    Span* span = large_span(block);
    return span ? span->bytes() : unknown_pointer("malloc_usable_size()", block);
  }

  // This thread allocates from the classes forged for threads of that name; "" is everybody's.
  static bool use_heap(const char* name) { return CacheType::use_set(name); }

  // --- threads, forks, recycling
  // --------------------------------------------------------------------------------

  static void thread_exit() { CacheType::detach(); }

  static void fork_prepare() {
    CacheType::registry_lock().lock();
    CentralType::lock_all();
    PageHeapType::lock().lock();
    PageHeapType::Meta::lock().lock();
  }
  static void fork_parent() {
    PageHeapType::Meta::lock().unlock();
    PageHeapType::lock().unlock();
    CentralType::unlock_all();
    CacheType::registry_lock().unlock();
  }
  static void fork_child() {
    PageHeapType::Meta::lock().reset();
    PageHeapType::lock().reset();
    CentralType::reset_locks();
    CacheType::registry_lock().reset();
    PageHeapType::adopt_purging();
    CacheType::adopt_all();
  }

  // Gives every page back that holds no block; answers how many bytes.
  static size_t recycle() {
    CacheType::flush_current();
    CentralType::recycle(true);
    return PageHeapType::recycle();
  }

  // Blocks that are out, by class (0: larger than any class): with the program, or in the cache of another
  // thread.
  struct OutBlocks {
    uint64_t blocks[Classes::index_count];
    uint64_t bytes[Classes::index_count];
  };
  static OutBlocks count_out_blocks() {
    OutBlocks out{};
    CacheType::flush_current();
    CentralType::recycle(true);
    PageHeapType::visit_spans([&](const Span& span) {
      if (span.state == SpanState::blocks) {
        out.blocks[span.class_index] += span.blocks.used_blocks;
        out.bytes[span.class_index] += span.blocks.used_blocks * Classes::bytes_of(span.class_index);
      } else if (span.state == SpanState::large) {
        out.blocks[0]++;
        out.bytes[0] += span.bytes();
      }
    });
    return out;
  }

  static HeapGauges gauges() {
    const size_t metadata_bytes = PageHeapType::Meta::used_bytes();
    return {PageHeapType::live_bytes() + PageHeapType::dirty_bytes() + metadata_bytes,
            PageHeapType::reserved_bytes() + Map::reserved_bytes(), metadata_bytes,
            CacheType::cached_bytes() + CentralType::waiting_bytes() + PageHeapType::dirty_bytes(),
            PageHeapType::dirty_bytes()};
  }

 private:
  // From here on a block is a span, which the pages may have zeroed already.
  static constexpr size_t zeroed_by_pages_from = smaller_of(32_KiB, Classes::largest_bytes);

  static HS_SLOW_PATH void* allocate_large(size_t requested_bytes) {
    return allocate_span(requested_bytes, page_bytes);
  }

  static void* allocate_span(size_t requested_bytes, size_t alignment) {
    if (requested_bytes > largest_request_bytes || alignment > largest_request_bytes / 2) return nullptr;
    if (!admits(requested_bytes)) return nullptr;
    Span* span = PageHeapType::allocate(larger_of(divide_up(requested_bytes, page_bytes), 1), alignment);
    if (!span) return nullptr;
    tell_large(span->bytes(), 1);
    return pointer_to(span->start);
  }

  static HS_SLOW_PATH void* allocate_zeroed_large(size_t requested_bytes) {
    bool zeroed = false;
    void* block;
    if (requested_bytes <= Classes::largest_bytes) {
      const unsigned class_index = Classes::class_of(requested_bytes);
      if (!CentralType::is_single(class_index) || CacheType::current->lists[class_index].head) {
        block = allocate_class(class_index);
      } else {
        block = CentralType::fetch_fresh(class_index, zeroed);
        if (block) tell(Classes::bytes_of(class_index), 1);
      }
    } else {
      block = allocate_span(requested_bytes, page_bytes);
      zeroed = block && large_span(block)->zeroed;
    }
    if (block && !zeroed) memset(block, 0, requested_bytes);
    return block;
  }

  static Span* large_span(const void* block) {
    Span* span = Map::span_of(address_of(block));
    return span && span->start == address_of(block) && span->state == SpanState::large ? span : nullptr;
  }

  static HS_SLOW_PATH void deallocate_slowly(unsigned class_index, void* block) {
    if (class_index != 0) return CacheType::overflow(class_index, block);
    Span* span = large_span(block);
    if (!span) return deallocate_unknown(block);
    const size_t bytes = span->bytes();
    PageHeapType::free(span);
    tell_large(bytes, -1);
  }
  static void tell_large(size_t bytes, int64_t count) {
    tell(bytes, count);
    if (listener.visit) listener.visit(Os::now_ms());
  }
  static HS_SLOW_PATH void deallocate_remote(unsigned class_index, void* block) {
    if (CentralType::is_single(class_index)) return CacheType::overflow(class_index, block);
    CentralType::release_remote(class_index, Map::span_of(address_of(block)), block);
    tell(Classes::bytes_of(class_index), -1);
  }
  static HS_SLOW_PATH void deallocate_unknown(void* block) {
    if (block) unknown_pointer("free()", block);
  }
  static HS_SLOW_PATH size_t unknown_pointer(const char* caller, const void* pointer) {
    die(caller, "not a block of this heap, or freed before", pointer);
  }

  static void* resize_large(void* block, size_t requested_bytes, size_t old_bytes) {
    if (requested_bytes > largest_request_bytes) return nullptr;
    Span* span = large_span(block);
    if (!span) unknown_pointer("realloc()", block);
    const size_t page_count = divide_up(requested_bytes, page_bytes);
    if (requested_bytes > old_bytes && !admits(requested_bytes - old_bytes)) return nullptr;
    if (PageHeapType::resize(span, page_count)) {
      tell_resized(old_bytes, span->bytes());
      return block;
    }
    if (Span* moved = PageHeapType::move(span, page_count)) {
      tell_resized(old_bytes, moved->bytes());
      return pointer_to(moved->start);
    }
    return move_block(block, requested_bytes, old_bytes);
  }
  static void tell_resized(size_t old_bytes, size_t new_bytes) {
    if (old_bytes == new_bytes) return;
    tell(old_bytes, -1);
    tell(new_bytes, 1);
  }
  static HS_SLOW_PATH void* move_block(void* block, size_t requested_bytes, size_t old_bytes) {
    void* moved = allocate(requested_bytes);
    if (!moved) return nullptr;
    memcpy(moved, block, smaller_of(old_bytes, requested_bytes));
    deallocate(block);
    return moved;
  }
};

}  // namespace hs

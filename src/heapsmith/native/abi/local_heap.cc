// Local heaps behind a C interface: the heap of heap/local_heap.h with a lock, a limit, figures, and NumPy's handler.
#include "abi/local_heap.h"

#include <pthread.h>
#include <string.h>

#include <new>

#include "abi/local_choice.h"
#include "base/compiler.h"
#include "heap/local_heap.h"
#include "policy/lock/futex_lock.h"

namespace {

using Heap = hs::LocalHeap<hs::ChosenClasses, hs::ChosenPages>;
using hs::operator""_MiB;

// NumPy's own layout, fixed by its binary interface (NEP 49).
struct NumpyAllocator {
  void* context;
  void* (*allocate)(void* context, size_t bytes);
  void* (*allocate_zeroed)(void* context, size_t count, size_t bytes);
  void* (*reallocate)(void* context, void* block, size_t bytes);
  void (*deallocate)(void* context, void* block, size_t bytes);
};
struct NumpyHandler {
  char name[127];
  uint8_t version;
  NumpyAllocator allocator;
};
constexpr char kHandlerCapsule[] = "mem_handler";
constexpr char kBlockCapsule[] = "heapsmith.block";
constexpr size_t kNumpyAlignment = 64;

}  // namespace

struct hs_local_heap {
  hs_local_heap(const hs::ChosenPages& pages, const hs::ChosenClasses& classes) : heap(pages, classes) {
    heap.belong_to(this);
  }

  hs::FutexLock lock;
  Heap heap;
  uint64_t limit_bytes = 0;
  uint64_t live_bytes = 0;
  uint64_t live_bytes_peak = 0;
  uint64_t allocations = 0;
  uint64_t frees = 0;
  uint64_t failures = 0;
  uint64_t looked_ms = 0;
  bool is_retired = false;
  NumpyHandler numpy{};
  hs_local_heap* before = nullptr;
  hs_local_heap* after = nullptr;

  void* allocate(size_t bytes, size_t alignment) {
    return insist(bytes, [=, this] { return heap.allocate_aligned(alignment, bytes); });
  }
  void* allocate_zeroed(size_t bytes) {
    return insist(bytes, [=, this] { return heap.allocate_zeroed(kNumpyAlignment, bytes); });
  }

  void* reallocate(void* block, size_t bytes) {
    const size_t usable_bytes = block ? heap.usable_bytes(block) : 0;
    if (block && bytes <= usable_bytes && bytes >= usable_bytes / 2) return block;
    void* moved = allocate(bytes, kNumpyAlignment);
    if (!moved || !block) return moved;
    memcpy(moved, block, hs::smaller_of(bytes, usable_bytes));
    deallocate(block);
    return moved;
  }

  // True where the heap has to end: it was retired, and this was its last block.
  bool deallocate(void* block) {
    lock.lock();
    live_bytes -= heap.usable_bytes(block);
    frees++;
    heap.deallocate(block);
    look_around();
    const bool ends = is_retired && allocations == frees;
    lock.unlock();
    return ends;
  }

 private:
  // Every so many calls; free small blocks go back when they are more than what is live, and large ones by their age.
  static constexpr uint64_t kCallsBetween = 256;
  static constexpr uint64_t kLookEvery_ms = 1000;
  static constexpr size_t kFreeSmallBytes = 4_MiB;

  template <class Allocate>
  void* insist(size_t bytes, Allocate allocate) {
    lock.lock();
    void* block = bytes > limit_bytes - live_bytes ? nullptr : allocate_within(bytes, allocate);
    if (block) {
      count(heap.usable_bytes(block));
      allocations++;
    } else {
      failures++;
    }
    lock.unlock();
    return block;
  }
  template <class Allocate>
  void* allocate_within(size_t bytes, Allocate allocate) {
    // What is kept counts as little as what is not there.
    if (heap.kept_bytes() > 0 && heap.charged_bytes() + bytes > limit_bytes) heap.recycle();
    void* block = allocate();
    if (!block || heap.usable_bytes(block) <= limit_bytes - live_bytes) return block;
    heap.deallocate(block);
    return nullptr;
  }
  void count(size_t more_bytes) {
    live_bytes += more_bytes;
    if (live_bytes > live_bytes_peak) live_bytes_peak = live_bytes;
  }
  void look_around() {
    if (frees % kCallsBetween != 0) return;
    const uint64_t now_ms = hs::Linux::now_ms();
    if (now_ms - looked_ms < kLookEvery_ms) return;
    looked_ms = now_ms;
    heap.age();
    const uint64_t free_bytes = heap.charged_bytes() - heap.kept_bytes() - live_bytes;
    if (free_bytes > kFreeSmallBytes && free_bytes > live_bytes) heap.recycle();
  }
};

namespace {

// All heaps, so that a fork finds none of them half changed.
hs::FutexLock heaps_lock;
hs_local_heap* heaps;
bool forks_are_followed;
void* (*get_capsule_pointer)(void*, const char*);

void before_fork() {
  heaps_lock.lock();
  for (hs_local_heap* heap = heaps; heap; heap = heap->after) heap->lock.lock();
}
void after_fork() {
  for (hs_local_heap* heap = heaps; heap; heap = heap->after) heap->lock.unlock();
  heaps_lock.unlock();
}
void after_fork_in_child() {
  for (hs_local_heap* heap = heaps; heap; heap = heap->after) heap->lock.reset();
  heaps_lock.reset();
}

hs_local_heap* heap_of(const void* block) { return static_cast<hs_local_heap*>(Heap::owner_of(block)); }

constexpr size_t kHeapBytes = hs::round_up(sizeof(hs_local_heap), hs::page_bytes);

void* numpy_allocate(void* heap, size_t bytes) {
  return static_cast<hs_local_heap*>(heap)->allocate(bytes, kNumpyAlignment);
}
void* numpy_allocate_zeroed(void* heap, size_t count, size_t bytes) {
  size_t whole_bytes = 0;
  if (__builtin_mul_overflow(count, bytes, &whole_bytes)) return nullptr;
  return static_cast<hs_local_heap*>(heap)->allocate_zeroed(whole_bytes);
}
void* numpy_reallocate(void* heap, void* block, size_t bytes) {
  return static_cast<hs_local_heap*>(heap)->reallocate(block, bytes);
}
void numpy_deallocate(void* heap, void* block, size_t) {
  if (block) static_cast<hs_local_heap*>(heap)->deallocate(block);
}

}  // namespace

extern "C" {

HS_EXPORT hs_local_heap_t* hs_local_create(const hs_local_options_t* options) {
  hs::ChosenClasses classes;
  if (!options || options->size != sizeof *options || options->huge_pages > HS_HUGE_PAGES_ALWAYS ||
      !classes.choose(options->class_bytes, options->class_count))
    return nullptr;
  hs::ChosenPages pages;
  pages.retain_bytes = options->retain_bytes;
  pages.retain_ms = options->retain_ms;
  pages.prefaults = options->prefault != 0;
  if (options->huge_pages == HS_HUGE_PAGES_LARGE) pages.huge_from_bytes = hs::LocalSegment::bytes + 1;
  if (options->huge_pages == HS_HUGE_PAGES_ALWAYS) pages.huge_from_bytes = hs::huge_page_bytes;
  void* place = hs::Linux::map(kHeapBytes);
  if (!place) return nullptr;
  auto* heap = new (place) hs_local_heap(pages, classes);
  heap->limit_bytes = options->limit_bytes;
  heaps_lock.lock();
  if (!forks_are_followed) forks_are_followed = pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0;
  heap->after = heaps;
  if (heaps) heaps->before = heap;
  heaps = heap;
  heaps_lock.unlock();
  return heap;
}

HS_EXPORT void hs_local_destroy(hs_local_heap_t* heap) {
  heaps_lock.lock();
  (heap->before ? heap->before->after : heaps) = heap->after;
  if (heap->after) heap->after->before = heap->before;
  heaps_lock.unlock();
  heap->~hs_local_heap();
  hs::Linux::unmap(heap, kHeapBytes);
}

HS_EXPORT void hs_local_retire(hs_local_heap_t* heap) {
  heap->lock.lock();
  heap->is_retired = true;
  const bool ends = heap->allocations == heap->frees;
  heap->lock.unlock();
  if (ends) hs_local_destroy(heap);
}

HS_EXPORT void* hs_local_allocate(hs_local_heap_t* heap, size_t bytes, size_t alignment) {
  if (!hs::is_power_of_two(alignment)) return nullptr;
  return heap->allocate(bytes, alignment);
}
HS_EXPORT void hs_local_free(void* block) {
  if (!block) return;
  hs_local_heap* heap = heap_of(block);
  if (heap->deallocate(block)) hs_local_destroy(heap);
}
HS_EXPORT size_t hs_local_usable_bytes(const void* block) {
  return block ? heap_of(block)->heap.usable_bytes(block) : 0;
}

HS_EXPORT size_t hs_local_trim(hs_local_heap_t* heap) {
  heap->lock.lock();
  const size_t bytes = heap->heap.recycle();
  heap->lock.unlock();
  return bytes;
}

HS_EXPORT void hs_local_stats(hs_local_heap_t* heap, hs_local_stats_t* stats) {
  heap->lock.lock();
  hs_local_stats_t found = {
      sizeof found,           0,           heap->live_bytes, heap->live_bytes_peak, heap->allocations - heap->frees,
      heap->allocations,      heap->frees, heap->failures,   heap->limit_bytes,     heap->heap.charged_bytes(),
      heap->heap.kept_bytes()};
  heap->lock.unlock();
  memcpy(stats, &found, hs::smaller_of(stats->size, sizeof found));
}

HS_EXPORT void* hs_local_numpy_handler(hs_local_heap_t* heap) {
  heap->numpy = {"heapsmith", 1, {heap, numpy_allocate, numpy_allocate_zeroed, numpy_reallocate, numpy_deallocate}};
  return &heap->numpy;
}

HS_EXPORT void hs_local_bind(void* (*get_pointer)(void*, const char*)) { get_capsule_pointer = get_pointer; }

HS_EXPORT void hs_local_block_ended(void* capsule) { hs_local_free(get_capsule_pointer(capsule, kBlockCapsule)); }

HS_EXPORT void hs_local_numpy_ended(void* capsule) {
  auto* handler = static_cast<NumpyHandler*>(get_capsule_pointer(capsule, kHandlerCapsule));
  if (handler) hs_local_destroy(static_cast<hs_local_heap*>(handler->allocator.context));
}

}  // extern "C"

// Open Enclave's allocator interface over a forged heap whose pages come from one region.
#include "abi/oe_allocator.h"

#include <errno.h>
#include <stdint.h>

#include "base/atomic.h"
#include "heap/heap.h"
#include "policy/cache/bounded_cache.h"
#include "policy/lock/futex_lock.h"
#include "policy/pages/region_pages.h"
#include "policy/remote/remote_batch.h"
#include "policy/sizes/geometric.h"

namespace {

using RegionHeap = hs::Heap<hs::Geometric<16, 32768, 4>, hs::BoundedCache<65536, 4096, 64>, hs::RemoteBatch<4>,
                            hs::RegionPages, hs::FutexLock, hs::PlainLinks>;

uintptr_t region_start = 0;
uintptr_t region_end = 0;
bool is_open = false;
// Usable bytes of live blocks. One counter for all threads: its peak is exact because every allocation meets it.
size_t current_bytes = 0;
size_t peak_bytes = 0;
oe_allocation_failure_callback_t failure_callback = nullptr;

void* counted(void* block) {
  const size_t bytes = RegionHeap::usable_bytes(block);
  hs::raise_to(peak_bytes, hs::fetch_add_relaxed(current_bytes, bytes) + bytes);
  return block;
}

void uncount(void* block) { hs::fetch_add_relaxed(current_bytes, size_t{0} - RegionHeap::usable_bytes(block)); }

void* fail(const char* function, size_t bytes) {
  errno = ENOMEM;
  if (auto* callback = hs::load_acquire(failure_callback)) callback("", 0, function, bytes);
  return nullptr;
}

// In a region that is full, what lies idle in caches is the memory that is left.
template <class Allocate>
void* insist(Allocate allocate) {
  if (!hs::load_acquire(is_open)) return nullptr;
  void* block = allocate();
  if (block == nullptr) {
    RegionHeap::recycle();
    block = allocate();
  }
  return block == nullptr ? nullptr : counted(block);
}

void* allocate_aligned(size_t alignment, size_t bytes) {
  return insist([=] { return RegionHeap::allocate_aligned(alignment, bytes); });
}

}  // namespace

extern "C" {

HS_EXPORT void oe_allocator_init(void* start, void* end) {
  if (region_end != 0 || end <= start) return;
  region_start = hs::address_of(start);
  region_end = hs::address_of(end);
  hs::RegionPages::give(start, end);
  hs::store_release(is_open, true);
}

HS_EXPORT void oe_allocator_cleanup() { hs::store_release(is_open, false); }

HS_EXPORT void oe_allocator_thread_init() {}

HS_EXPORT void oe_allocator_thread_cleanup() { RegionHeap::thread_exit(); }

HS_EXPORT void* oe_allocator_malloc(size_t bytes) {
  void* block = insist([=] { return RegionHeap::allocate(bytes); });
  return block != nullptr ? block : fail("oe_malloc", bytes);
}

HS_EXPORT void oe_allocator_free(void* block) {
  if (block == nullptr) return;
  uncount(block);
  RegionHeap::deallocate(block);
}

HS_EXPORT void* oe_allocator_calloc(size_t count, size_t bytes) {
  size_t whole_bytes = 0;
  if (__builtin_mul_overflow(count, bytes, &whole_bytes)) return fail("oe_calloc", SIZE_MAX);
  void* block = insist([=] { return RegionHeap::allocate_zeroed(whole_bytes); });
  return block != nullptr ? block : fail("oe_calloc", whole_bytes);
}

HS_EXPORT void* oe_allocator_realloc(void* block, size_t bytes) {
  if (block == nullptr) return oe_allocator_malloc(bytes);
  if (bytes == 0) {
    oe_allocator_free(block);
    return nullptr;
  }
  const size_t before_bytes = RegionHeap::usable_bytes(block);
  void* moved = hs::load_acquire(is_open) ? RegionHeap::reallocate(block, bytes) : nullptr;
  if (moved == nullptr) return fail("oe_realloc", bytes);
  const size_t now_bytes = hs::fetch_add_relaxed(current_bytes, RegionHeap::usable_bytes(moved) - before_bytes);
  hs::raise_to(peak_bytes, now_bytes + RegionHeap::usable_bytes(moved) - before_bytes);
  return moved;
}

HS_EXPORT void* oe_allocator_aligned_alloc(size_t alignment, size_t bytes) {
  if (!hs::is_power_of_two(alignment) || bytes % alignment != 0) {
    errno = EINVAL;
    return nullptr;
  }
  void* block = allocate_aligned(alignment, bytes);
  return block != nullptr ? block : fail("oe_aligned_alloc", bytes);
}

HS_EXPORT int oe_allocator_posix_memalign(void** into, size_t alignment, size_t bytes) {
  if (into == nullptr || !hs::is_power_of_two(alignment) || alignment % sizeof(void*) != 0) return EINVAL;
  void* block = allocate_aligned(alignment, bytes);
  if (block == nullptr) {
    fail("oe_posix_memalign", bytes);
    return ENOMEM;
  }
  *into = block;
  return 0;
}

HS_EXPORT size_t oe_allocator_malloc_usable_size(void* block) { return RegionHeap::usable_bytes(block); }

HS_EXPORT oe_result_t oe_allocator_mallinfo(oe_mallinfo_t* info) {
  if (info == nullptr) return OE_INVALID_PARAMETER;
  if (region_end == 0) return OE_FAILURE;  // there is no heap before it is given its region
  const size_t current = hs::load_relaxed(current_bytes);
  const size_t peak = hs::load_relaxed(peak_bytes);
  *info = {region_end - region_start, current, peak > current ? peak : current};
  return OE_OK;
}

HS_EXPORT oe_result_t oe_set_allocation_failure_callback(oe_allocation_failure_callback_t callback) {
  hs::store_release(failure_callback, callback);
  return OE_OK;
}

}  // extern "C"

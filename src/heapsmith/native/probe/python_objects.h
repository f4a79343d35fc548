// CPython's own objects: which blocks lie in pymalloc's pools, how large they are, and the four functions that stand before
// its allocators. What those do is for whoever links them: count (python_counted.cc) or record (record/python.cc).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "wire/region.h"

// CPython's public allocator interface (PEP 445), the same from 3.4 on.
extern "C" {
struct PyMemAllocatorEx {
  void* context;
  void* (*allocate)(void* context, size_t bytes);
  void* (*allocate_zeroed)(void* context, size_t count, size_t bytes);
  void* (*reallocate)(void* context, void* block, size_t bytes);
  void (*deallocate)(void* context, void* block);
};
struct PyObjectArenaAllocator {
  void* context;
  void* (*allocate)(void* context, size_t bytes);
  void (*deallocate)(void* context, void* arena, size_t bytes);
};
}

namespace hs::probe {

// pymalloc: 16 KiB pools, aligned, in arenas of 1 MiB; a pool's header says which size its blocks have.
inline constexpr uint32_t kPoolBits = 14;
inline constexpr uint32_t kGranuleBits = 20;
inline constexpr size_t kArenaBytes = size_t{1} << kGranuleBits;
inline constexpr size_t kSizeIndexOffsetBytes = 36;
inline constexpr size_t kLargestObjectBytes = 512;

// What the interpreter's debug hooks put around an object.
inline constexpr size_t kDebugBytes = 32;
extern size_t largest_for_pools_bytes;

// Whether a request surely goes to the pools; an empty one goes to malloc, like a large one.
HS_FAST_PATH bool is_for_pools(size_t bytes) { return bytes - 1 < largest_for_pools_bytes; }

// Which pools are CPython's: a bit for each pool of a granule of 1 MiB, in leaves that are made when a first arena comes
// to their 8 GiB of addresses.
inline constexpr uint32_t kLeafBits = 13;
inline constexpr uint32_t kRootBits = 47 - kGranuleBits - kLeafBits;
extern uint64_t* pool_leaves[1u << kRootBits];

HS_FAST_PATH bool is_in_pool(const void* block) {
  const auto address = reinterpret_cast<uintptr_t>(block);
  const uintptr_t root = address >> (kGranuleBits + kLeafBits);
  if (HS_UNLIKELY(root >= (uintptr_t{1} << kRootBits))) return false;
  const uint64_t* leaf = load_relaxed(pool_leaves[root]);
  if (leaf == nullptr) return false;
  const uint64_t pools = load_relaxed(leaf[(address >> kGranuleBits) & ((1u << kLeafBits) - 1)]);
  return (pools >> ((address >> kPoolBits) & 63u) & 1u) != 0;
}

// The class of an object: pymalloc's own, counted from 1, is also the wire's, since both are 16 bytes wide.
HS_FAST_PATH uint32_t object_index(const void* block) {
  const auto pool = reinterpret_cast<uintptr_t>(block) & ~((uintptr_t{1} << kPoolBits) - 1);
  return *reinterpret_cast<const uint32_t*>(pool + kSizeIndexOffsetBytes) + 1;
}

HS_FAST_PATH size_t object_bytes(const void* block) { return size_t{object_index(block)} << 4; }

// Notes the pools of an arena, or that they have gone.
void mark_pools(void* arena, size_t bytes, bool present);

// While the interpreter takes or gives back an arena, what it maps is no mapping of the program's own.
extern __thread bool is_taking_arena;

namespace objects {

// `context` is the PyMemAllocatorEx that was there before.
void* allocate(void* context, size_t bytes);
void* allocate_zeroed(void* context, size_t count, size_t bytes);
void* reallocate(void* context, void* block, size_t bytes);
void deallocate(void* context, void* block);

void change_arena_bytes(int64_t bytes);
bool are_wanted();
// An interpreter was found, in the program or in a library that was loaded.
void found(void* library, uint32_t version);
// What became of the wish, for the outside.
void tell(wire::PythonState state, uint32_t version, const char* note);

}  // namespace objects

}  // namespace hs::probe

// How a block is made and given back, told to a heap that matches the two; any other heap is never asked.
#pragma once

#include "abi/heap.h"
#include "base/compiler.h"
#include "heap/family.h"

namespace hs {

// In a function that programs call: the block is made by whoever called it.
template <class Heap = TheHeap>
HS_FAST_PATH void* for_caller(void* block) {
  if constexpr (requires { Heap::note_origin(nullptr, nullptr); }) {
    if (HS_LIKELY(block != nullptr)) Heap::note_origin(block, __builtin_return_address(0));
  }
  return block;
}

template <class Heap = TheHeap>
HS_FAST_PATH void* made(void* block, [[maybe_unused]] Way way) {
  if constexpr (requires { Heap::deallocate_by(Way{}, nullptr, size_t{}); }) {
    if (HS_LIKELY(block != nullptr)) Heap::mark(block, way);
  }
  return block;
}

template <class Heap = TheHeap>
HS_FAST_PATH void give_back([[maybe_unused]] Way way, void* block, [[maybe_unused]] size_t said_bytes = unsaid_bytes) {
  if constexpr (requires { Heap::deallocate_by(Way{}, nullptr, size_t{}); }) {
    Heap::deallocate_by(way, block, said_bytes);
  } else {
    TheCounted::deallocate(block);
  }
}

}  // namespace hs

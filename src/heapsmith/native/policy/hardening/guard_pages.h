// GuardPages: an inaccessible page before and behind each large block, and the block itself inaccessible once
// freed.
//
// Promise: running over a large block by a page, or touching it after its end, ends the program at that
// instruction.
#pragma once

namespace hs {
struct GuardPages {};
}  // namespace hs

// ZeroOnFree: what a block held is gone when it is freed, and looked at again when it is handed out.
//
// Promise: no freed byte can be read again; what was written to a freed block ends the program when the block
// is handed out, at the latest. Every block is zero when malloc returns it.
#pragma once

namespace hs {
struct ZeroOnFree {};
}  // namespace hs

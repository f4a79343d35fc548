// RecordedOrigins: each block knows which thread made it, and from where.
//
// Promise: the leak file tells thread and place of every block that is still live at the end. Price: 16 bytes for each
// block, and a look at who calls.
#pragma once

namespace hs {
struct RecordedOrigins {};
}  // namespace hs

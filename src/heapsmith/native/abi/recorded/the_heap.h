// Chosen by the include path: the process's own malloc, recorded.
#pragma once

#include "heap/next.h"
#include "heap/recorded.h"

namespace hs {
using TheHeap = NextHeap;
using TheCounted = Recorded<TheHeap>;
}  // namespace hs

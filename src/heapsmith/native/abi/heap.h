// The heap behind the exported names.
#pragma once

#include "heap/counted.h"
#include "heap/next.h"

namespace hs {

using TheHeap = NextHeap;
using TheCounted = Counted<TheHeap>;

// Our malloc, whoever's comes first in the program.
extern "C" void* own_malloc(size_t bytes) __attribute__((visibility("hidden")));

}  // namespace hs

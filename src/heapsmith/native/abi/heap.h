// The heap behind the exported names: a forged one where a rendered configuration is on the include path, else the
// process's own malloc, watched or, where that is chosen by the include path, recorded.
#pragma once

#if __has_include("heap_config.h")

#include "heap/forged.h"
#include "heap_config.h"

namespace hs {
using TheHeap = ForgedHeap<SpecHeap>;
using TheCounted = Uncounted<TheHeap>;
}  // namespace hs

#elif __has_include("the_heap.h")

#include "the_heap.h"

#else

#include "heap/counted.h"
#include "heap/next.h"

namespace hs {
using TheHeap = NextHeap;
using TheCounted = Counted<TheHeap>;
}  // namespace hs

#endif

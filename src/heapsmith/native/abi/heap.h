// The heap behind the exported names.
#pragma once

#include "heap/counted.h"
#include "heap/next.h"

namespace hs {

using TheHeap = NextHeap;
using TheCounted = Counted<TheHeap>;

}  // namespace hs

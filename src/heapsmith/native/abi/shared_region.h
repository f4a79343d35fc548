// The region of this process, for a heap that another library watches: both write into the same one.
#pragma once

#include "wire/region.h"

namespace hs {

// What `heapsmith_region` answers: null while there is no region. `spans`, when not null, receives the place of the
// table of spans, or null where there is none to be had.
using RegionDoor = wire::RegionHeader* (*)(wire::SpanTable** spans);
inline constexpr char kRegionDoor[] = "heapsmith_region";

}  // namespace hs

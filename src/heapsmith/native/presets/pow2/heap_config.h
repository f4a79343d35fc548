// The heap "pow2", rendered from its spec: change that, not this.
#pragma once

#include "heap/heap.h"
#include "policy/cache/bounded_cache.h"
#include "policy/lock/futex_lock.h"
#include "policy/pages/at_start.h"
#include "policy/pages/huge_pages.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"
#include "policy/pages/purge_after.h"
#include "policy/remote/remote_batch.h"
#include "policy/sizes/powers_of_two.h"

namespace hs {

inline constexpr char spec_name[] = "pow2";
using SpecSizes = PowersOfTwo<16, 32768>;
using SpecPages = Pipe<OsPages<>, HugePages<4194304, false>, PurgeAfter<500, 4194304, 1>, AtStart>;
using SpecBlocks = Heap<SpecSizes, BoundedCache<1048576, 16384, 256>, RemoteBatch<64>, SpecPages, FutexLock, PlainLinks>;
using SpecHeap = SpecBlocks;

// What Python promised.
static_assert(same_classes<SpecSizes>({16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768}));

}  // namespace hs

// The heap "hardened", rendered from its spec: change that, not this.
#pragma once

#include "heap/hardened.h"
#include "heap/heap.h"
#include "policy/cache/bounded_cache.h"
#include "policy/hardening/checked_blocks.h"
#include "policy/hardening/guard_pages.h"
#include "policy/hardening/matched_deallocation.h"
#include "policy/hardening/quarantine.h"
#include "policy/hardening/zero_on_free.h"
#include "policy/links/encoded_links.h"
#include "policy/links/random_free_lists.h"
#include "policy/links/scrubbed_links.h"
#include "policy/lock/futex_lock.h"
#include "policy/pages/at_start.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/pipe.h"
#include "policy/pages/purge_after.h"
#include "policy/remote/remote_batch.h"
#include "policy/sizes/geometric.h"

namespace hs {

inline constexpr char spec_name[] = "hardened";
using SpecSizes = Geometric<16, 32768, 8>;
using SpecPages = Pipe<OsPages<>, PurgeAfter<100, 1048576, 8>, AtStart>;
using SpecBlocks = Heap<SpecSizes, BoundedCache<131072, 4096, 128>, RemoteBatch<64>, SpecPages, FutexLock, RandomFreeLists<ScrubbedLinks<EncodedLinks>>>;
using SpecHeap = Hardened<SpecBlocks, CheckedBlocks, Quarantine<256, 262144>, ZeroOnFree, GuardPages, MatchedDeallocation>;

// What Python promised.
static_assert(same_classes<SpecSizes>({16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448, 480, 512, 576, 640, 704, 768, 832, 896, 960, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 1920, 2048, 2304, 2560, 2816, 3072, 3328, 3584, 3840, 4096, 4608, 5120, 5632, 6144, 6656, 7168, 7680, 8192, 9216, 10240, 11264, 12288, 13312, 14336, 15360, 16384, 18432, 20480, 22528, 24576, 26624, 28672, 30720, 32768}));

}  // namespace hs

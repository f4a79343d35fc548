// Knobs: what can change at launch, without forging again. Whoever puts the heap into a process sets them before its
// first thread begins; a heap built into a program has them, too.
//
// Promise: a knob that is left alone changes nothing. They are read on slow paths only.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"

namespace hs {

enum class HugePageWish : uint32_t { as_forged, off, transparent, reserved };
enum class PurgeWish : uint32_t { as_forged, at_once, lazily };

struct Knobs {
  static constexpr size_t as_forged = ~size_t{0};
  // Committed bytes, beyond which allocations fail.
  size_t limit_bytes = as_forged;
  // How long a free page stays warm; `never_ms` is until somebody asks.
  uint64_t purge_delay_ms = as_forged;
  static constexpr uint64_t never_ms = ~uint64_t{0} - 1;
  // What one thread may hold.
  size_t cache_bytes = as_forged;
  HugePageWish huge_pages = HugePageWish::as_forged;
  PurgeWish purge = PurgeWish::as_forged;
};
inline constinit Knobs knobs{};

}  // namespace hs

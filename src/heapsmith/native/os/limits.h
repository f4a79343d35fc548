// What the kernel lets this process have: every bound in its own currency, and what of it is used. The
// arithmetic of heapsmith/run/limits.py, from inside; it reads files by system calls and allocates nothing.
#pragma once

#include <stdint.h>

namespace hs::os {

// The numbers of heapsmith.h.
enum class LimitSource : uint32_t {
  kNone = 0,
  kRlimitData = 3,
  kRlimitAs = 4,
  kCgroup2 = 5,
  kCgroup1 = 6,
  kPhysical = 7
};
enum class LimitEffect : uint32_t { kNone = 0, kNull = 1, kKill = 2, kThrottle = 3 };

struct Bound {
  LimitSource source = LimitSource::kNone;
  LimitEffect effect = LimitEffect::kNone;
  uint64_t limit_bytes = 0;
  uint64_t available_bytes = UINT64_MAX;
};

struct Bounds {
  Bound hard;  // the one with the least available
  Bound soft;  // the same of memory.high
};

Bounds read_bounds();

// Of this process, as the kernel says; 0 if it does not.
uint64_t resident_bytes();

}  // namespace hs::os

// NoLock: for a heap that only one thread ever uses.
#pragma once

#include "policy/concepts.h"

namespace hs {

struct NoLock {
  void lock() {}
  void unlock() {}
  void reset() {}
};
static_assert(Lock<NoLock>);

}  // namespace hs

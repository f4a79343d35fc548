// NoLock: for a heap that only one thread ever uses.
//
// Promise: no atomic operation anywhere; a second thread ends the program at its first block.
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

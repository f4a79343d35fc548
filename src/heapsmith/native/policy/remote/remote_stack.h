// RemoteStack: a block freed by a thread that does not own its span is pushed onto a list of the span,
// atomically; the next thread that needs blocks of the class takes the whole list.
//
// Promise: a thread never hands out memory that another thread's blocks share a cache line with unless it
// took the span over. Price: an atomic operation per remote free.
#pragma once

#include "policy/concepts.h"

namespace hs {

struct RemoteStack {
  static constexpr bool to_span = true;
  static constexpr unsigned transfer_batches = 0;
};
static_assert(Remote<RemoteStack>);

}  // namespace hs

// RemoteBatch: a block freed by another thread stays in the cache of the thread that freed it and goes back
// to the central heap in batches, with everything else that thread frees.
//
// Promise: a remote free costs what a local one costs; whole batches change threads without being taken
// apart. Invariant: at most `batches` magazines of a class wait in the central heap, and more than a few only where they
// were missed.
#pragma once

#include "policy/concepts.h"

namespace hs {

template <unsigned batches>
struct RemoteBatch {
  static constexpr bool to_span = false;
  static constexpr unsigned transfer_batches = batches;
};
static_assert(Remote<RemoteBatch<4>>);

}  // namespace hs

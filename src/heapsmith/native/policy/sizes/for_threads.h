// ForThreads: threads of a given name, or those that ask for it, have size classes, spans and a central heap
// of their own.
//
// Promise: no block of such a thread shares a span with a block of any other heap; who frees it does not
// matter. What is larger than a thread's own classes comes from those of everybody. The price is one more
// look in a small table.
#pragma once

#include <stddef.h>

#include "policy/concepts.h"
#include "policy/sizes/explicit.h"

namespace hs {

template <size_t length>
struct Name {
  char text[length];
  constexpr Name(const char (&from)[length]) {  // NOLINT: a literal is what it is for
    for (size_t i = 0; i < length; i++) text[i] = from[i];
  }
};

// The size classes of the threads of one name.
template <Name thread_name, Sizes OwnSizes>
struct ForThread {
  static constexpr const char* name = thread_name.text;
  using Policy = OwnSizes;
};

template <Sizes Everybody, class... Threads>
struct ForThreads {
  static constexpr auto& classes = Everybody::classes;
};

}  // namespace hs

// Who wants to hear of an allocation that gives NULL: told by the failing thread, when malloc has let go of
// everything.
#pragma once

#include <stddef.h>

#include "base/atomic.h"
#include "base/compiler.h"

namespace hs::probe {

// Null while nobody does.
extern void (*failure_listener)(size_t requested_bytes, bool is_refused);

HS_SLOW_PATH inline void tell_failure(size_t requested_bytes, bool is_refused) {
  if (auto* listener = load_acquire(failure_listener)) listener(requested_bytes, is_refused);
}

}  // namespace hs::probe

// What a program asked of its own live bytes: peaks of pieces of it (scopes) and thresholds (watches). Both
// are looked at where account.cc looks up from its work, and bound how far a thread may go before it does.
#pragma once

#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"

namespace hs::probe {

inline constexpr uint32_t kScopeCapacity = 64;
inline constexpr uint32_t kWatchCapacity = 32;

struct Scope {
  uint32_t generation;  // odd while in use
  int64_t peak_bytes;
  int64_t peak_at_most_bytes;  // the true peak is not above this, or not above peak_bytes
};

struct Watch {
  uint32_t generation;  // odd while in use
  uint32_t is_above;
  int64_t threshold_bytes;
  int64_t rearm_bytes;
  int64_t crossed_at_bytes;
  uint64_t crossed_ns;
  uint32_t crossings;  // the word on which deliverers wait
  uint32_t delivered;
};

// How many scopes and watches there are: 0 costs the paths below one load each.
extern uint32_t scopes_in_use;
extern uint32_t watches_in_use;
// Raised when what threads' marks were computed from has changed.
extern uint32_t marks_epoch;

extern Scope scopes[kScopeCapacity];
extern Watch watches[kWatchCapacity];

HS_SLOW_PATH void raise_scopes(int64_t live_bytes, int64_t unpublished_bytes);
HS_SLOW_PATH void compare_with_watches(int64_t live_bytes);
// Live bytes above which a scope or a watch has to hear of it; INT64_MAX for none.
HS_SLOW_PATH int64_t next_scope_bytes();
HS_SLOW_PATH int64_t next_watch_bytes();
// Live bytes at or below which a watch is armed again; INT64_MIN for none.
HS_SLOW_PATH int64_t next_rearm_bytes();

// Every thread looks up at its next allocation or free.
void change_marks();

// Opens a scope at what is live; false when all are in use.
bool open_scope(int64_t live_bytes, int64_t error_bound_bytes, uint32_t& index, uint32_t& generation);
bool close_scope(uint32_t index, uint32_t generation);
bool open_watch(int64_t threshold_bytes, int64_t rearm_bytes, uint32_t& index, uint32_t& generation);
bool close_watch(uint32_t index, uint32_t generation);

// In a forked child: scopes go on, watches have nobody who delivers.
void attention_fork_child();

}  // namespace hs::probe

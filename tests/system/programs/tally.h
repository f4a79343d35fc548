// A program's own count of its calls, kept without allocating anything: what the counters are compared with.
#pragma once

#include <malloc.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { kTallySizes = 8192 };

struct Tally {
  long allocations, frees, reallocations, failures;
  long live_blocks, live_bytes, live_bytes_peak, requested_live_bytes;
  size_t usable[kTallySizes];
  long blocks[kTallySizes];
  int sizes;
};

static struct Tally tally;

static inline void tally_size(size_t usable_bytes, long blocks) {
  int place = 0;
  while (place < tally.sizes && tally.usable[place] != usable_bytes) ++place;
  if (place == tally.sizes) tally.usable[tally.sizes++] = usable_bytes;
  tally.blocks[place] += blocks;
}

static inline void tally_change(size_t usable_bytes, long blocks, size_t requested_bytes) {
  tally.live_blocks += blocks;
  tally.live_bytes += blocks * (long)usable_bytes;
  tally.requested_live_bytes += blocks * (long)requested_bytes;
  tally_size(usable_bytes, blocks);
}

// A block that was handed out, or null for a failure.
static inline void* took(void* block, size_t requested_bytes) {
  if (block == NULL) {
    ++tally.failures;
    return NULL;
  }
  ++tally.allocations;
  tally_change(malloc_usable_size(block), 1, requested_bytes);
  if (tally.live_bytes > tally.live_bytes_peak) tally.live_bytes_peak = tally.live_bytes;
  return block;
}

// Before a block is given back.
static inline void* gives(void* block, size_t requested_bytes) {
  if (block == NULL) return NULL;
  ++tally.frees;
  tally_change(malloc_usable_size(block), -1, requested_bytes);
  return block;
}

// A block of `old_usable_bytes` that became another, in place or not.
static inline void* became(void* block, size_t old_usable_bytes, size_t old_bytes, size_t bytes) {
  ++tally.reallocations;
  ++tally.frees;
  tally_change(old_usable_bytes, -1, old_bytes);
  return took(block, bytes);
}

static inline void say(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const char* at = text;
  long left = length;
  while (left > 0) {
    const long written = write(1, at, (size_t)left);
    if (written <= 0) break;
    at += written;
    left -= written;
  }
}

// One JSON document; call it before anything that the watched numbers must not hold.
static inline void tell_tally(void) {
  say("{\"allocations\": %ld, \"frees\": %ld, \"reallocations\": %ld, \"failures\": %ld, ", tally.allocations,
      tally.frees, tally.reallocations, tally.failures);
  say("\"live_blocks\": %ld, \"live_bytes\": %ld, \"live_bytes_peak\": %ld, \"requested_live_bytes\": %ld, ",
      tally.live_blocks, tally.live_bytes, tally.live_bytes_peak, tally.requested_live_bytes);
  say("\"usable\": {");
  for (int place = 0; place < tally.sizes; ++place) {
    say("%s\"%zu\": %ld", place ? ", " : "", tally.usable[place], tally.blocks[place]);
  }
  say("}}\n");
}

// A plan: a trace made ready to be played. One file, mapped as it is; Python writes it (`lab/replay/plan.py`).
//
//   header, threads[thread_count], segments[segment_count], sample_orders[sample_count], words
//
// Every thread has its own words, in segments; a word is an operation (4 bits), a size (28 bits) and a slot (32 bits).
#pragma once

#include <stdint.h>

#define PLAN_MAGIC 0x314e414c50524548u  // "HERPLAN1"

struct plan_header {
  uint64_t magic;
  uint64_t thread_count;
  uint64_t segment_count;
  uint64_t sample_count;
  uint64_t slot_count;
  uint64_t rest_count;
  uint64_t window;       // events that one thread may be ahead of the slowest
  uint64_t sync_events;  // a thread tells its place at least this often, in events
  uint64_t operations;   // calls of malloc's family
  uint64_t threads_at;   // offsets in the file
  uint64_t segments_at;
  uint64_t samples_at;
};

struct plan_thread {
  uint64_t first_order;  // of its first word; threads are sorted by it, but for the main thread, which is number 0
  uint32_t first_segment;
  uint32_t ends;  // it ended while the program went on
};

struct plan_segment {
  uint64_t words_at;
  uint32_t word_count;
  uint32_t next;  // of the same thread; NO_SEGMENT: none
};

#define NO_SEGMENT 0xffffffffu

enum plan_operation {
  PLAN_SYNC,      // size and slot: the order (place among all events) of what follows
  PLAN_WIDE,      // prefix: slot = size >> 28, size = log2 of the alignment
  PLAN_ALLOCATE,  //
  PLAN_ZEROED,
  PLAN_ALIGNED,
  PLAN_FREE,
  PLAN_TAKE,        // the block of the slot, for the reallocation that follows
  PLAN_REALLOCATE,  // what was taken, to a size, into a slot
  PLAN_UNTIL,       // size and slot: ns since the start before which nothing further happens
  PLAN_REST,        // slot = number of the rest, size = 1: this thread decides when it begins; followed by its ns
  PLAN_OPERATIONS,
};

// What every workload is given, and what it hands back. A workload does its work with malloc and free alone,
// so that whatever allocator the process runs on is what is measured.
#pragma once

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
  const char* name;
  const char* promise;              // one line: what it does, for --help and the report
  void (*run)(unsigned scale);      // `scale` 1: about a second on glibc on a small machine
  void (*prepare)(unsigned scale);  // outside of the timer; may be NULL
} workload;

// xorshift64*: the same numbers on every machine and allocator.
static inline uint64_t next_random(uint64_t* state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545F4914F6CDD1DULL;
}

// Stops the program: a workload that could not allocate has measured nothing.
void* must(void* block);
// Runs `body(0)` to `body(count - 1)` at once, each in a thread of its own; at most 64.
void run_threads(unsigned count, void (*body)(unsigned index));

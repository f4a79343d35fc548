// What every check is given. A check is a promise of malloc's contract: it returns when the promise held, and
// calls `broken` when not. It runs in a process of its own, over whatever allocator that process has.
#pragma once

#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const char* name;
  const char* promise;
  void (*run)(void);
  // The promise is that the program ends: `run` breaks malloc's contract, and must not return.
  bool must_be_caught;
} check;

__attribute__((noreturn)) void broken(const char* format, ...) __attribute__((format(printf, 1, 2)));
__attribute__((noreturn)) void unsupported(const char* format, ...) __attribute__((format(printf, 1, 2)));
#define HOLDS(condition, ...) ((condition) ? (void)0 : broken(__VA_ARGS__))

static inline uint64_t next_random(uint64_t* state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545F4914F6CDD1DULL;
}
// A pattern that depends on the block's number, so that blocks that overlap are found.
void write_pattern(void* block, size_t bytes, unsigned number);
bool has_pattern(const void* block, size_t bytes, unsigned number);
void run_threads(unsigned count, void (*body)(unsigned index));
// Keeps the compiler from knowing what a pointer is.
void* opaque(void* pointer);

size_t malloc_usable_size(void* block);

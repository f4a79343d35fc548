// What a native test says when something does not hold: where, and what.
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define EXPECT(condition)                                                     \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      abort();                                                                \
    }                                                                         \
  } while (false)

// The same sequence in each run.
class Draw {
 public:
  explicit Draw(unsigned long seed) : state_(seed * 2654435761u + 88172645463325252u) {}
  unsigned long below(unsigned long bound) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ % bound;
  }

 private:
  unsigned long state_;
};

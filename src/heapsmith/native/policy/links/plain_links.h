// PlainLinks: a free block points to the next one.
#pragma once

#include "base/compiler.h"

namespace hs {

struct PlainLinks {
  HS_FAST_PATH static void* next(void* block) { return *static_cast<void**>(block); }
  HS_FAST_PATH static void set_next(void* block, void* next) { *static_cast<void**>(block) = next; }
  static void prepare() {}
};

}  // namespace hs

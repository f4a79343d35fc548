// PlainLinks: a free block points to the next one.
#pragma once

#include "base/compiler.h"

namespace hs {

struct PlainLinks {
  static constexpr bool random_order = false;
  static constexpr bool scrubs = false;

  HS_FAST_PATH static void* next(void* block) { return *static_cast<void**>(block); }
  HS_FAST_PATH static void set_next(void* block, void* next) { *static_cast<void**>(block) = next; }
};

}  // namespace hs

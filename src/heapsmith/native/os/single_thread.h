// Whether this process certainly has one thread only: the C library says so, and takes it back before it starts a
// second one.
#pragma once

#include "base/compiler.h"

// Since glibc 2.32; where it is missing, there may always be threads.
extern "C" {
extern __attribute__((weak)) char __libc_single_threaded;
}

namespace hs {

HS_FAST_PATH bool is_single_threaded() {
  return &__libc_single_threaded != nullptr && *static_cast<volatile char*>(&__libc_single_threaded) != 0;
}

}  // namespace hs

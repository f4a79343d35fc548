// The end of a program that broke malloc's contract: fixed text and the pointer, without allocating.
#pragma once

#include <signal.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "os/system_call.h"

namespace hs {

[[noreturn]] HS_SLOW_PATH inline void die(const char* where, const char* what, const void* pointer) {
  char text[256];
  size_t length = 0;
  const auto append = [&](const char* words) {
    while (*words && length < sizeof text - 32) text[length++] = *words++;
  };
  append("heapsmith: ");
  append(where);
  append(": ");
  append(what);
  append(": 0x");
  uintptr_t value = address_of(pointer);
  int digits = 1;
  for (uintptr_t rest = value >> 4; rest; rest >>= 4) digits++;
  for (int digit = digits - 1; digit >= 0; digit--) {
    text[length + static_cast<size_t>(digit)] = "0123456789abcdef"[value & 15];
    value >>= 4;
  }
  length += static_cast<size_t>(digits);
  text[length++] = '\n';
  system_call(SYS_write, 2, static_cast<long>(address_of(text)), static_cast<long>(length));
  abort();
}

}  // namespace hs

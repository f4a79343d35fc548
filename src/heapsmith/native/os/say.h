// One line on standard error, for what a person has to know of: without allocating.
#pragma once

#include "base/bits.h"
#include "base/compiler.h"
#include "os/system_call.h"

namespace hs {

HS_SLOW_PATH inline void say(const char* what) {
  char text[640];
  size_t length = 0;
  for (const char* words = "heapsmith: "; *words;) text[length++] = *words++;
  while (*what && length < sizeof text - 1) text[length++] = *what++;
  text[length++] = '\n';
  system_call(SYS_write, 2, static_cast<long>(address_of(text)), static_cast<long>(length));
}

}  // namespace hs

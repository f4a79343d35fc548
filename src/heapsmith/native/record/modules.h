// The shared objects that frames lie in, noted when a first frame in them is seen.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::record {

struct FoundModule {
  uint32_t number;  // from 1; 0 is none
  const uint8_t* unwind_header;
  uintptr_t begin;
  uintptr_t end;
};

// The object that holds the code, without taking the dynamic linker's lock where the C library can do so.
FoundModule find_module(uintptr_t code);

// Writes what was noted so far into this process's file, which is new.
void write_modules();
// Objects may have gone: what lies at their addresses from now on is another.
void forget_module_places();

}  // namespace hs::record

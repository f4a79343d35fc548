// Who called: return addresses of this thread, found from tables that the compiler left, one cached rule for each address.
//
// Nothing is allocated, no lock of the linker is taken; a rule is worked out once per return address of the program. A frame
// whose rule is not known ends the stack there.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

namespace hs::record {

// Where a walk begins: the registers of a function in the moment of its call.
struct Registers {
  uintptr_t pc;
  uintptr_t sp;
  uintptr_t bp;
};

struct NativeFrame {
  uint64_t key;   // as wire::kFrameModuleShift says
  uintptr_t end;  // on the stack, of this frame; 0 where the walk ends with it
  bool is_eval;   // of CPython's interpreter loop, as far as a function of that name tells
};

// What a walk read, in order, as distances from where it began: while it all reads the same, a walk from there gives the
// same frames. (A return address says which function its frame is of, and so where the next one lies; where a frame is
// found through bp, the place that bp was read from is among these as well.)
struct Trail {
  static constexpr uint32_t kCapacity = 768;
  uint32_t offsets[kCapacity];
  uintptr_t values[kCapacity];
  uint32_t count;
  bool uses_bp;  // as it was when the walk began
  bool is_whole;

  void begin() {
    count = 0;
    uses_bp = false;
    is_whole = true;
  }
  void add(uintptr_t from, uintptr_t address, uintptr_t value) {
    if (count == kCapacity || address - from > UINT32_MAX) {
      is_whole = false;
      return;
    }
    offsets[count] = static_cast<uint32_t>(address - from);
    values[count++] = value;
  }
};

// Whether a trail reads the same from there. Each read is of a place that the ones before it vouch for.
HS_FAST_PATH bool reads_the_same(uintptr_t from, const uint32_t* offsets, const uintptr_t* values, uint32_t count) {
  for (uint32_t at = 0; at < count; ++at) {
    if (*reinterpret_cast<const uintptr_t*>(from + offsets[at]) != values[at]) return false;
  }
  return true;
}

// Innermost first; frames of this library are left out. Answers how many.
uint32_t walk_native(Registers at, NativeFrame* into, uint32_t capacity, Trail& trail);

// CPython's interpreter loop, once it is known.
void tell_eval(const void* function);
// Code may have gone from where it was.
void forget_rules();
// Raised then: what was concluded from code at an address before holds no more.
extern uint32_t code_generation;

}  // namespace hs::record

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
  uint64_t key;  // as wire::kFrameModuleShift says
  bool is_eval;  // of CPython's interpreter loop: it stands for Python's own frames
};

// Innermost first; frames of this library at the beginning are left out. Answers how many.
uint32_t walk_native(Registers at, NativeFrame* into, uint32_t capacity);

// CPython's interpreter loop, once it is known.
void tell_eval(const void* function);
// Code may have gone from where it was.
void forget_rules();

}  // namespace hs::record

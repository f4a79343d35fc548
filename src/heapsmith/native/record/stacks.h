// Stacks as numbers: a tree of frames in shared memory, in which the same stack is the same node.
#pragma once

#include <stdint.h>

namespace hs::record {

// The stack that this thread is in, native and Python's frames in one, as the number of its node; 0 where there is none.
// Called from inside this library, whose own frames are left out.
uint32_t capture_stack();

void forget_stacks();
// A thread ends: what it kept to compare with goes.
void drop_stack_memory();

}  // namespace hs::record

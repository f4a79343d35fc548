// The frames of CPython that this thread is in, read from its own frame chain: without the GIL, without running any Python.
//
// A thread's own chain does not change while it is here. Where its fields lie is known for each version: 3.11 and 3.12 from
// a table, 3.13 from what the interpreter itself says for debuggers.
#pragma once

#include <stdint.h>

namespace hs::record {

struct PythonFrame {
  uint64_t key;   // as wire::kFramePythonBit says
  bool is_entry;  // the outermost that one run of the interpreter loop executes
};

// Innermost first. Answers how many; 0 where this thread is in no Python or the version is not known.
uint32_t walk_python(PythonFrame* into, uint32_t capacity);

// `library` is a handle of dlopen, or null for the whole program.
void find_python_frames(void* library, uint32_t version);
void forget_codes();

}  // namespace hs::record

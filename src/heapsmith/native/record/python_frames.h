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

// The chain as it was read: while its links and instructions are the same, so are the frames.
struct Chain {
  static constexpr uint32_t kCapacity = 1024;
  struct Link {
    const void* frame;
    uint64_t instruction;
  };
  Link links[kCapacity + 1];  // the last one is where it ended
  uint32_t count;
  bool is_whole;
};

// Where this thread's chain begins; null where it is in no Python or the version is not known.
const void* innermost_frame();
uint64_t instruction_of(const void* frame);
// Whether the chain from the first link on is as it was. Each read is of a frame that the ones before it vouch for.
bool is_same_chain(const Chain::Link* links, uint32_t count);

// Innermost first. Answers how many.
uint32_t walk_python(const void* innermost, PythonFrame* into, uint32_t capacity, Chain& chain);

// `library` is a handle of dlopen, or null for the whole program.
void find_python_frames(void* library, uint32_t version);
void forget_codes();

}  // namespace hs::record

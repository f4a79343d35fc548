// The frames of CPython that this thread is in, read from its own frame chain: without the GIL, without running any Python.
//
// A thread's own chain does not change while it is here. Where its fields lie is known for each version: 3.11 and 3.12 from
// a table, from 3.13 on from what the interpreter itself says for debuggers (`python_layout.h`).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::record {

struct PythonFrame {
  uint64_t key;  // as wire::kFramePythonBit says
  // Of the outermost that one run of the interpreter loop executes: a place in the loop's own native frame, or 1 where that is
  // not known. Of any other 0.
  uintptr_t entry;
};

// The frames that a thread is in, outermost first, as they were when it was last here; brought up to date by `follow`.
//
// Nothing near the innermost frame tells whether something far out has gone on: a caller that runs and calls again leaves its
// callees as they were, down to their addresses. So each link is compared at each look, with what a frame is recognised by:
// its address, its instruction, its caller, and whether it is the first of a run of the loop. But all of it lies side by side
// here, no read waits for another, and what follows from a frame is worked out only when it has changed. Going outwards,
// each frame that is read is vouched for by its callee, which has just been read.
//
// An instruction says which code runs, until a block is born where the code was (`forget_code_at`).
struct Chain {
  static constexpr uint32_t kCapacity = 1024;
  static constexpr uint32_t kHintBits = 12;
  const void* frames[kCapacity + 1];  // the first is null: below the outermost
  uint64_t instructions[kCapacity + 1];
  uint8_t is_entry[kCapacity + 1];
  bool is_between[kCapacity + 1];  // no function of the program's: the loop was entered here
  uint64_t keys[kCapacity + 1];
  // Of the chain from the outermost frame to this one: equal for equal ones, whenever they were.
  uint64_t identities[kCapacity + 1];
  const void* fresh[kCapacity];
  uint16_t hints[1u << kHintBits];  // where a frame is, by its address, or was
  uint32_t count;
  uint32_t generation;
};

// Where this thread's chain begins; null where it is in no Python or the version is not known.
const void* innermost_frame();

// Answers false where the chain is longer than that, or holds what is not understood.
bool follow(Chain& chain, const void* innermost);
uint64_t identity_of(const Chain& chain);
// Innermost first, as the chain has them. Answers how many.
uint32_t frames_of(const Chain& chain, PythonFrame* into);
// The same for a chain that cannot be followed, as far as it goes.
uint32_t walk_python(const void* innermost, PythonFrame* into, uint32_t capacity);

// A block was born there: code that was there has gone.
void forget_code_at(const void* block, size_t requested_bytes);

// `library` is a handle of dlopen, or null for the whole program. Answers why they cannot be read, for people; empty where they
// can.
const char* find_python_frames(void* library, uint32_t version);
void forget_codes();

}  // namespace hs::record

// Anonymous memory that the program maps itself: where CPython's arenas and hand-made pools lie. Counted apart from
// blocks, and followed by address, because a program may unmap or map over any part of it.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::probe {

void note_map(uintptr_t begin, size_t bytes);
void note_unmap(uintptr_t begin, size_t bytes);
// Answers whether any of the range was followed.
bool is_mapped(uintptr_t begin, size_t bytes);

void mappings_fork_prepare();
void mappings_fork_parent();
void mappings_fork_child();

}  // namespace hs::probe

// CPython's own objects: blocks up to 512 bytes come from arenas that malloc never sees. The interpreter's object and
// memory domains are wrapped before it starts; sizes come from the headers of pymalloc's pools, so no object grows.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::probe {

// Wraps the allocators of an interpreter that is linked into the program (or is the program).
void watch_python();
// The same for one that runs already: its arenas are not known, its pools are learned as blocks come from them.
void watch_running_python();

// An anonymous mapping of an arena's size may be the first sign of an interpreter that was loaded later, or that has
// chosen its allocators anew.
void look_for_python(const void* caller, void* mapping, size_t bytes);

// Writes what became of the wish into the region's header.
void describe_python();

}  // namespace hs::probe

// What a launcher wants of a forged heap, from one variable of the environment.
#pragma once

namespace hs::launch_knobs {

inline constexpr char kVariable[] = "HEAPSMITH_HEAP";

// Reads the variable and sets `hs::knobs`; what cannot be read is said in one line, and left as it was forged.
void read();

// `shown=off`: nothing is shown to the outside.
extern bool is_shown;

}  // namespace hs::launch_knobs

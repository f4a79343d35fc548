// A forged heap in sight: prepared when the process has begun, opened when the heap is in use, closed when the process
// ends, begun anew in a forked child.
#pragma once

namespace hs::forged_region {

void prepare();
void close();
void fork_prepare();
void fork_parent();
void fork_child();

}  // namespace hs::forged_region

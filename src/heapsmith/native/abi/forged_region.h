// A forged heap in sight: opened when the process has begun, closed when it ends, begun anew in a forked child.
#pragma once

namespace hs::forged_region {

void open();
void close();
void fork_prepare();
void fork_parent();
void fork_child();

}  // namespace hs::forged_region

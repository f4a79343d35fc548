// Recording a process that runs already: its objects call through tables of addresses, and these are changed to ours.
#pragma once

namespace hs::record {

// Changes the tables of every loaded object but this library, and of those that are loaded later, when their symbols are
// first looked up.
void redirect_calls();

}  // namespace hs::record

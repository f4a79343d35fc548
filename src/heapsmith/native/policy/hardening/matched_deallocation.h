// MatchedDeallocation: what operator new made goes to its own operator delete, what malloc made to free, in the size and
// with the alignment it was made with.
//
// Promise: a block that comes back by another way than it went out, or with a size that is not its own, ends the program.
// Price: a program that mixes its ways by design (its own operator new over malloc, unmatched) cannot run on it.
#pragma once

namespace hs {
struct MatchedDeallocation {};
}  // namespace hs

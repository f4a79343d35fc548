// RandomFreeLists: blocks of a fresh page are handed out in an order that differs from run to run.
//
// Promise: which blocks are neighbours cannot be told from the order of allocation.
#pragma once

namespace hs {

template <class Links>
struct RandomFreeLists : Links {
  static constexpr bool random_order = true;
};

}  // namespace hs

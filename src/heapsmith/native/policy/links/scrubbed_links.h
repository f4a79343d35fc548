// ScrubbedLinks: no link of an earlier use is left in a span that is used again; what ZeroOnFree stands on.
//
// Promise: the blocks of a span read as zero when they are handed out first.
#pragma once

namespace hs {

template <class Links>
struct ScrubbedLinks : Links {
  static constexpr bool scrubs = true;
};

}  // namespace hs

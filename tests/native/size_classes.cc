// The class of a size is the first whose bound is not below it, for every size of any magnitude.
#include <initializer_list>

#include "expect.h"
#include "probe/size_class.h"

namespace wire = hs::wire;

static unsigned first_that_holds(size_t usable_bytes) {
  unsigned index = 0;
  while (index + 1 < wire::kClassCount && wire::kClassBytes[index] < usable_bytes) ++index;
  return index;
}

int main() {
  for (size_t bytes = 0; bytes < 70000; ++bytes) EXPECT(hs::probe::class_index(bytes) == first_that_holds(bytes));
  for (unsigned shift = 10; shift < 64; ++shift) {
    for (long near = -20; near <= 20; ++near) {
      for (size_t base : {size_t{1} << shift, size_t{3} << (shift - 1)}) {
        EXPECT(hs::probe::class_index(base + near) == first_that_holds(base + near));
      }
    }
  }
  EXPECT(hs::probe::class_index(SIZE_MAX) == wire::kClassCount - 1);
}

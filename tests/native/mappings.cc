// The followed ranges against a model that keeps a bit for each page.
#include "probe/mappings.h"

#include <bitset>

#include "expect.h"
#include "probe/region.h"
#include "probe/thread.h"

namespace probe = hs::probe;

int main() {
  constexpr size_t kPages = 600;
  constexpr size_t kPageBytes = 4096;
  constexpr uintptr_t kBase = uintptr_t{1} << 40;
  static std::bitset<kPages> model;
  probe::attach();
  hs::wire::RegionHeader& header = *probe::region.header;
  Draw draw(7);
  size_t peak = 0;
  for (int step = 0; step < 200000; ++step) {
    const size_t first = draw.below(kPages);
    const size_t count =
        1 + draw.below(draw.below(10) == 0 ? kPages - first : (kPages - first < 8 ? kPages - first : 8));
    const uintptr_t begin = kBase + first * kPageBytes;
    bool any = false;
    for (size_t page = first; page < first + count; ++page) any = any || model[page];
    EXPECT(probe::is_mapped(begin, count * kPageBytes) == any);
    const bool maps = draw.below(100) < 50;
    for (size_t page = first; page < first + count; ++page) model[page] = maps;
    if (maps) {
      probe::note_map(begin, count * kPageBytes);
    } else {
      probe::note_unmap(begin, count * kPageBytes);
    }
    if (model.count() > peak) peak = model.count();
    EXPECT(header.mapped_bytes == static_cast<int64_t>(model.count() * kPageBytes));
  }
  EXPECT(header.mapped_bytes_peak == static_cast<int64_t>(peak * kPageBytes));
  EXPECT(header.lost_mappings == 0);
}

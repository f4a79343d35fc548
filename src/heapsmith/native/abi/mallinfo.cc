// glibc's questions about the heap, answered for whoever answers malloc. Under a preloaded allocator the C
// library's own answers describe a heap that nobody uses: all zero, and no error.
#include <dlfcn.h>
#include <limits.h>
#include <malloc.h>

#include "abi/heap.h"
#include "abi/heapsmith.h"
#include "base/atomic.h"
#include "base/compiler.h"
#include "os/process.h"

namespace {

using Asked = struct mallinfo2 (*)();

// The allocator's own answer, or null: of an allocator that has none, or has all zeros (oneTBB's proxy, by
// design).
Asked find_own_answer() {
  static Asked found = nullptr;
  static uint32_t is_known = 0;
  if (hs::load_acquire(is_known) != 0) return found;
  auto* own = reinterpret_cast<Asked>(dlsym(RTLD_NEXT, "mallinfo2"));
  const bool is_of_allocator = own != nullptr && hs::TheHeap::is_own_code(reinterpret_cast<const void*>(own));
  found = is_of_allocator && own().arena + own().hblkhd != 0 ? own : nullptr;
  if (is_of_allocator && hs::TheHeap::functions().has_glibc_headers) found = own;
  hs::store_release(is_known, 1u);
  return found;
}

int within_int(size_t bytes) { return bytes > INT_MAX ? INT_MAX : static_cast<int>(bytes); }

}  // namespace

extern "C" {

HS_EXPORT struct mallinfo2 mallinfo2() noexcept {
  const hs::os::KeepErrno keep;
  if (const Asked own = find_own_answer()) return own();
  struct mallinfo2 answer = {};
  hs_stats_t stats = HS_STATS_INIT;
  if (hs_stats_get(&stats, HS_EXACT) != HS_OK) return answer;
  answer.uordblks = stats.current_bytes;
  answer.ordblks = 1;
  answer.arena = (stats.valid & HS_F_COMMITTED) != 0 && stats.committed_bytes > stats.current_bytes
                     ? stats.committed_bytes
                     : stats.current_bytes;
  answer.fordblks = answer.arena - answer.uordblks;
  answer.usmblks = stats.peak_bytes;
  return answer;
}

// Its ints cannot hold more than 2 GiB: beyond, the largest of them, never a number that has wrapped.
HS_EXPORT struct mallinfo mallinfo() noexcept {
  const struct mallinfo2 wide = mallinfo2();
  return {within_int(wide.arena),    within_int(wide.ordblks), within_int(wide.smblks),  within_int(wide.hblks),
          within_int(wide.hblkhd),   within_int(wide.usmblks), within_int(wide.fsmblks), within_int(wide.uordblks),
          within_int(wide.fordblks), within_int(wide.keepcost)};
}

}  // extern "C"

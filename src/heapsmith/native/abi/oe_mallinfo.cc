// Open Enclave's names over heapsmith.h.
#include "abi/oe_mallinfo.h"

#include "abi/heapsmith.h"
#include "base/atomic.h"
#include "base/compiler.h"

static_assert(sizeof(oe_mallinfo_t) == 3 * sizeof(size_t) && sizeof(oe_result_t) == 4);
static_assert(int{HS_UNSUPPORTED} == int{OE_UNSUPPORTED} && int{HS_INVALID_PARAMETER} == int{OE_INVALID_PARAMETER});

namespace {

oe_allocation_failure_callback_t failure_callback = nullptr;

void pass_on(size_t requested_bytes, int, void*) {
  if (auto* callback = hs::load_acquire(failure_callback)) callback("", 0, "malloc", requested_bytes);
}

}  // namespace

extern "C" {

HS_EXPORT oe_result_t oe_allocator_mallinfo(oe_mallinfo_t* info) {
  if (info == nullptr) return OE_INVALID_PARAMETER;
  hs_stats_t stats = hs_stats_init();
  const int result = hs_stats_get(&stats, HS_EXACT);
  if (result != HS_OK) return static_cast<oe_result_t>(result);
  constexpr uint64_t kAll = HS_F_LIMIT | HS_F_CURRENT | HS_F_PEAK;
  if ((stats.valid & kAll) != kAll) return OE_UNSUPPORTED;
  *info = {stats.limit_bytes, stats.current_bytes, stats.peak_bytes};
  return OE_OK;
}

HS_EXPORT oe_result_t oe_set_allocation_failure_callback(oe_allocation_failure_callback_t callback) {
  hs::store_release(failure_callback, callback);
  return static_cast<oe_result_t>(hs_on_failure(callback != nullptr ? pass_on : nullptr, nullptr));
}

}  // extern "C"

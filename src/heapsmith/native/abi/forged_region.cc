// A forged heap that can be seen from outside without being asked: it says what it holds while it works.
//
//   blocks   what moves between the program and the heap is filed by the batch, on the heap's slow paths; so live bytes are
//            off by what the threads' own lists can hold, which is said beside them
//   gauges   committed and free pages whenever they have moved by kStepBytes; what the caches hold, which has to be
//            summed, at most every kGaugesMs, and never for more than 1/kShare of the time
//   spans    how full they are, by class: the same, more seldom, and whenever the heap has become an eighth larger or
//            smaller, so that a program that fills its heap and then rests is shown as it rests
//
// The region is opened at the first look, right after the program's first block: one that allocates nothing pays nothing
// for being seen.
//
// Where a watching library came first, it counts every call: then the blocks are its business, and gauges and spans go
// into its region.
#include "abi/forged_region.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "abi/heap.h"
#include "abi/heapsmith.h"
#include "abi/shared_region.h"
#include "base/atomic.h"
#include "os/process.h"
#include "os/say.h"
#include "os/valgrind.h"
#include "probe/account.h"
#include "probe/batches.h"
#include "probe/region.h"
#include "probe/thread.h"

namespace {

using namespace hs;
using PageHeapType = SpecHeap::PageHeapType;

constexpr uint64_t kGaugesMs = 20;
constexpr uint64_t kSpansMs = 250;
constexpr uint64_t kShare = 200;

constexpr uint64_t kStepBytes = 64 * 1024;
constexpr uint64_t kSpansStepBytes = 1024 * 1024;

RegionDoor region_door = nullptr;
bool is_counting = false;
uint32_t is_open = 0;
char own_path[256];
// Once the region is known to be for this heap.
wire::RegionHeader* shown_in = nullptr;
// Blocks in caches and waiting batches, when last summed.
uint64_t cached_bytes = 0;
uint64_t stepped_committed_bytes = 0;
// When the spans were last looked at.
uint64_t spanned_committed_bytes = 0;
uint64_t spans_paid_ms = 0;

uint32_t is_publishing = 0;
uint64_t gauges_due_ms = 0;
uint64_t spans_due_ms = 0;

void publish_bound(wire::RegionHeader& header) {
  if (!is_counting) return;
  const uint64_t bound_bytes = SpecHeap::untold_bytes();
  if (bound_bytes != load_relaxed(header.live_bytes_error_bound)) {
    store_relaxed(header.live_bytes_error_bound, bound_bytes);
  }
  const int64_t unseen_bytes = static_cast<int64_t>(bound_bytes) + probe::count_writers() * probe::kUnseenPeakBytes;
  raise_to(header.live_bytes_peak_at_most, load_relaxed(header.live_bytes_peak) + unseen_bytes);
}

void publish_gauges(wire::RegionHeader& header) {
  const HeapGauges gauges = SpecHeap::gauges();
  store_relaxed(cached_bytes, gauges.free_cached_bytes - gauges.dirty_bytes);
  store_relaxed(stepped_committed_bytes, gauges.committed_bytes);
  store_relaxed(header.told_version, HS_STATS_VERSION);
  store_relaxed(header.told_fields, HS_F_COMMITTED | HS_F_RESERVED | HS_F_METADATA | HS_F_FREE_CACHED);
  store_relaxed(header.told_committed_bytes, gauges.committed_bytes);
  store_relaxed(header.told_reserved_bytes, gauges.reserved_bytes);
  store_relaxed(header.told_metadata_bytes, gauges.metadata_bytes);
  store_relaxed(header.told_free_cached_bytes, gauges.free_cached_bytes);
  store_release(header.told_ns, os::monotonic_coarse_ns());
  publish_bound(header);
}

void step_gauges() {
  wire::RegionHeader* header = load_relaxed(shown_in);
  if (header == nullptr) return;
  publish_bound(*header);
  const uint64_t dirty_bytes = PageHeapType::dirty_bytes();
  const uint64_t committed_bytes = PageHeapType::live_bytes() + dirty_bytes + PageHeapType::Meta::used_bytes();
  const uint64_t before_bytes = load_relaxed(stepped_committed_bytes);
  const uint64_t moved_bytes =
      committed_bytes > before_bytes ? committed_bytes - before_bytes : before_bytes - committed_bytes;
  if (HS_LIKELY(moved_bytes < kStepBytes)) return;
  store_relaxed(stepped_committed_bytes, committed_bytes);
  store_relaxed(header->told_committed_bytes, committed_bytes);
  store_relaxed(header->told_reserved_bytes, PageHeapType::reserved_bytes() + PageHeapType::Map::reserved_bytes());
  store_relaxed(header->told_metadata_bytes, PageHeapType::Meta::used_bytes());
  store_relaxed(header->told_free_cached_bytes, load_relaxed(cached_bytes) + dirty_bytes);
}

// The rows as they are being summed: one for each class of many blocks, then those of whole runs.
struct Row {
  uint64_t bytes;
  uint64_t used_blocks;
  uint32_t by_occupancy[wire::kOccupancyBands];
};
constexpr unsigned kClasses = SpecHeap::Classes::index_count;
constexpr unsigned kRunKinds = 3;
HS_BULK Row rows[kClasses + kRunKinds];

void add_span(const Span& span) {
  constexpr unsigned kFull = wire::kOccupancyBands - 1;
  unsigned row = kClasses;
  unsigned band = kFull;
  uint64_t used_blocks = 1;
  if (span.state == SpanState::blocks) {
    const uint32_t whole = SpecHeap::Classes::shapes.of[span.class_index].span_blocks;
    used_blocks = load_relaxed(span.blocks.used_blocks);
    if (whole > 1) {
      row = span.class_index;
      const uint64_t tenth = used_blocks * wire::kOccupancyBands / whole;
      band = tenth > kFull ? kFull : static_cast<unsigned>(tenth);
    }
  } else if (span.state != SpanState::large) {
    row = span.state == SpanState::dirty ? kClasses + 1 : kClasses + 2;
    used_blocks = 0;
    band = 0;
  }
  rows[row].bytes += span.bytes();
  rows[row].used_blocks += used_blocks;
  rows[row].by_occupancy[band]++;
}

void publish_spans(wire::SpanTable& table) {
  memset(rows, 0, sizeof rows);
  PageHeapType::visit_spans(add_span);
  store_release(table.sequence, table.sequence + 1);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  uint32_t used = 0;
  for (unsigned index = 1; index < kClasses + kRunKinds && used < wire::kSpanRows; ++index) {
    const Row& row = rows[index];
    if (row.bytes == 0) continue;
    const bool is_run = index >= kClasses;
    wire::SpanRow& to = table.rows[used++];
    to.class_bytes = is_run ? 0 : static_cast<uint32_t>(SpecHeap::Classes::bytes_of(index));
    to.kind = is_run ? static_cast<uint32_t>(wire::SpanKind::kLarge) + index - kClasses
                     : static_cast<uint32_t>(wire::SpanKind::kBlocks);
    to.span_kib = static_cast<uint32_t>(row.bytes >> 10);
    to.used_blocks = static_cast<uint32_t>(row.used_blocks);
    memcpy(to.spans_by_occupancy, row.by_occupancy, sizeof to.spans_by_occupancy);
  }
  table.rows_used = used;
  table.time_ns = os::monotonic_coarse_ns();
  store_release(table.sequence, table.sequence + 1);
}

// When next: after a while, and not before this has been paid for.
uint64_t due_after(uint64_t every_ms, uint64_t cost_ns) {
  const uint64_t paid_ms = cost_ns * kShare / 1'000'000;
  return Linux::now_ms() + (paid_ms > every_ms ? paid_ms : every_ms);
}

bool are_spans_due(uint64_t now_ms) {
  if (now_ms >= load_relaxed(spans_due_ms)) return true;
  const uint64_t committed_bytes = load_relaxed(stepped_committed_bytes);
  const uint64_t before_bytes = load_relaxed(spanned_committed_bytes);
  const uint64_t moved_bytes =
      committed_bytes > before_bytes ? committed_bytes - before_bytes : before_bytes - committed_bytes;
  return moved_bytes > kSpansStepBytes + before_bytes / 8 && now_ms >= load_relaxed(spans_paid_ms);
}

HS_SLOW_PATH void publish(bool spans_too) {
  uint32_t nobody = 0;
  if (os::is_restricted || !compare_exchange_acquire(is_publishing, nobody, 1u)) return;
  const os::KeepErrno keep;
  const uint64_t began_ns = os::monotonic_ns();
  wire::SpanTable* table = nullptr;
  wire::RegionHeader* header = region_door(spans_too ? &table : nullptr);
  // Another library's region may be of another time, and its heap another one.
  if (header != nullptr && (is_counting || (header->version == wire::kVersion &&
                                            strncmp(header->allocator_path, own_path, sizeof own_path) == 0))) {
    publish_gauges(*header);
    store_relaxed(shown_in, header);
    if (table != nullptr) publish_spans(*table);
  }
  const uint64_t cost_ns = os::monotonic_ns() - began_ns;
  store_relaxed(gauges_due_ms, due_after(kGaugesMs, cost_ns));
  if (spans_too) {
    store_relaxed(spans_due_ms, due_after(kSpansMs, cost_ns));
    // For a heap that grows or shrinks, a hundredth of the time.
    store_relaxed(spans_paid_ms, Linux::now_ms() + cost_ns / 10'000);
    store_relaxed(spanned_committed_bytes, load_relaxed(stepped_committed_bytes));
  }
  store_release(is_publishing, 0u);
}

void visit(uint64_t now_ms) {
  step_gauges();
  const bool spans_too = are_spans_due(now_ms);
  if (HS_LIKELY(!spans_too && now_ms < load_relaxed(gauges_due_ms))) return;
  publish(spans_too);
}

void describe_process() {
  wire::RegionHeader& header = *probe::region.header;
  header.malloc_is_ours = 1;
  header.allocator = static_cast<uint32_t>(wire::Allocator::kForged);
  header.counting = static_cast<uint32_t>(wire::Counting::kBatches);
  static_assert(sizeof header.allocator_path == sizeof own_path);
  memcpy(header.allocator_path, own_path, sizeof own_path);
}

// Whether whoever asks for this name gets ours: exported names may be another's, even here.
bool is_ours(const char* name, const Dl_info& own, void*& found) {
  found = dlsym(RTLD_DEFAULT, name);
  Dl_info object = {};
  return found != nullptr && dladdr(found, &object) != 0 && object.dli_fbase == own.dli_fbase;
}

// Tools that have a heap of their own, to look into it, put it before ours. Whoever preloaded us should know.
bool stand_aside(bool is_in_place) {
  const char* preloaded = secure_getenv("LD_PRELOAD");
  if (preloaded == nullptr || strstr(preloaded, own_path) == nullptr) return false;
  if (os::is_under_valgrind()) {
    say("Valgrind has a heap of its own, which it looks into: this one stands aside");
    return true;
  }
  if (is_in_place) return false;
  static constexpr const char* kSanitizers[] = {"__asan_init", "__tsan_init", "__msan_init", "__hwasan_init"};
  for (const char* sanitizer : kSanitizers) {
    if (dlsym(RTLD_DEFAULT, sanitizer) == nullptr) continue;
    dlerror();
    say("a sanitizer has a heap of its own, which it looks into: this one stands aside");
    return true;
  }
  return false;
}

// What was handed out before this: the loader's blocks, those of other libraries' constructors, the program's first.
void file_early_blocks() {
  const auto out = SpecHeap::count_out_blocks();
  for (unsigned index = 1; index < kClasses; ++index) {
    if (out.blocks[index] == 0) continue;
    probe::move_blocks(SpecHeap::Classes::bytes_of(index), static_cast<int64_t>(out.blocks[index]));
  }
  if (out.blocks[0] == 0) return;
  PageHeapType::visit_spans([](const Span& span) {
    if (span.state == SpanState::large) probe::move_blocks(span.bytes(), 1);
  });
}

void open_at_first_look(uint64_t now_ms) {
  uint32_t closed = 0;
  if (os::is_restricted || !compare_exchange_acquire(is_open, closed, 1u)) return;
  const os::KeepErrno keep;
  probe::attach();
  file_early_blocks();
  SpecHeap::listen({probe::move_blocks, probe::admits, visit});
  publish(false);
  store_relaxed(spans_due_ms, now_ms + kSpansMs);
}

}  // namespace

namespace hs::forged_region {

void prepare() {
  const os::KeepErrno keep;
  Dl_info own = {};
  if (dladdr(reinterpret_cast<const void*>(&is_ours), &own) == 0) return;
  strncpy(own_path, own.dli_fname, sizeof own_path - 1);
  void* door = nullptr;
  void* allocate = nullptr;
  const bool is_first = is_ours(kRegionDoor, own, door);
  const bool is_in_place = is_ours("malloc", own, allocate);
  dlerror();
  if (stand_aside(is_in_place)) return;
  // A library that is only loaded, beside the process's own malloc, has nothing to show.
  if (door == nullptr || (is_first && !is_in_place)) return;
  region_door = reinterpret_cast<RegionDoor>(door);
  is_counting = is_first;
  if (!is_counting) {
    is_open = 1;
    return SpecHeap::listen({nullptr, nullptr, visit});
  }
  probe::is_small_region = true;  // nobody asked for it: it must not take a program's address space
  probe::on_region_open = describe_process;
  SpecHeap::listen({nullptr, nullptr, open_at_first_look});
}

void close() {
  if (load_acquire(is_open) == 0) return;
  SpecHeap::tell_current();
  publish(Linux::now_ms() >= load_relaxed(spans_due_ms));
}

void fork_prepare() {
  if (is_counting) probe::fork_prepare();
}
void fork_parent() {
  if (is_counting) probe::fork_parent();
}
void fork_child() {
  is_publishing = 0;
  gauges_due_ms = spans_due_ms = spans_paid_ms = 0;
  spanned_committed_bytes = 0;
  shown_in = nullptr;
  if (is_counting) probe::fork_child();
}

}  // namespace hs::forged_region

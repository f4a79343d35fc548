// What a forged heap is measured in, told to Python: the simulator has no numbers of its own.
#include "base/compiler.h"
#include "heap/heap.h"
#include "policy/cache/no_cache.h"
#include "policy/pages/os_pages.h"
#include "policy/remote/remote_batch.h"
#include "policy/sizes/geometric.h"

namespace hs {
using AnySizes = Geometric<16, 262144, 8>;
using AnyHeap = Heap<AnySizes, NoCache, RemoteBatch<0>, OsPages<>>;
}  // namespace hs

using Classes = hs::SizeClasses<hs::AnySizes>;
using hs::AnyHeap;

extern "C" {

// Pages of a span of a class, where the spec does not say.
HS_EXPORT uint32_t heapsmith_span_pages(uint32_t class_bytes) {
  return Classes::shape_of_class(class_bytes).span_pages;
}
// Blocks of such a span: 1 where every block has a span for itself.
HS_EXPORT uint32_t heapsmith_span_blocks(uint32_t class_bytes) {
  return Classes::shape_of_class(class_bytes).span_blocks;
}
HS_EXPORT uint64_t heapsmith_first_segment_bytes() { return AnyHeap::PageHeapType::first_segment_bytes; }
HS_EXPORT uint64_t heapsmith_largest_segment_bytes() { return AnyHeap::PageHeapType::largest_segment_bytes; }
HS_EXPORT uint64_t heapsmith_maintenance_ms() { return AnyHeap::CacheType::maintenance_ms; }
HS_EXPORT uint64_t heapsmith_span_metadata_bytes() { return sizeof(hs::Span); }
HS_EXPORT uint64_t heapsmith_page_metadata_bytes() { return sizeof(uint8_t) + sizeof(hs::Span*); }
}

// From an address to the size class of its page (the hot path of free: one look) and to its span (the slow
// paths).
#pragma once

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "heap/span.h"
#include "os/linux.h"

namespace hs {

// One per GiB of addresses in use. It is mapped, not filled: only the parts that describe our pages take
// memory.
struct PageMapLeaf {
  static constexpr unsigned shift = 30;
  static constexpr size_t pages = size_t{1} << (shift - page_shift);

  uint8_t class_index[pages];  // 0: no block of a size class starts or lies here
  Span* span[pages];           // right for every page of a span of blocks, else for the first and last of a run
  bool huge[pages * page_bytes / huge_page_bytes];  // advised to become one huge page
};

template <OperatingSystem Os>
class PageMap {
 public:
  static constexpr size_t leaves = size_t{1} << (address_bits - PageMapLeaf::shift);

  // Any bit pattern may be asked about: addresses no program can have share the leaves of those it can.
  HS_FAST_PATH static PageMapLeaf* leaf_of(uintptr_t address) {
    return load_relaxed(root_[(address >> PageMapLeaf::shift) & (leaves - 1)]);
  }
  HS_FAST_PATH static size_t page_of(uintptr_t address) { return (address >> page_shift) & (PageMapLeaf::pages - 1); }

  static Span* span_of(uintptr_t address) {
    PageMapLeaf* leaf = leaf_of(address);
    return leaf ? load_relaxed(leaf->span[page_of(address)]) : nullptr;
  }

  // Makes the leaves of a range; false when there is no memory for them. Called under the lock of the page
  // heap.
  static bool cover(uintptr_t start, size_t bytes) {
    for (uintptr_t at = round_down(start, size_t{1} << PageMapLeaf::shift); at < start + bytes;
         at += size_t{1} << PageMapLeaf::shift) {
      if (leaf_of(at)) continue;
      // The first one is there already: most programs need no other.
      const bool is_first = load_relaxed(leaves_mapped_) == 0;
      void* leaf = is_first ? &first_leaf_ : Os::map(round_up(sizeof(PageMapLeaf), page_bytes));
      if (!leaf) return false;
      // Pairs with nothing: a reader got its address from a call that happened after this one returned.
      store_release(root_[at >> PageMapLeaf::shift], static_cast<PageMapLeaf*>(leaf));
      store_relaxed(leaves_mapped_, load_relaxed(leaves_mapped_) + 1);
    }
    return true;
  }

  static void set_class(uintptr_t address, uint8_t class_index) {
    store_relaxed(leaf_of(address)->class_index[page_of(address)], class_index);
  }
  static void set_span(uintptr_t address, Span* span) { store_relaxed(leaf_of(address)->span[page_of(address)], span); }
  static void set_ends(Span* span) {
    set_span(span->start, span);
    set_span(span->end() - page_bytes, span);
  }
  // A span of one block is known by its first page.
  static void set_blocks(Span* span, uint8_t class_index, bool single) {
    if (single) {
      set_class(span->start, class_index);
      return;
    }
    for (uintptr_t at = span->start; at < span->end(); at += page_bytes) {
      set_class(at, class_index);
      set_span(at, span);
    }
  }
  static void clear_blocks(Span* span, bool single) {
    const uintptr_t end = single ? span->start + page_bytes : span->end();
    for (uintptr_t at = span->start; at < end; at += page_bytes) set_class(at, 0);
  }
  // Of a range that is no longer ours: whatever is mapped there next must not meet its past.
  static void forget(uintptr_t start, size_t bytes) {
    for (uintptr_t at = start; at < start + bytes; at += page_bytes)
      if (span_of(at)) set_span(at, nullptr);  // the inside of a large block was never written: let it stay so
    for (uintptr_t at = round_down(start, huge_page_bytes); at < start + bytes; at += huge_page_bytes)
      if (leaf_of(at)) leaf_of(at)->huge[huge_page_of(at)] = false;
  }
  // Of whole huge pages.
  static void set_huge(uintptr_t start, size_t bytes) {
    for (uintptr_t at = start; at < start + bytes; at += huge_page_bytes) leaf_of(at)->huge[huge_page_of(at)] = true;
  }
  // Whether any huge page was advised that lies in the range as a whole.
  static bool holds_huge(uintptr_t start, size_t bytes) {
    for (uintptr_t at = round_up(start, huge_page_bytes); at + huge_page_bytes <= start + bytes; at += huge_page_bytes)
      if (PageMapLeaf* leaf = leaf_of(at); leaf && leaf->huge[huge_page_of(at)]) return true;
    return false;
  }
  static bool touches_huge(uintptr_t start, size_t bytes) {
    const uintptr_t from = round_down(start, huge_page_bytes);
    return holds_huge(from, round_up(start + bytes, huge_page_bytes) - from);
  }
  // Calls `visit` with the first address of every leaf that describes addresses of a range: the root itself is not
  // touched beyond, for most of it was never written.
  template <class Visitor>
  static void visit_leaves(uintptr_t start, uintptr_t end, Visitor visit) {
    for (uintptr_t at = round_down(start, size_t{1} << PageMapLeaf::shift); at < end;
         at += size_t{1} << PageMapLeaf::shift)
      if (leaf_of(at)) visit(at);
  }
  static size_t reserved_bytes() { return load_relaxed(leaves_mapped_) * sizeof(PageMapLeaf); }

 private:
  static size_t huge_page_of(uintptr_t address) { return page_of(address) / (huge_page_bytes / page_bytes); }

  HS_BULK static inline PageMapLeaf* root_[leaves];
  HS_BULK static inline PageMapLeaf first_leaf_;
  static inline size_t leaves_mapped_;
};

}  // namespace hs

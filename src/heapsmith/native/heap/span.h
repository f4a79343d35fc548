// A span: a run of whole pages that holds blocks of one size class, one large block, or nothing. It is
// described here, outside of its pages, so that blocks lie densely and free pages need not be touched.
#pragma once

#include "base/bits.h"
#include "os/linux.h"

namespace hs {

enum class SpanState : uint8_t {
  retired,  // describes nothing; waits to be used again
  blocks,   // holds blocks of one size class
  large,    // holds one large block
  dirty,    // free, may be resident
  clean,    // free, not resident, reads as zero
  fresh,    // clean, and advised to become huge pages
  purging,  // free, being given back: out of every list
};

struct Span {
  uintptr_t start;
  uint32_t page_count;
  SpanState state;
  uint8_t class_index;
  bool listed;  // blocks: stands in its class's list of spans with free blocks
  bool zeroed;  // reads as zero beyond what was carved
  // Neighbours in the list the state asks for: spans of a class, or a bin of free runs.
  Span* next;
  Span* previous;
  union {
    struct {
      void* free_blocks;
      uint32_t used_blocks;    // out of the central heap: with the program, or in a thread's cache
      uint32_t carved_blocks;  // ever handed out; blocks beyond were never written
      void* owner;             // the thread cache that took blocks last (atomic)
    } blocks;
    struct {
      Span* older;
      Span* newer;
      uint64_t freed_ms;
    } age;  // dirty
  };
  void* remote_blocks;  // freed by threads that do not own the span (atomic)

  size_t bytes() const { return size_t{page_count} << page_shift; }
  uintptr_t end() const { return start + bytes(); }
};
static_assert(sizeof(Span) == 64, "one cache line");

}  // namespace hs

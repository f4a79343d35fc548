// The slots of a heap, and what fits each. A policy that does not fit is refused where the heap is composed,
// by the name of the slot.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

namespace hs {

// (The C++ library's <concepts> is not part of a freestanding compiler everywhere.)
template <class A, class B>
inline constexpr bool same_type = false;
template <class A>
inline constexpr bool same_type<A, A> = true;
template <class A, class B>
concept Same = same_type<A, B>;

// Slot `lock`: guards one size class of the central heap, or the page heap.
template <class T>
concept Lock = requires(T lock) {
  lock.lock();
  lock.unlock();
  lock.reset();
};

// The size classes a policy promises, smallest first.
template <size_t count>
struct ClassList {
  static constexpr size_t class_count = count;
  uint32_t bytes[count];
  uint32_t span_pages[count];  // of a class's spans; 0: as many as suit its size
};

// Slot `sizes`: which block sizes there are.
template <class T>
concept Sizes = requires {
  { T::classes.class_count };
  { T::classes.bytes[0] };
};

// Slot `cache`: how many blocks a thread may hold out of the central heap.
template <class T>
concept Cache = requires(size_t class_bytes, unsigned class_index) {
  requires Same<decltype(T::caches), const bool>;
  { T::limit_bytes() } -> Same<size_t>;
  { T::magazine_blocks(class_bytes, class_index) } -> Same<uint32_t>;
};

// Slot `remote`: what happens to a block freed by a thread that did not allocate it.
template <class T>
concept Remote = requires {
  requires Same<decltype(T::to_span), const bool>;
  requires Same<decltype(T::transfer_batches), const unsigned>;
};

// A new range of addresses; `huge`: it was advised to become huge pages.
struct Segment {
  void* start;
  bool huge;
};

// Slot `pages`: where pages come from, when they go back, and how many there may be. Stages are stacked with
// `Pipe`.
template <class T>
concept Pages = requires(T pages, void* start, size_t bytes, bool for_blocks) {
  { pages.map(bytes, for_blocks) } -> Same<Segment>;
  { pages.release(start, bytes) } -> Same<bool>;
  { pages.purge(start, bytes) } -> Same<bool>;
  { pages.purged_reads_zero() } -> Same<bool>;
  { pages.take(bytes) } -> Same<bool>;
  { pages.give_back(bytes) };
  { pages.touch(start, bytes) };
  { pages.may_hold_reserved() } -> Same<bool>;
  { pages.make_huge(start, bytes) } -> Same<bool>;
  requires Same<decltype(T::makes_huge), const bool>;
  requires Same<decltype(T::huge_after_bytes), const size_t>;
  { pages.keep_bytes(bytes) } -> Same<size_t>;
  { pages.rest_bytes(bytes) } -> Same<size_t>;
  { pages.keep_ms() } -> Same<uint64_t>;
  { pages.limit_bytes() } -> Same<size_t>;
};

}  // namespace hs

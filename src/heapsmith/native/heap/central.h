// The central heap: for each size class the spans with free blocks, and a few whole batches that threads
// exchange.
//
//   fetch    a waiting batch -> free blocks of a span with some -> blocks never used before, up to the end of
//   a page release  as a waiting batch -> each block back to its span -> an empty span back to the page heap
//
// Invariant, per span of blocks: used_blocks + blocks in free_blocks + blocks in remote_blocks' list ==
// carved_blocks, where a block that waits in remote_blocks still counts as used.
#pragma once

#include <string.h>

#include "base/compiler.h"
#include "heap/page_heap.h"
#include "os/secret.h"
#include "policy/concepts.h"

namespace hs {

// A list of free blocks, linked through themselves.
struct Batch {
  void* head;
  uint32_t count;
};

template <class Parts>
class Central {
 public:
  using Classes = typename Parts::Classes;
  using PageHeapType = typename Parts::PageHeapType;
  using Map = typename PageHeapType::Map;
  using Links = typename Parts::Links;
  using Remote = typename Parts::Remote;
  static constexpr unsigned transfer_batches = Remote::transfer_batches;

  // Spans of this class are one block each: they go straight to and from the page heap.
  static bool is_single(unsigned class_index) { return Classes::shapes.of[class_index].span_blocks == 1; }

  // Up to `wanted` blocks, at least one; count 0 when there is no memory.
  static Batch fetch(unsigned class_index, uint32_t wanted, void* owner) {
    if (is_single(class_index)) return fetch_single(class_index);
    Shelf& shelf = shelves_[class_index];
    shelf.lock.lock();
    shelf.used = true;
    if constexpr (transfer_batches > 0) {
      if (shelf.batch_count > 0) {
        const Batch batch = take_newest(shelf);
        shelf.lock.unlock();
        return batch;
      }
      if (shelf.parted_batches > 0) {
        // One of those would have done: more may wait from here on.
        shelf.most_batches = static_cast<uint32_t>(smaller_of(2 * most_batches(shelf), transfer_batches));
        shelf.parted_batches = 0;
      }
    }
    Batch batch{nullptr, 0};
    while (2 * batch.count < wanted) {
      Span* span = shelf.partial;
      if (!span) {
        if (batch.count > 0) break;
        span = new_span(class_index);
        if (!span) break;
        link(shelf, span);
      }
      const bool is_fresh = !span->blocks.free_blocks;
      take_from(span, class_index, wanted, batch, owner);
      if (!span->blocks.free_blocks && span->blocks.carved_blocks == Classes::shapes.of[class_index].span_blocks &&
          !load_relaxed(span->remote_blocks))
        unlink(shelf, span);
      if (is_fresh && batch.count > 0) break;
    }
    shelf.lock.unlock();
    return batch;
  }

  static void release(unsigned class_index, Batch batch) {
    if (is_single(class_index)) {
      release_singles(batch);
      return;
    }
    Shelf& shelf = shelves_[class_index];
    shelf.lock.lock();
    shelf.used = true;
    if constexpr (transfer_batches > 0) {
      if (HS_LIKELY(!PageHeapType::is_ebb())) {
        if (!shelf.batches) shelf.batches = static_cast<Batch*>(PageHeapType::Meta::allocate(batches_bytes));
        if (shelf.batches) {
          if (shelf.batch_count < most_batches(shelf)) {
            put_newest(shelf, batch);
            shelf.lock.unlock();
            return;
          }
          // It is this one that goes: its links are still in the processor's caches.
          shelf.parted_batches++;
        }
      }
    }
    Span* emptied = dissolve(shelf, batch);
    shelf.lock.unlock();
    free_spans(emptied);
  }

  // Without a stay among the waiting batches: for what is not expected to be wanted again soon.
  static void release_to_spans(unsigned class_index, Batch batch) {
    if (is_single(class_index)) {
      release_singles(batch);
      return;
    }
    Shelf& shelf = shelves_[class_index];
    shelf.lock.lock();
    Span* emptied = dissolve(shelf, batch);
    shelf.lock.unlock();
    free_spans(emptied);
  }

  // Policy RemoteStack: a block freed by a thread that does not own its span.
  static void release_remote(unsigned class_index, Span* span, void* block) {
    void* head = load_relaxed(span->remote_blocks);
    while (head) {
      Links::set_next(block, head);
      // Pairs with the acquire in `collect_remote`.
      if (__atomic_compare_exchange_n(&span->remote_blocks, &head, block, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        return;  // the span may be gone from here on
    }
    // The first of a list makes sure that somebody will look: the lock keeps the span until it is listed.
    Shelf& shelf = shelves_[class_index];
    shelf.lock.lock();
    head = load_relaxed(span->remote_blocks);
    do {
      Links::set_next(block, head);
    } while (
        !__atomic_compare_exchange_n(&span->remote_blocks, &head, block, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    if (!span->listed) link(shelf, span);
    shelf.lock.unlock();
  }

  // Batches that nobody needed since the last call go back to their spans, and so do remote lists of classes that nobody
  // used; `all`: whatever waits.
  static void recycle(bool all) {
    for (unsigned index = 1; index < Classes::index_count; index++) {
      Shelf& shelf = shelves_[index];
      if (!load_relaxed(shelf.batch_count) && !Remote::to_span) continue;
      shelf.lock.lock();
      Span* emptied = nullptr;
      if constexpr (transfer_batches > 0) {
        const uint32_t most = most_batches(shelf);
        const uint32_t unneeded = shelf.unneeded_batches;
        for (uint32_t left = all ? shelf.batch_count : unneeded; left > 0; left--) {
          Span* more = dissolve(shelf, take_oldest(shelf));
          emptied = append(emptied, more);
        }
        shelf.most_batches = most > unneeded ? most - unneeded : 0;
        shelf.unneeded_batches = shelf.batch_count;
      }
      if constexpr (Remote::to_span) {
        if (all || !shelf.used) emptied = append(emptied, collect_all(shelf));
        shelf.used = false;
      }
      shelf.lock.unlock();
      free_spans(emptied);
    }
  }

  // A fresh span of one block, if the page heap has to take one anyway: `zeroed` as the pages are.
  static void* fetch_fresh(unsigned class_index, bool& zeroed) {
    Span* span = new_span(class_index);
    if (!span) return nullptr;
    zeroed = span->zeroed;
    span->blocks.carved_blocks = span->blocks.used_blocks = 1;
    return pointer_to(span->start);
  }

  static void lock_all() {
    for (Shelf& shelf : shelves_) shelf.lock.lock();
  }
  static void unlock_all() {
    for (Shelf& shelf : shelves_) shelf.lock.unlock();
  }
  static void reset_locks() {
    for (Shelf& shelf : shelves_) shelf.lock.reset();
  }

  // Blocks that wait in batches, in bytes. Approximate while others work.
  static size_t waiting_bytes() {
    size_t bytes = 0;
    for (unsigned index = 1; index < Classes::index_count; index++)
      bytes += load_relaxed(shelves_[index].waiting_blocks) * Classes::bytes_of(index);
    return bytes;
  }

 private:
  struct alignas(64) Shelf {
    typename Parts::LockType lock;
    uint32_t batch_count;
    uint32_t oldest_batch;
    uint32_t unneeded_batches;  // the fewest that waited at any moment since the last recycling
    uint32_t waiting_blocks;    // in all batches
    uint32_t most_batches;      // that may wait now, where that is more than `first_batches`
    uint32_t parted_batches;    // taken apart for want of room since one was missed
    bool used;
    Span* partial;
    Batch* batches;  // a ring of `transfer_batches`, made when the first one waits: most classes never have any
  };
  static constexpr size_t batches_bytes = sizeof(Batch) * transfer_batches;
  // A batch that waits leaves the processor's caches, and is slow to take apart: only where batches are missed may many
  // wait.
  static constexpr uint32_t first_batches = transfer_batches < 2 ? transfer_batches : 2;

  static uint32_t most_batches(const Shelf& shelf) {
    return shelf.most_batches > first_batches ? shelf.most_batches : first_batches;
  }

  static uint32_t place_of(const Shelf& shelf, uint32_t number) {
    return (shelf.oldest_batch + number) % (transfer_batches ? transfer_batches : 1);
  }
  static void put_newest(Shelf& shelf, Batch batch) {
    shelf.batches[place_of(shelf, shelf.batch_count)] = batch;
    store_relaxed(shelf.batch_count, shelf.batch_count + 1);
    store_relaxed(shelf.waiting_blocks, shelf.waiting_blocks + batch.count);
  }
  static Batch take_newest(Shelf& shelf) { return taken(shelf, shelf.batches[place_of(shelf, shelf.batch_count - 1)]); }
  static Batch take_oldest(Shelf& shelf) {
    const Batch batch = shelf.batches[shelf.oldest_batch];
    shelf.oldest_batch = place_of(shelf, 1);
    return taken(shelf, batch);
  }
  static Batch taken(Shelf& shelf, Batch batch) {
    store_relaxed(shelf.batch_count, shelf.batch_count - 1);
    store_relaxed(shelf.waiting_blocks, shelf.waiting_blocks - batch.count);
    if (shelf.unneeded_batches > shelf.batch_count) shelf.unneeded_batches = shelf.batch_count;
    return batch;
  }
  static void link(Shelf& shelf, Span* span) {
    span->listed = true;
    span->previous = nullptr;
    span->next = shelf.partial;
    if (shelf.partial) shelf.partial->previous = span;
    shelf.partial = span;
  }
  static void unlink(Shelf& shelf, Span* span) {
    span->listed = false;
    if (span->previous) {
      span->previous->next = span->next;
    } else {
      shelf.partial = span->next;
    }
    if (span->next) span->next->previous = span->previous;
  }

  static Span* new_span(unsigned class_index) {
    Span* span = PageHeapType::allocate(Classes::shapes.of[class_index].span_pages, page_bytes, SpanState::blocks);
    if (!span) return nullptr;
    if constexpr (Links::scrubs) {
      if (!span->zeroed) memset(pointer_to(span->start), 0, span->bytes());
    }
    span->class_index = static_cast<uint8_t>(class_index);
    span->blocks.free_blocks = nullptr;
    span->blocks.used_blocks = 0;
    span->blocks.carved_blocks = 0;
    span->blocks.owner = nullptr;
    Map::set_blocks(span, static_cast<uint8_t>(class_index), is_single(class_index));
    return span;
  }

  // Blocks never used before are handed out by 32 cache lines.
  static constexpr size_t stretch_blocks(size_t class_bytes) { return 32 * larger_of(64 / class_bytes, size_t{1}); }
  static void take_from(Span* span, unsigned class_index, uint32_t wanted, Batch& batch, void* owner) {
    if constexpr (Remote::to_span) {
      collect_remote(span);
      store_relaxed(span->blocks.owner, owner);
    }
    if (void* first = span->blocks.free_blocks) {
      const uint32_t free_count = span->blocks.carved_blocks - span->blocks.used_blocks;
      if (batch.count == 0 && free_count <= 2 * wanted) {
        // All of them: nothing to count, nothing to cut.
        batch = {first, free_count};
        span->blocks.free_blocks = nullptr;
        span->blocks.used_blocks += free_count;
        return;
      }
      void* last = first;
      uint32_t taken = 1;
      for (void* next; batch.count + taken < wanted && (next = Links::next(last)); taken++) last = next;
      span->blocks.free_blocks = Links::next(last);
      Links::set_next(last, batch.head);
      batch.head = first;
      batch.count += taken;
      span->blocks.used_blocks += taken;
      return;
    }
    const auto& shape = Classes::shapes.of[class_index];
    const size_t class_bytes = shape.class_bytes;
    const uint32_t carved = span->blocks.carved_blocks;
    if (carved == shape.span_blocks) return;
    // In one stretch, so that neighbours in the list are neighbours in memory; no more than is wanted: pages nobody
    // asked for stay untouched. A short one: while the program uses these blocks, the processor fetches the lines of
    // the next, where a long one would wait for all of them.
    const uintptr_t start = span->start + carved * class_bytes;
    const size_t wanted_blocks = smaller_of(shape.span_blocks - carved, wanted - batch.count);
    const auto count = static_cast<uint32_t>(smaller_of(wanted_blocks, stretch_blocks(class_bytes)));
    // One call instead of a fault for each page that is about to be written.
    if (span->zeroed && carved == 0 && wanted_blocks * class_bytes >= 2 * page_bytes)
      Parts::Os::populate(pointer_to(start), wanted_blocks * class_bytes);
    void* head = batch.head;
    if constexpr (Links::random_order) {
      // A stride without a common divisor visits every block once, from a random one on.
      const uint64_t random = mixed(process_secret() ^ start);
      uint32_t stride = 1 + static_cast<uint32_t>((random >> 32) % count);
      while (greatest_common_divisor(stride, count) != 1) stride++;
      uint32_t at = static_cast<uint32_t>(random % count);
      for (uint32_t i = 0; i < count; i++, at = (at + stride) % count) {
        void* block = pointer_to(start + at * class_bytes);
        Links::set_next(block, head);
        head = block;
      }
    } else {
      // Upwards, as the processor fetches ahead.
      const uintptr_t last = start + (count - 1) * class_bytes;
      for (uintptr_t at = start; at < last; at += class_bytes)
        Links::set_next(pointer_to(at), pointer_to(at + class_bytes));
      Links::set_next(pointer_to(last), head);
      head = pointer_to(start);
    }
    batch.head = head;
    batch.count += count;
    span->blocks.carved_blocks += count;
    span->blocks.used_blocks += count;
  }

  // Answers the spans that became empty, linked by `next`; they are in no list any more.
  static Span* dissolve(Shelf& shelf, Batch batch) {
    Span* emptied = nullptr;
    void* first = batch.head;
    for (uint32_t left = batch.count; left > 0;) {
      // Blocks that came from one span mostly go back together: such a stretch is spliced in as it is linked.
      Span* span = Map::span_of(address_of(first));
      void* last = first;
      void* next = Links::next(first);
      uint32_t stretch = 1;
      while (stretch < left && address_of(next) - span->start < span->bytes()) {
        last = next;
        next = Links::next(last);
        stretch++;
      }
      Links::set_next(last, span->blocks.free_blocks);
      span->blocks.free_blocks = first;
      span->blocks.used_blocks -= stretch;
      if (!span->listed) link(shelf, span);
      if (span->blocks.used_blocks == 0) {
        unlink(shelf, span);
        Map::clear_blocks(span, false);
        span->next = emptied;
        emptied = span;
      }
      first = next;
      left -= stretch;
    }
    return emptied;
  }

  static void collect_remote(Span* span) {
    if (!load_relaxed(span->remote_blocks)) return;
    // Pairs with the release in `release_remote`.
    void* block = __atomic_exchange_n(&span->remote_blocks, nullptr, __ATOMIC_ACQUIRE);
    while (block) {
      void* next = Links::next(block);
      Links::set_next(block, span->blocks.free_blocks);
      span->blocks.free_blocks = block;
      span->blocks.used_blocks--;
      block = next;
    }
  }
  static Span* collect_all(Shelf& shelf) {
    Span* emptied = nullptr;
    for (Span *span = shelf.partial, *next; span; span = next) {
      next = span->next;
      collect_remote(span);
      if (span->blocks.used_blocks == 0) {
        unlink(shelf, span);
        Map::clear_blocks(span, false);
        span->next = emptied;
        emptied = span;
      }
    }
    return emptied;
  }

  static Span* append(Span* list, Span* more) {
    while (more) {
      Span* next = more->next;
      more->next = list;
      list = more;
      more = next;
    }
    return list;
  }
  static void free_spans(Span* emptied) {
    while (emptied) {
      Span* next = emptied->next;
      PageHeapType::free(emptied);
      emptied = next;
    }
  }

  static Batch fetch_single(unsigned class_index) {
    bool zeroed;
    void* block = fetch_fresh(class_index, zeroed);
    if (!block) return {nullptr, 0};
    Links::set_next(block, nullptr);
    return {block, 1};
  }
  static void release_singles(Batch batch) {
    void* block = batch.head;
    for (uint32_t i = 0; i < batch.count; i++) {
      void* next = Links::next(block);
      Span* span = Map::span_of(address_of(block));
      Map::clear_blocks(span, true);
      PageHeapType::free(span);
      block = next;
    }
  }

  static inline constinit Shelf shelves_[Classes::index_count]{};
};

}  // namespace hs

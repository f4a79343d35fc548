// A heap that looks: every block it hands out carries a seal, and every block that comes back is held against
// it.
//
//   allocate    inner heap -> was it written to since it was freed? -> header sealed "live", canary behind
//   deallocate  is there a block? -> is it sealed "live"? -> canary whole? -> sealed "freed", zeroed ->
//   quarantine
//               -> (later, in random order) still untouched? -> inner heap
//
//   small:  | header 16 | requested bytes | canary ... |          a block of the inner heap
//   large:  | guard page | header 16 | requested bytes | canary ... | guard page |
#pragma once

#include <string.h>

#include "base/compiler.h"
#include "heap/family.h"
#include "heap/heap.h"
#include "os/die.h"
#include "os/secret.h"
#include "policy/hardening/checked_blocks.h"
#include "policy/hardening/guard_pages.h"
#include "policy/hardening/matched_deallocation.h"
#include "policy/hardening/quarantine.h"
#include "policy/hardening/recorded_origins.h"
#include "policy/hardening/zero_on_free.h"

namespace hs {

namespace detail {
template <class Wanted, class... Policies>
inline constexpr bool among = (same_type<Wanted, Policies> || ...);

struct NoQuarantine {
  static constexpr size_t blocks = 0;
  static constexpr size_t bytes = 0;
};
template <class... Policies>
struct FindQuarantine {
  using Type = NoQuarantine;
};
template <size_t blocks, size_t bytes, class... Rest>
struct FindQuarantine<Quarantine<blocks, bytes>, Rest...> {
  using Type = Quarantine<blocks, bytes>;
};
template <class First, class... Rest>
struct FindQuarantine<First, Rest...> {
  using Type = typename FindQuarantine<Rest...>::Type;
};
}  // namespace detail

template <class Inner, class... Policies>
class Hardened {
 public:
  using Os = typename Inner::Os;
  using Classes = typename Inner::Classes;
  using Cache = typename Inner::Cache;
  using PageHeapType = typename Inner::PageHeapType;
  using OutBlocks = typename Inner::OutBlocks;
  static constexpr bool zeroes = detail::among<ZeroOnFree, Policies...>;
  static constexpr bool records = detail::among<RecordedOrigins, Policies...>;
  static constexpr bool matches = detail::among<MatchedDeallocation, Policies...>;
  static constexpr bool guards = detail::among<GuardPages, Policies...>;
  using Waiting = typename detail::FindQuarantine<Policies...>::Type;
  static_assert(detail::among<CheckedBlocks, Policies...>, "the other policies need the headers of CheckedBlocks");
  static_assert(Classes::largest_bytes <= 32_KiB, "larger blocks are guarded as spans of their own");

  static inline void (*&on_thread_attached)() = Inner::on_thread_attached;
  // The inner heap's blocks come and go with the quarantine: the program's are told here, each as it comes and goes.
  static inline constinit Listener listener{};
  static void listen(const Listener& to) {
    listener = {to.blocks, to.admits, nullptr};
    Inner::listen({nullptr, nullptr, to.visit});
  }
  static void tell_current() {}
  static size_t untold_bytes() { return 0; }

  static void* allocate(size_t requested_bytes) { return allocate_aligned(16, requested_bytes); }

  static void* allocate_zeroed(size_t requested_bytes) {
    void* block = allocate(requested_bytes);
    if (block && !zeroes) {
      const Span* span = Inner::Map::span_of(address_of(block));
      if (span->state != SpanState::large || !span->zeroed) memset(block, 0, requested_bytes);
    }
    return block;
  }

  static void* allocate_aligned(size_t alignment, size_t requested_bytes) {
    if (alignment < 16) alignment = 16;
    if (listener.admits && !listener.admits(requested_bytes)) return nullptr;
    if (requested_bytes > Inner::largest_request_bytes - 16 || alignment > Inner::largest_request_bytes / 4)
      return nullptr;
    const size_t lead = larger_of(alignment, sizeof(Header));
    const size_t needed = lead + requested_bytes + 1;
    if (needed > Classes::largest_bytes || alignment > page_bytes) return allocate_large(alignment, requested_bytes);
    auto* start = static_cast<char*>(Inner::allocate_aligned(alignment, needed));
    if (!start && drain()) start = static_cast<char*>(Inner::allocate_aligned(alignment, needed));
    if (!start) return nullptr;
    const size_t whole_bytes = Inner::usable_bytes(start);
    if (whole_bytes > Classes::largest_bytes) {  // no class keeps this alignment
      Inner::deallocate(start);
      return allocate_large(alignment, requested_bytes);
    }
    if constexpr (zeroes) {
      memset(start, 0, 16);  // the links of the inner heap stood here
      if (!is_zero(start + 16, whole_bytes - 16)) die("malloc()", "a freed block was written to", start + lead);
    }
    return seal(start + lead, requested_bytes, lead, start + whole_bytes);
  }

  static void deallocate(void* block) { deallocate_by({Family::malloc, false}, block, unsaid_bytes); }

  // The block, as made by another function than malloc. What another allocator has made stays as it is.
  static void mark(void* block, Way way) {
    if constexpr (!matches) return;
    if (!Inner::Map::span_of(address_of(block))) return;
    Header* header = header_of(block);
    if (HS_UNLIKELY(header->seal != seal_of(block, header->size_and_shift, live))) return;
    // The runtime's operator new[] has asked operator new, which was ours.
    header->size_and_shift = (header->size_and_shift & ~way_mask) | way_bits(way);
    header->seal = seal_of(block, header->size_and_shift, live);
  }
  static void deallocate_by(Way way, void* block, size_t said_bytes) {
    if (!block) return;
    const char* caller = name_of(way.family);
    const Place place = find_live(block, caller);
    check_way(place, way, block, caller);
    if (matches && said_bytes != unsaid_bytes && said_bytes != place.requested_bytes)
      refuse(caller, "a block that was made in another size", block);
    retire(block, place);
  }

  static void* reallocate(void* block, size_t requested_bytes) {
    if (!block) return allocate(requested_bytes);
    const Place place = find_live(block, "realloc()");
    check_way(place, {Family::malloc, false}, block, "realloc()");
    if (requested_bytes == place.requested_bytes) return block;
    void* moved = allocate(requested_bytes);
    if (!moved) return nullptr;
    const size_t kept_bytes = smaller_of(place.requested_bytes, requested_bytes);
    if (!place.large || kept_bytes < Classes::largest_bytes || !move_pages(block, place, moved, kept_bytes))
      memcpy(moved, block, kept_bytes);
    retire(block, place);
    return moved;
  }

  // What was asked for: the rest of the block is the canary's.
  static size_t usable_bytes(const void* block) {
    return block ? find_live(const_cast<void*>(block), "malloc_usable_size()").requested_bytes : 0;
  }

  // Where a block was made, for the leak file.
  struct Origin {
    uint64_t caller;
    uint64_t tid;
  };
  static void note_origin(void* block, const void* caller)
    requires records
  {
    static_assert(sizeof(Header) == 32);
    if (thread_id == 0) thread_id = static_cast<uint64_t>(system_call(SYS_gettid));
    header_of(block)->origin[0] = address_of(caller);
    header_of(block)->origin[1] = thread_id;
  }
  // Shows every live block to `visit(block, requested_bytes, origin)`. The visitor must not allocate.
  template <class Visitor>
  static void visit_live(Visitor visit)
    requires records
  {
    PageHeapType::visit_spans([&](const Span& span) {
      if (span.state == SpanState::blocks) {
        const size_t class_bytes = Classes::bytes_of(span.class_index);
        for (uint32_t i = 0; i < span.blocks.carved_blocks; i++)
          visit_if_live(span.start + i * class_bytes, 0, class_bytes, visit);
      } else if (span.state == SpanState::large && !span.listed) {
        const size_t guard = guards ? page_bytes : 0;
        if (!visit_if_live(span.start, guard, span.bytes() - guard, visit))
          visit_if_live(span.start, 0, span.bytes() - guard, visit);
      }
    });
  }

  static bool use_heap(const char* name) { return Inner::use_heap(name); }
  static void thread_exit() { Inner::thread_exit(); }
  static size_t recycle() { return Inner::recycle(); }
  static HeapGauges gauges() { return Inner::gauges(); }
  // What waits in quarantine is not out.
  static OutBlocks count_out_blocks() {
    OutBlocks out = Inner::count_out_blocks();
    for (Shard& shard : shards_) {
      shard.lock.lock();
      for (uint32_t i = 0; i < shard.count; i++) {
        const Place& place = shard.waiting[i].place;
        const unsigned index = place.large ? 0 : Inner::Map::span_of(place.start)->class_index;
        out.blocks[index]--;
        out.bytes[index] -= place.large ? place.large->bytes() : Classes::bytes_of(index);
      }
      shard.lock.unlock();
    }
    return out;
  }

  static void fork_prepare() {
    for (Shard& shard : shards_) shard.lock.lock();
    Inner::fork_prepare();
  }
  static void fork_parent() {
    Inner::fork_parent();
    for (Shard& shard : shards_) shard.lock.unlock();
  }
  static void fork_child() {
    Inner::fork_child();
    for (Shard& shard : shards_) shard.lock.reset();
    thread_id = 0;
  }

 private:
  struct Header {
    uint64_t size_and_shift;  // requested bytes, and in the top byte the binary logarithm of what stands
                              // before the block; between them how it was made
    uint64_t seal;
    uint64_t origin[records ? 2 : 0];  // who called, and the thread
  };
  struct Place {
    uintptr_t start;  // of what the inner heap handed out
    uintptr_t end;
    size_t requested_bytes;
    Span* large;
    uint64_t way;
  };
  static constexpr unsigned way_shift = 53;
  static constexpr uint64_t way_mask = uint64_t{7} << way_shift;
  static uint64_t way_bits(Way way) {
    return (static_cast<uint64_t>(way.family) << 1 | (way.is_aligned ? 1 : 0)) << way_shift;
  }
  static const char* name_of(Family family) {
    return family == Family::malloc ? "free()" : family == Family::scalar_new ? "operator delete" : "operator delete[]";
  }
  static void check_way(const Place& place, Way way, const void* block, const char* caller) {
    if constexpr (!matches) return;
    if (HS_LIKELY(place.way == way_bits(way))) return;
    static constexpr const char* made[] = {"a block of malloc",
                                           "",
                                           "a block of operator new",
                                           "a block of operator new with an alignment",
                                           "a block of operator new[]",
                                           "a block of operator new[] with an alignment",
                                           "",
                                           ""};
    refuse(caller, made[place.way >> way_shift & 7], block);
  }
  enum : uint64_t { live = 0x6C697665, freed = 0x66726565 };

  static inline constinit thread_local uint64_t thread_id = 0;

  // A block begins behind its header, at the next power of two: its seal tells which.
  template <class Visitor>
  static bool visit_if_live(uintptr_t start, size_t guard, size_t bytes, Visitor& visit) {
    for (size_t lead = sizeof(Header); guard + lead < bytes; lead *= 2) {
      const auto* block = pointer_to<char>(start + guard + lead);
      const Header* header = header_of(block);
      if (header->seal != seal_of(block, header->size_and_shift, live)) continue;
      const size_t requested_bytes = header->size_and_shift & ((uint64_t{1} << way_shift) - 1);
      visit(block, requested_bytes, Origin{header->origin[0], header->origin[1]});
      return true;
    }
    return false;
  }

  static Header* header_of(const void* block) { return pointer_to<Header>(address_of(block) - sizeof(Header)); }
  static uint64_t seal_of(const void* block, uint64_t size_and_shift, uint64_t state) {
    return mixed(process_secret() ^ address_of(block) ^ mixed(size_and_shift + state));
  }
  static unsigned char canary() { return static_cast<unsigned char>(process_secret() >> 24 | 1); }

  static void* seal(char* block, size_t requested_bytes, size_t lead, char* end) {
    Header* header = header_of(block);
    header->size_and_shift = requested_bytes | uint64_t{log2_floor(lead)} << 56;
    header->seal = seal_of(block, header->size_and_shift, live);
    memset(block + requested_bytes, canary(), static_cast<size_t>(end - block) - requested_bytes);
    tell(requested_bytes, 1);
    return block;
  }

  static void* allocate_large(size_t alignment, size_t requested_bytes) {
    const size_t guard = guards ? page_bytes : 0;
    // Before the block: the guard, and room for a header that keeps the alignment.
    const size_t lead = alignment > page_bytes ? alignment : guard + larger_of(alignment, sizeof(Header));
    const size_t bytes = round_up(lead + requested_bytes + 1, page_bytes) + guard;
    Span* span = PageHeapType::allocate(bytes >> page_shift, larger_of(alignment, page_bytes));
    if (!span && drain()) span = PageHeapType::allocate(bytes >> page_shift, larger_of(alignment, page_bytes));
    if (!span) return nullptr;
    char* start = pointer_to<char>(span->start);
    if (guards) {
      // Where the kernel has no room for more mappings, the canary is all there is.
      Os::make_inaccessible(start, guard);
      Os::make_inaccessible(pointer_to(span->end() - guard), guard);
    }
    if (!span->zeroed && zeroes) memset(start + guard, 0, span->bytes() - 2 * guard);
    char* block = start + lead;
    Inner::Map::set_span(address_of(block), span);
    return seal(block, requested_bytes, 16, pointer_to<char>(span->end() - guard));
  }

  // Between two large blocks of malloc's own alignment whole pages change places instead of being copied.
  static bool move_pages(void* block, const Place& place, void* moved, size_t kept_bytes) {
    const size_t lead = address_of(block) - place.start;
    const Span* to = Inner::Map::span_of(address_of(moved));
    if (lead != address_of(moved) - to->start || lead >= 2 * page_bytes) return false;
    const size_t guard = guards ? page_bytes : 0;
    const Header sealed = *header_of(moved);
    const size_t whole_bytes = round_down(lead - guard + kept_bytes, page_bytes);
    if (!Os::move_out(pointer_to(place.start + guard), whole_bytes, pointer_to(to->start + guard))) return false;
    *header_of(moved) = sealed;
    const uintptr_t behind = guard + whole_bytes;
    memcpy(pointer_to(to->start + behind), pointer_to(place.start + behind), lead + kept_bytes - behind);
    return true;
  }

  // The block at an address, which must be live; anything else ends the program.
  static Place find_live(void* block, const char* caller) {
    Place place{};
    const uintptr_t address = address_of(block);
    const PageMapLeaf* leaf = Inner::Map::leaf_of(address);
    const Span* span = leaf ? leaf->span[Inner::Map::page_of(address)] : nullptr;
    if (!span || address % 16 != 0 || address < span->start + sizeof(Header) || address >= span->end())
      refuse(caller, "not a block of this heap", block);
    const Header* header = header_of(block);
    if (span->state == SpanState::blocks) {
      const size_t class_bytes = Classes::bytes_of(span->class_index);
      place.start = span->start + (address - span->start) / class_bytes * class_bytes;
      place.end = place.start + class_bytes;
      if (address - place.start < sizeof(Header)) refuse(caller, "not a block of this heap", block);
    } else if (span->state == SpanState::large) {
      if (span->listed) refuse(caller, "a block that was freed before", block);
      place.start = span->start;
      place.end = span->end() - (guards ? page_bytes : 0);
      place.large = const_cast<Span*>(span);
      if (guards && address - span->start < page_bytes + sizeof(Header)) refuse(caller, "not a block", block);
    } else {
      refuse(caller, "a block that was freed before", block);
    }
    const uint64_t size_and_shift = header->size_and_shift;
    if (header->seal == seal_of(block, size_and_shift, freed)) refuse(caller, "a block that was freed before", block);
    if (header->seal != seal_of(block, size_and_shift, live))
      refuse(caller, "no block begins here, or what stands before it was overwritten", block);
    place.requested_bytes = size_and_shift & ((uint64_t{1} << way_shift) - 1);
    place.way = size_and_shift & way_mask;
    for (uintptr_t at = address + place.requested_bytes; at < place.end; at++)
      if (*pointer_to<unsigned char>(at) != canary())
        refuse(caller, "the bytes behind this block were overwritten", block);
    return place;
  }
  [[noreturn]] HS_SLOW_PATH static void refuse(const char* caller, const char* what, const void* block) {
    die(caller, what, block);
  }

  static void tell(size_t requested_bytes, int64_t count) {
    if (listener.blocks) listener.blocks(larger_of(round_up(requested_bytes, 16), 16), count);
  }

  static void retire(void* block, const Place& place) {
    tell(place.requested_bytes, -1);
    Header* header = header_of(block);
    header->seal = seal_of(block, header->size_and_shift, freed);
    auto* bytes = static_cast<char*>(block);
    if (place.large && guards) {
      // Its pages go back at once; the addresses wait. Who frees it again would find no header.
      place.large->listed = true;
      const uintptr_t first = place.large->start + page_bytes;
      Os::make_inaccessible(pointer_to(first), place.end - first);
      Os::purge(pointer_to(first), place.end - first);
    } else if (zeroes) {
      memset(bytes, 0, place.end - address_of(block));
    }
    if constexpr (Waiting::blocks == 0) {
      give_back({block, place});
    } else {
      wait({block, place});
    }
  }

  // --- the quarantine
  // -------------------------------------------------------------------------------------------

  struct Waiter {
    void* block;
    Place place;
  };
  struct alignas(64) Shard {
    typename Inner::LockType lock;
    uint32_t count;
    size_t bytes;
    uint64_t random;
    Waiter waiting[Waiting::blocks ? Waiting::blocks : 1];
  };

  static size_t resident_bytes(const Waiter& waiter) {
    return waiter.place.large && guards ? page_bytes : waiter.place.end - waiter.place.start;
  }

  static void wait(const Waiter& waiter) {
    // Which shard does not matter, as long as threads mostly differ: their stacks lie apart.
    Shard& shard = shards_[mixed(address_of(__builtin_frame_address(0)) >> 16) % shard_count];
    Waiter leaving[8];
    unsigned leaving_count = 0;
    shard.lock.lock();
    while (shard.count > 0 && leaving_count < 8 &&
           (shard.count == Waiting::blocks || shard.bytes + resident_bytes(waiter) > Waiting::bytes)) {
      shard.random = mixed(shard.random + process_secret());
      Waiter& chosen = shard.waiting[shard.random % shard.count];
      leaving[leaving_count++] = chosen;
      shard.bytes -= resident_bytes(chosen);
      chosen = shard.waiting[--shard.count];
    }
    shard.waiting[shard.count++] = waiter;
    shard.bytes += resident_bytes(waiter);
    shard.lock.unlock();
    for (unsigned i = 0; i < leaving_count; i++) give_back(leaving[i]);
  }

  // Before memory is refused, nothing waits any more. False: nothing did.
  static HS_SLOW_PATH bool drain() {
    bool any = false;
    for (Shard& shard : shards_) {
      for (;;) {
        Waiter leaving;
        shard.lock.lock();
        const bool is_empty = shard.count == 0;
        if (!is_empty) {
          leaving = shard.waiting[--shard.count];
          shard.bytes -= resident_bytes(leaving);
        }
        shard.lock.unlock();
        if (is_empty) break;
        give_back(leaving);
        any = true;
      }
    }
    return any;
  }

  static void give_back(const Waiter& waiter) {
    if (waiter.place.large) {
      if (guards) Os::make_accessible(pointer_to(waiter.place.start), waiter.place.large->bytes());
      waiter.place.large->listed = false;
      Inner::Map::set_span(address_of(waiter.block), nullptr);
      Inner::Map::set_ends(waiter.place.large);
      PageHeapType::free(waiter.place.large);
      return;
    }
    Header* header = header_of(waiter.block);
    if (header->seal != seal_of(waiter.block, header->size_and_shift, freed) ||
        (zeroes && !is_zero(static_cast<const char*>(waiter.block), waiter.place.end - address_of(waiter.block))))
      die("free()", "another block was written to after it had been freed", waiter.block);
    if (zeroes) memset(header, 0, sizeof *header);
    Inner::deallocate(pointer_to(waiter.place.start));
  }

  static bool is_zero(const char* at, size_t bytes) {
    // Words: what stands here is a multiple of 16, behind 16.
    uint64_t all = 0;
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
      uint64_t word;
      memcpy(&word, at + i, 8);
      all |= word;
    }
    for (; i < bytes; i++) all |= static_cast<unsigned char>(at[i]);
    return all == 0;
  }

  static constexpr unsigned shard_count = 8;
  static inline Shard shards_[shard_count];
};

}  // namespace hs

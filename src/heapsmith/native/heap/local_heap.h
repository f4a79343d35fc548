// A local heap: for one thread, one request or one data structure; no locks, and freed as a whole.
//
//   allocate    size class -> this heap's list                                (the hot path: no lock, no atomic)
//                 list empty  -> refill -> the rest of a span -> pages of a segment -> Pages
//               beyond the small classes -> a block kept from before, else pages of a segment
//               beyond a quarter of a segment -> a mapping of its own
//   deallocate  segment, by the address -> size class -> this heap's list     (the hot path)
//   release     every segment goes: what was allocated ends together
//
// A segment is 4 MiB at a multiple of 4 MiB, so its description is found from any block by a mask.
// Large blocks are kept when they are freed and used again while they are warm: bounded by the page policy (how many,
// how long), and by the peak of what was live: the heap gives kept blocks back before it maps much more than it ever
// needed.
//
// Invariant: charged_bytes() is what was taken from the page policy: spans that were begun, large blocks live or kept,
// headers of segments.
#pragma once

#include <string.h>

#include "base/compiler.h"
#include "heap/local_segment.h"
#include "os/die.h"
#include "policy/concepts.h"

namespace hs {

template <class ClassesType, Pages PagesType, OperatingSystem Os = Linux>
class LocalHeap {
 public:
  using Classes = ClassesType;
  using Segments = LocalSegments<PagesType, Os>;

  static constexpr size_t largest_request_bytes = static_cast<size_t>(PTRDIFF_MAX) / 2;
  static constexpr size_t largest_alignment = LocalSegment::bytes / 2;

  LocalHeap() = default;
  explicit LocalHeap(const PagesType& pages, const Classes& classes = {}) : classes_(classes), pages_(pages) {}
  LocalHeap(const LocalHeap&) = delete;
  LocalHeap& operator=(const LocalHeap&) = delete;
  ~LocalHeap() { release(); }

  // Said before the first allocation; found again from any block.
  void belong_to(void* owner) { owner_ = owner; }
  static void* owner_of(const void* block) { return LocalSegment::of(block)->owner; }

  // --- the hot path

  // nullptr when there is no memory; zero bytes are a block like any other.
  HS_FAST_PATH void* allocate(size_t requested_bytes) {
    if (HS_UNLIKELY(requested_bytes >= classes_.small_end_bytes())) return allocate_large(requested_bytes, page_bytes);
    const unsigned index = classes_.class_of(requested_bytes);
    void* block = free_[index];
    if (HS_UNLIKELY(!block)) return refill(index);
    free_[index] = next(block);
    return block;
  }

  // `block` is one of this heap's, and live.
  HS_FAST_PATH void deallocate(void* block) {
    LocalSegment* segment = LocalSegment::of(block);
    const unsigned index = segment->class_of_page[LocalSegment::page_of(block)];
    if (HS_UNLIKELY(index - 1 >= classes_.small_count())) return deallocate_large(segment, block);
    next(block) = free_[index];
    free_[index] = block;
  }

  // The same, for who knows what was asked for: nothing has to be looked up.
  HS_FAST_PATH void deallocate(void* block, size_t requested_bytes) {
    if (HS_UNLIKELY(requested_bytes >= classes_.small_end_bytes())) return deallocate(block);
    const unsigned index = classes_.class_of(requested_bytes);
    next(block) = free_[index];
    free_[index] = block;
  }

  // --- the rest

  // `alignment` is a power of two, up to `largest_alignment`; beyond it nullptr.
  void* allocate_aligned(size_t alignment, size_t requested_bytes) {
    if (alignment <= classes_.alignment()) return allocate(requested_bytes);
    if (alignment > largest_alignment) return nullptr;
    const unsigned index = classes_.class_of_aligned(alignment, requested_bytes);
    if (index == 0) return allocate_large(requested_bytes, larger_of(alignment, page_bytes));
    void* block = free_[index];
    if (!block) return refill(index);
    free_[index] = next(block);
    return block;
  }

  void* allocate_zeroed(size_t alignment, size_t requested_bytes) {
    const unsigned long long mappings_before = fresh_mappings_;
    void* block = allocate_aligned(alignment, requested_bytes);
    // A fresh mapping reads as zero and stays untouched.
    if (HS_LIKELY(block && fresh_mappings_ == mappings_before)) memset(block, 0, requested_bytes);
    return block;
  }

  // The contents up to the smaller of both sizes are kept; on failure nullptr, and the block is as it was.
  void* reallocate(void* block, size_t requested_bytes, size_t alignment = 1) {
    if (!block) return allocate_aligned(alignment, requested_bytes);
    const size_t usable = usable_bytes(block);
    if (requested_bytes <= usable && (requested_bytes >= usable / 2 || usable <= 64)) return block;
    void* moved = allocate_aligned(alignment, requested_bytes);
    if (!moved) return nullptr;
    memcpy(moved, block, smaller_of(usable, requested_bytes));
    deallocate(block);
    return moved;
  }

  size_t usable_bytes(const void* block) const {
    const LocalSegment* segment = LocalSegment::of(block);
    const size_t page = LocalSegment::page_of(block);
    const unsigned index = segment->class_of_page[page];
    if (index == LocalSegment::medium) return medium_pages(segment->place_of_page[page]) * page_bytes;
    return index != 0 ? classes_.bytes_of(index) : segment->block_bytes;
  }

  // Everything allocated is gone; the heap can be used again.
  void release() {
    for (LocalSegment *segment = own_, *after; segment; segment = after) {
      after = segment->after;
      Segments::unmap(pages_, segment);
    }
    // The first ones first: they are full, and what stays warm of them the next heap fills as well.
    for (LocalSegment *segment = reversed(segments_), *after; segment; segment = after) {
      after = segment->after;
      Segments::give(pages_, segment);
    }
    pages_.give_back(charged_bytes_);
    own_ = segments_ = nullptr;
    charged_bytes_ = kept_bytes_ = large_live_bytes_ = large_peak_bytes_ = 0;
    oldest_ = newest_ = nullptr;
    memset(free_, 0, sizeof free_);
    memset(carving_, 0, sizeof carving_);
    memset(kept_, 0, sizeof kept_);
  }

  // Gives back every page that holds no live block; answers how many bytes. Walks all free blocks.
  size_t recycle() {
    const size_t before = charged_bytes_;
    while (oldest_) drop(oldest_);
    recycle_spans();
    drop_empty_segments();
    return before - charged_bytes_;
  }

  // Gives large blocks back that nobody wanted for as long as the page policy keeps them; longer, while what was given
  // back is missed: a program whose steps take seconds still uses its blocks again.
  void age() {
    if (!oldest_ || pages_.keep_ms() == ~uint64_t{0}) return;
    const uint64_t now_ms = Os::now_ms();
    const uint64_t keep_ms = pages_.keep_ms() * patience_;
    if (now_ms - oldest_->freed_ms <= keep_ms) return;
    if (patience_ > 1) patience_ /= 2;
    while (oldest_ && now_ms - oldest_->freed_ms > keep_ms) {
      aged_bytes_ += oldest_->charged;
      drop(oldest_);
    }
  }

  size_t charged_bytes() const { return charged_bytes_; }
  // Of the charged bytes, those of freed large blocks that wait to be used again.
  size_t kept_bytes() const { return kept_bytes_; }
  // Of the charged bytes, those in free small blocks and unbegun ends of spans. Walks all free blocks.
  size_t free_small_bytes() const {
    size_t found = 0;
    for (unsigned index = 1; index <= classes_.small_count(); index++) {
      size_t blocks = 0;
      for (const void* block = free_[index]; block; block = next(block)) blocks++;
      found += blocks * classes_.bytes_of(index) + (carving_[index].end - carving_[index].at);
    }
    return found;
  }
  // What is handed out. Walks all free blocks.
  size_t live_bytes() const {
    size_t header_bytes = 0, unusable_bytes = 0;
    for (const LocalSegment* segment = segments_; segment; segment = segment->after) {
      header_bytes += LocalSegment::header_pages * page_bytes;
      visit_spans(segment, [&](unsigned index, size_t, size_t page_count) {
        unusable_bytes += page_count * page_bytes % classes_.bytes_of(index);
      });
    }
    size_t own_header_bytes = 0;
    for (const LocalSegment* segment = own_; segment; segment = segment->after)
      if (!segment->is_kept) own_header_bytes += segment->charged_bytes - segment->block_bytes;
    return charged_bytes_ - kept_bytes_ - header_bytes - own_header_bytes - unusable_bytes - free_small_bytes();
  }
  PagesType& pages() { return pages_; }
  const Classes& classes() const { return classes_; }

 private:
  // Blocks of medium size come in classes of pages: each page count up to 8, then eight per doubling.
  static constexpr size_t largest_medium_pages = LocalSegment::bytes / 4 / page_bytes;
  static constexpr unsigned medium_of(size_t page_count) {
    if (page_count <= 8) return static_cast<unsigned>(page_count - 1);
    const unsigned doubling = log2_floor(page_count - 1);
    return 8 * (doubling - 2) + static_cast<unsigned>(((page_count - 1) >> (doubling - 3)) & 7);
  }
  static constexpr size_t medium_pages(unsigned index) {
    return index < 8 ? index + 1 : (size_t{9} + index % 8) << (index / 8 - 1);
  }
  static constexpr unsigned medium_count = medium_of(largest_medium_pages) + 1;
  static_assert(medium_count < LocalSegment::medium);
  static_assert([] {
    for (size_t pages = 1; pages <= largest_medium_pages; pages++) {
      const unsigned index = medium_of(pages);
      if (medium_pages(index) < pages || (index > 0 && medium_pages(index - 1) >= pages)) return false;
    }
    return true;
  }());
  static constexpr unsigned own_mapping = medium_count;  // the last list of kept blocks
  static constexpr unsigned segments_looked_at = 8;
  static constexpr size_t most_patience = 16;

  // A freed large block, described in itself.
  struct Kept {
    Kept* next;  // of its size
    Kept* previous;
    Kept* newer;
    Kept* older;
    uint64_t freed_ms;
    size_t charged;
    unsigned list;
  };
  struct Carving {
    uintptr_t at;
    uintptr_t end;
  };

  static void*& next(void* block) { return *static_cast<void**>(block); }
  static const void* next(const void* block) { return *static_cast<void* const*>(block); }

  // --- small blocks

  // Only as far as the page that is begun anyway: pages nobody asked for stay untouched.
  HS_SLOW_PATH void* refill(unsigned index) {
    Carving& span = carving_[index];
    if (span.at == span.end && !begin_span(index)) return nullptr;
    const size_t class_bytes = classes_.bytes_of(index);
    const uintptr_t first = span.at;
    const uintptr_t until = smaller_of(span.end, round_up(first + class_bytes, page_bytes));
    uintptr_t at = first;
    for (; at + 2 * class_bytes <= until; at += class_bytes) next(pointer_to(at)) = pointer_to(at + class_bytes);
    next(pointer_to(at)) = nullptr;
    span.at = at + class_bytes;
    free_[index] = next(pointer_to(first));
    return pointer_to(first);
  }

  // Few blocks of a class are often all there are: the first span of small ones is a single page.
  bool begin_span(unsigned index) {
    const size_t class_bytes = classes_.bytes_of(index);
    const bool is_first = carving_[index].end == 0 && class_bytes <= page_bytes / 4;
    const size_t page_count = is_first ? 1 : classes_.span_pages(index);
    const uintptr_t start = take_pages(page_count);
    if (!start) return false;
    LocalSegment* segment = LocalSegment::of(pointer_to(start));
    const size_t page = LocalSegment::page_of(pointer_to(start));
    for (size_t i = 0; i < page_count; i++) {
      segment->class_of_page[page + i] = static_cast<uint8_t>(index);
      segment->place_of_page[page + i] = static_cast<uint8_t>(i);
    }
    carving_[index] = {start, start + blocks_of(index, page_count) * class_bytes};
    return true;
  }

  size_t blocks_of(unsigned index, size_t page_count) const {
    return page_count * page_bytes / classes_.bytes_of(index);
  }

  // Shows each span of small blocks: its class, first page and pages.
  template <class Visitor>
  void visit_spans(const LocalSegment* segment, Visitor visitor) const {
    for (size_t page = LocalSegment::header_pages, after; page < segment->begun_pages; page = after) {
      const unsigned index = segment->class_of_page[page];
      after = page + 1;
      if (index - 1 >= classes_.small_count()) continue;
      while (after < segment->begun_pages && segment->class_of_page[after] == index &&
             segment->place_of_page[after] != 0)
        after++;
      visitor(index, page, after - page);
    }
  }

  // Spans whose every block is free go back; the lists keep the rest.
  void recycle_spans() {
    for (LocalSegment* segment = segments_; segment; segment = segment->after)
      memset(segment->free_blocks, 0, sizeof segment->free_blocks);
    for (unsigned index = 1; index <= classes_.small_count(); index++) {
      for (void* block = free_[index]; block; block = next(block)) count_of(block)++;
      // What was never handed out is free as well.
      const Carving& span = carving_[index];
      if (span.at != span.end)
        count_of(pointer_to(span.at)) += static_cast<uint16_t>((span.end - span.at) / classes_.bytes_of(index));
    }
    for (LocalSegment* segment = segments_; segment; segment = segment->after)
      visit_spans(segment, [&](unsigned index, size_t page, size_t page_count) {
        const bool is_free = segment->free_blocks[page] == blocks_of(index, page_count);
        segment->free_blocks[page] = is_free ? all_free : 0;
      });
    for (unsigned index = 1; index <= classes_.small_count(); index++) {
      Carving& span = carving_[index];
      if (span.at != span.end && count_of(pointer_to(span.at)) == all_free) span = {0, 0};
      void** link = &free_[index];
      for (void *block = *link, *after; block; block = after) {
        after = next(block);
        if (count_of(block) == all_free) continue;
        *link = block;
        link = &next(block);
      }
      *link = nullptr;
    }
    for (LocalSegment* segment = segments_; segment; segment = segment->after)
      visit_spans(segment, [&](unsigned, size_t page, size_t page_count) {
        if (segment->free_blocks[page] == all_free) free_pages(segment, page, page_count);
      });
  }

  static constexpr uint16_t all_free = 0xffff;
  static uint16_t& count_of(void* block) {
    LocalSegment* segment = LocalSegment::of(block);
    const size_t page = LocalSegment::page_of(block);
    return segment->free_blocks[page - segment->place_of_page[page]];
  }

  // --- large blocks

  HS_SLOW_PATH void* allocate_large(size_t requested_bytes, size_t alignment) {
    if (requested_bytes > largest_request_bytes) return nullptr;
    age();
    const size_t page_count = divide_up(larger_of(requested_bytes, 1), page_bytes);
    if (alignment <= page_bytes && page_count <= largest_medium_pages) return allocate_medium(medium_of(page_count));
    return allocate_mapping(page_count * page_bytes, alignment);
  }

  void* allocate_medium(unsigned index) {
    for (unsigned fitting = index; fitting < medium_count && fitting <= index + 1; fitting++)
      if (kept_[fitting]) return use_again(kept_[fitting]);
    const size_t page_count = medium_pages(index);
    make_room(page_count * page_bytes);
    const uintptr_t start = take_pages(page_count);
    if (!start) return nullptr;
    LocalSegment* segment = LocalSegment::of(pointer_to(start));
    const size_t page = LocalSegment::page_of(pointer_to(start));
    memset(segment->class_of_page + page, LocalSegment::medium, page_count);
    segment->place_of_page[page] = static_cast<uint8_t>(index);
    came_alive(page_count * page_bytes);
    return pointer_to(start);
  }

  void* allocate_mapping(size_t bytes, size_t alignment) {
    const size_t offset = larger_of(LocalSegment::own_header_bytes, alignment);
    const size_t mapped_bytes = round_up(offset + bytes, LocalSegment::bytes);
    LocalSegment* segment = mapping_of_kept(mapped_bytes, offset + bytes);
    if (!segment) segment = fresh_mapping(mapped_bytes, offset + bytes);
    if (!segment) return nullptr;
    segment->block_bytes = bytes;
    came_alive(segment->charged_bytes);
    return pointer_to(address_of(segment) + offset);
  }

  LocalSegment* fresh_mapping(size_t mapped_bytes, size_t used_bytes) {
    make_room(used_bytes);
    if (!charge(used_bytes)) return nullptr;
    LocalSegment* segment = Segments::map(pages_, mapped_bytes);
    if (!segment && recycle() > 0) segment = Segments::map(pages_, mapped_bytes);
    if (!segment) {
      uncharge(used_bytes);
      return nullptr;
    }
    segment->mapped_bytes = mapped_bytes;
    segment->charged_bytes = used_bytes;
    enter_own(segment);
    pages_.touch(segment, used_bytes);
    fresh_mappings_++;
    if (aged_bytes_ >= used_bytes) {
      aged_bytes_ = 0;
      patience_ = smaller_of(4 * patience_, most_patience);
    }
    return segment;
  }

  // The best fitting of the kept mappings; what is too much of it stays kept. Where none fits, neighbours are put
  // together first.
  LocalSegment* mapping_of_kept(size_t mapped_bytes, size_t used_bytes) {
    Kept* best = best_kept(mapped_bytes);
    if (!best && kept_[own_mapping] && kept_[own_mapping]->next) {
      join_neighbours();
      best = best_kept(mapped_bytes);
    }
    if (!best) return nullptr;
    LocalSegment* segment = LocalSegment::of(best);
    if (segment->mapped_bytes > mapped_bytes) split(segment, mapped_bytes);
    unlink(best);
    segment->is_kept = false;
    if (used_bytes <= segment->charged_bytes) return segment;
    const size_t more_bytes = used_bytes - segment->charged_bytes;
    came_alive(segment->charged_bytes);
    make_room(more_bytes);
    large_live_bytes_ -= segment->charged_bytes;
    if (!charge(more_bytes)) {
      leave_own(segment);
      uncharge(segment->charged_bytes);
      Segments::unmap(pages_, segment);
      return nullptr;
    }
    segment->charged_bytes = used_bytes;
    return segment;
  }
  Kept* best_kept(size_t mapped_bytes) const {
    Kept* best = nullptr;
    for (Kept* kept = kept_[own_mapping]; kept; kept = kept->next) {
      const size_t bytes = LocalSegment::of(kept)->mapped_bytes;
      if (bytes >= mapped_bytes && (!best || bytes < LocalSegment::of(best)->mapped_bytes)) best = kept;
    }
    return best;
  }
  // The rest is a kept mapping of its own, as old as the whole.
  void split(LocalSegment* segment, size_t mapped_bytes) {
    auto* rest = pointer_to<LocalSegment>(address_of(segment) + mapped_bytes);
    memset(static_cast<void*>(rest), 0, offsetof(LocalSegment, place_of_page));
    rest->mapped_bytes = segment->mapped_bytes - mapped_bytes;
    rest->charged_bytes = segment->charged_bytes - smaller_of(segment->charged_bytes, mapped_bytes);
    rest->is_kept = true;
    enter_own(rest);
    segment->mapped_bytes = mapped_bytes;
    segment->charged_bytes -= rest->charged_bytes;
    Kept* whole = kept_of(segment);
    Kept* part = kept_of(rest);
    *part = *whole;
    whole->charged = segment->charged_bytes;
    part->charged = rest->charged_bytes;
    part->previous = whole;
    part->next = whole->next;
    if (part->next) part->next->previous = part;
    whole->next = part;
    part->newer = whole;
    part->older = whole->older;
    (part->older ? part->older->newer : oldest_) = part;
    whole->older = part;
  }
  void join_neighbours() {
    for (Kept* kept = kept_[own_mapping]; kept; kept = kept->next) {
      LocalSegment* segment = LocalSegment::of(kept);
      for (Kept* other = kept_[own_mapping]; other;) {
        LocalSegment* behind = LocalSegment::of(other);
        if (address_of(behind) != address_of(segment) + segment->mapped_bytes) {
          other = other->next;
          continue;
        }
        unlink(other);
        leave_own(behind);
        segment->mapped_bytes += behind->mapped_bytes;
        segment->charged_bytes += behind->charged_bytes;
        kept->charged += behind->charged_bytes;
        kept_bytes_ += behind->charged_bytes;
        other = kept_[own_mapping];
      }
    }
  }

  void enter_own(LocalSegment* segment) {
    segment->owner = owner_;
    segment->before = nullptr;
    segment->after = own_;
    if (own_) own_->before = segment;
    own_ = segment;
  }
  void leave_own(LocalSegment* segment) {
    (segment->before ? segment->before->after : own_) = segment->after;
    if (segment->after) segment->after->before = segment->before;
  }

  HS_SLOW_PATH void deallocate_large(LocalSegment* segment, void* block) {
    const size_t page = LocalSegment::page_of(block);
    const bool is_medium = segment->class_of_page[page] == LocalSegment::medium;
    if (!is_medium && (segment->block_bytes == 0 || segment->is_kept))
      die("deallocate()", "not a block of this local heap, or freed before", block);
    Kept* kept = is_medium ? static_cast<Kept*>(block) : kept_of(segment);
    kept->list = is_medium ? segment->place_of_page[page] : own_mapping;
    kept->charged = is_medium ? medium_pages(kept->list) * page_bytes : segment->charged_bytes;
    kept->freed_ms = Os::now_ms();
    if (!is_medium) segment->is_kept = true;
    const size_t live_bytes = large_live_bytes_;
    large_live_bytes_ -= kept->charged;
    kept_bytes_ += kept->charged;
    kept->previous = nullptr;
    kept->next = kept_[kept->list];
    if (kept->next) kept->next->previous = kept;
    kept_[kept->list] = kept;
    kept->newer = nullptr;
    kept->older = newest_;
    (newest_ ? newest_->newer : oldest_) = kept;
    newest_ = kept;
    const size_t keep_bytes = pages_.keep_bytes(live_bytes);
    while (oldest_ && kept_bytes_ > keep_bytes) drop(oldest_);
    age();
  }

  // A mapping of one block describes itself when it is kept, where one of spans has the places of its pages.
  static Kept* kept_of(LocalSegment* segment) { return reinterpret_cast<Kept*>(segment->place_of_page); }
  static_assert(offsetof(LocalSegment, place_of_page) % alignof(Kept) == 0 &&
                offsetof(LocalSegment, place_of_page) + sizeof(Kept) <= LocalSegment::own_header_bytes);
  void unlink(Kept* kept) {
    (kept->previous ? kept->previous->next : kept_[kept->list]) = kept->next;
    if (kept->next) kept->next->previous = kept->previous;
    (kept->older ? kept->older->newer : oldest_) = kept->newer;
    (kept->newer ? kept->newer->older : newest_) = kept->older;
    kept_bytes_ -= kept->charged;
  }
  void* use_again(Kept* kept) {
    unlink(kept);
    came_alive(kept->charged);
    return kept;
  }
  void drop(Kept* kept) {
    unlink(kept);
    LocalSegment* segment = LocalSegment::of(kept);
    if (kept->list != own_mapping) {
      free_pages(segment, LocalSegment::page_of(kept), kept->charged / page_bytes);
      return;
    }
    leave_own(segment);
    uncharge(kept->charged);
    Segments::unmap(pages_, segment);
  }

  void came_alive(size_t bytes) {
    large_live_bytes_ += bytes;
    large_peak_bytes_ = larger_of(large_peak_bytes_, large_live_bytes_);
  }
  // Before large blocks, live and kept, become more than what was ever live at once and a little (blocks of other sizes
  // do not always fit), kept ones go back in exchange.
  static constexpr size_t beyond_peak_bytes = 16_MiB;
  void make_room(size_t bytes) {
    const size_t peak_bytes = larger_of(large_peak_bytes_, large_live_bytes_ + bytes);
    const size_t most_bytes = peak_bytes + larger_of(peak_bytes / 8, smaller_of(peak_bytes, beyond_peak_bytes));
    while (oldest_ && large_live_bytes_ + kept_bytes_ + bytes > most_bytes) drop(oldest_);
  }

  // --- pages of segments

  bool charge(size_t bytes) {
    if (HS_UNLIKELY(!pages_.take(bytes))) {
      if (recycle() == 0 || !pages_.take(bytes)) return false;
    }
    charged_bytes_ += bytes;
    return true;
  }
  void uncharge(size_t bytes) {
    pages_.give_back(bytes);
    charged_bytes_ -= bytes;
  }

  // The address of so many pages in a row, charged; 0 where there is no memory.
  uintptr_t take_pages(size_t page_count) {
    if (!charge(page_count * page_bytes)) return 0;
    uintptr_t start = 0;
    unsigned looked_at = 0;
    for (LocalSegment* segment = segments_; segment && !start && looked_at < segments_looked_at;
         segment = segment->after, looked_at++)
      start = segment->take(page_count);
    if (!start && add_segment()) start = segments_->take(page_count);
    if (start) {
      pages_.touch(pointer_to(start), page_count * page_bytes);
    } else {
      uncharge(page_count * page_bytes);
    }
    return start;
  }
  bool add_segment() {
    if (!charge(LocalSegment::header_pages * page_bytes)) return false;
    LocalSegment* segment = Segments::get(pages_);
    if (!segment) {
      uncharge(LocalSegment::header_pages * page_bytes);
      return false;
    }
    segment->owner = owner_;
    segment->begun_pages = LocalSegment::header_pages;
    segment->before = nullptr;
    segment->after = segments_;
    segments_ = segment;
    return true;
  }

  // They are in no span any more, not resident, and read as zero.
  void free_pages(LocalSegment* segment, size_t page, size_t page_count) {
    pages_.purge(pointer_to(segment->address_of_page(page)), page_count * page_bytes);
    uncharge(page_count * page_bytes);
    memset(segment->class_of_page + page, 0, page_count);
    segment->free_pages += static_cast<uint32_t>(page_count);
  }

  // Segments without a span go back; those with free pages come first, where they are looked for.
  void drop_empty_segments() {
    LocalSegment* full = nullptr;
    LocalSegment* roomy = nullptr;
    for (LocalSegment *segment = segments_, *after; segment; segment = after) {
      after = segment->after;
      if (segment->begun_pages == LocalSegment::header_pages + segment->free_pages) {
        uncharge(LocalSegment::header_pages * page_bytes);
        Segments::give(pages_, segment);
        continue;
      }
      LocalSegment*& list = segment->free_pages > 0 ? roomy : full;
      segment->after = list;
      list = segment;
    }
    segments_ = full;
    while (roomy) {
      LocalSegment* after = roomy->after;
      roomy->after = segments_;
      segments_ = roomy;
      roomy = after;
    }
  }
  static LocalSegment* reversed(LocalSegment* list) {
    LocalSegment* turned = nullptr;
    while (list) {
      LocalSegment* after = list->after;
      list->after = turned;
      turned = list;
      list = after;
    }
    return turned;
  }

  void* free_[Classes::index_count] = {};
  [[no_unique_address]] Classes classes_{};
  Carving carving_[Classes::index_count] = {};
  LocalSegment* segments_ = nullptr;
  LocalSegment* own_ = nullptr;  // mappings of one block each
  Kept* kept_[medium_count + 1] = {};
  Kept* oldest_ = nullptr;
  Kept* newest_ = nullptr;
  void* owner_ = nullptr;
  size_t charged_bytes_ = 0;
  size_t kept_bytes_ = 0;
  size_t large_live_bytes_ = 0;
  size_t large_peak_bytes_ = 0;
  size_t aged_bytes_ = 0;  // given back by age and not missed yet
  size_t patience_ = 1;    // how many times longer than the page policy says
  unsigned long long fresh_mappings_ = 0;
  [[no_unique_address]] PagesType pages_{};
};

}  // namespace hs

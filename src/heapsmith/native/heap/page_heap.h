// The page heap: runs of free pages, warm ones first. It alone maps, purges and moves pages.
//
//   allocate  dirty run that fits best -> fresh or clean run -> another segment
//   free      joined with free neighbours of its kind -> kept warm within the bounds of the page policy ->
//   purged maintain  what has been free for longer than the page policy keeps it is purged
//
// What an ebb leaves (heap/tide.h) is purged at once, but for the share of a program at rest: afterwards there may be no
// call of malloc any more that could do it.
//
// Invariants: two neighbouring free runs are never of the same kind; the first and last page of every run
// stand in the page map; pages = in use + dirty + clean + fresh.
#pragma once

#include "base/compiler.h"
#include "heap/metadata.h"
#include "heap/page_map.h"
#include "heap/span.h"
#include "heap/tide.h"
#include "policy/concepts.h"

namespace hs {

template <class Os, Lock LockPolicy, Pages PagePolicy>
class PageHeap {
 public:
  using Map = PageMap<Os>;
  using Meta = Metadata<Os, LockPolicy>;

  static constexpr size_t first_segment_bytes = 1_MiB;
  static constexpr size_t largest_segment_bytes = 32_MiB;
  // Below this a large block may come out of pages that are advised to become huge.
  static constexpr size_t sparse_from_bytes = 512_KiB;

  // A span in use (`large` or of `blocks`) of at least `page_count` pages at a multiple of `alignment`, or
  // nullptr. `zeroed` tells whether it reads as zero.
  static Span* allocate(size_t page_count, size_t alignment = page_bytes, SpanState state = SpanState::large) {
    if (page_count > (size_t{1} << (address_bits - page_shift))) return nullptr;
    lock_.lock();
    Span* span = allocate_locked(page_count, alignment);
    if (span) span->state = state;
    maintain_locked();
    lock_.unlock();
    return span;
  }

  static void free(Span* span) {
    // Read before the lock is taken: pages never written are met here for the first time.
    const size_t bytes = span->bytes();
    const bool learns = span->state == SpanState::large && bytes >= sparse_from_bytes && pages_.makes_huge &&
                        bytes > load_relaxed(seen_dense_bytes_);
    const bool filled = learns && is_filled(span);
    lock_.lock();
    if (learns) learn_density(bytes, filled);
    free_locked(span);
    maintain_locked();
    lock_.unlock();
  }

  // Makes a large block longer or shorter where it is. False: the neighbour is in use, or the limit is
  // reached.
  static bool resize(Span* span, size_t page_count) {
    lock_.lock();
    const bool resized =
        page_count <= span->page_count ? shrink_locked(span, page_count) : grow_locked(span, page_count);
    lock_.unlock();
    return resized;
  }

  // Moves a large block to a longer run without copying: the kernel moves its pages. nullptr: not possible.
  static Span* move(Span* from, size_t page_count) {
    lock_.lock();
    if (is_reserved(from)) {
      lock_.unlock();
      return nullptr;
    }
    // The limit sees the difference only, for no page is there twice.
    Span* to = take_unused(page_count, page_bytes, (page_count - from->page_count) << page_shift);
    if (to && (is_reserved(to) || !Os::move(pointer_to(from->start), from->bytes(), pointer_to(to->start)))) {
      pages_.give_back(to->bytes() - from->bytes());
      insert_free(to, SpanState::clean);
      to = nullptr;
    }
    if (to) {
      live_pages_ += to->page_count;
      live_pages_ -= from->page_count;
      tide_.rise(live_pages_);
      reserved_pages_ -= from->page_count;
      Map::forget(from->start, from->bytes());
      retire(from);
    }
    lock_.unlock();
    return to;
  }

  // Purges what has been free for long enough. Cheap when nothing is due.
  static void maintain() {
    lock_.lock();
    maintain_locked();
    lock_.unlock();
  }

  // A phase of several threads is over: what it left goes back at once, but for what was missed lately.
  static void settle() {
    lock_.lock();
    const size_t kept = rest_pages() + missed_pages_;
    if (dirty_pages_ > kept && kept >= missed_pages_) {
      purged_pages_ += purge_locked(dirty_pages_ - kept);
      purged_ms_ = Os::now_ms();
    }
    lock_.unlock();
  }

  // Purges every free page; answers the bytes.
  static size_t recycle() {
    lock_.lock();
    const size_t before = dirty_pages_;
    purge_locked(dirty_pages_);
    lock_.unlock();
    return before << page_shift;
  }

  // See heap/tide.h. What caches hold of an ebb pins whole spans.
  static bool is_ebb() { return tide_.is_ebb(); }
  static uint32_t ebbs() { return tide_.ebbs(); }

  static size_t live_bytes() { return load_relaxed(live_pages_) << page_shift; }
  static size_t dirty_bytes() { return load_relaxed(dirty_pages_) << page_shift; }
  static size_t reserved_bytes() { return load_relaxed(reserved_pages_) << page_shift; }
  static PagePolicy& pages() { return pages_; }
  static LockPolicy& lock() { return lock_; }

  // For the child of a fork: pages that another thread was purging are free pages again.
  static void adopt_purging() {
    while (Span* span = purging_) {
      unlink(purging_, span);
      insert_dirty(span, Os::now_ms());
    }
  }

  // Shows every span and free run to `visit`, by rising address. The visitor must not allocate.
  template <class Visitor>
  static void visit_spans(Visitor visit) {
    lock_.lock();
    Map::visit_leaves(lowest_, highest_, [&](uintptr_t start) {
      const uintptr_t end = smaller_of(start + (uintptr_t{1} << PageMapLeaf::shift), highest_);
      for (uintptr_t at = larger_of(start, lowest_); at < end;) {
        const Span* span = Map::span_of(at);
        if (span && span->start == at && span->state != SpanState::retired) {
          visit(*span);
          at = span->end();
        } else {
          at += page_bytes;
        }
      }
    });
    lock_.unlock();
  }

 private:
  enum Kind : unsigned { dirty, clean, fresh, kinds };
  static constexpr unsigned exact_bins = 64;
  static constexpr unsigned bins = exact_bins + 4 * 36;
  static constexpr unsigned bin_words = bins / 64 + 1;
  struct Bins {
    Span* head[bins];
    uint64_t filled[bin_words];
  };

  static Kind kind_of(SpanState state) {
    return state == SpanState::dirty ? dirty : state == SpanState::clean ? clean : fresh;
  }
  static unsigned bin_of(size_t page_count) {
    if (page_count < exact_bins) return static_cast<unsigned>(page_count);
    const unsigned exponent = log2_floor(page_count);
    return exact_bins + 4 * (exponent - 6) + static_cast<unsigned>((page_count >> (exponent - 2)) & 3);
  }

  static void link(Span*& head, Span* span) {
    span->previous = nullptr;
    span->next = head;
    if (head) head->previous = span;
    head = span;
  }
  static void unlink(Span*& head, Span* span) {
    if (span->previous) {
      span->previous->next = span->next;
    } else {
      head = span->next;
    }
    if (span->next) span->next->previous = span->previous;
  }

  static Span* new_span(uintptr_t start, size_t page_count) {
    Span* span = retired_;
    if (span) {
      retired_ = span->next;
    } else {
      if (unused_spans_left_ == 0) {
        void* block = Meta::allocate(spans_at_once * sizeof(Span));
        if (!block) return nullptr;
        unused_spans_ = static_cast<Span*>(block);
        unused_spans_left_ = spans_at_once;
      }
      span = unused_spans_++;
      unused_spans_left_--;
    }
    span->start = start;
    span->page_count = static_cast<uint32_t>(page_count);
    span->class_index = 0;
    span->listed = false;
    span->zeroed = false;
    span->remote_blocks = nullptr;
    return span;
  }
  static void retire(Span* span) {
    span->state = SpanState::retired;
    span->start = 0;
    span->page_count = 0;
    span->next = retired_;
    retired_ = span;
  }

  static void insert(Span* span, SpanState state) {
    span->state = state;
    span->class_index = 0;
    Map::set_ends(span);
    Bins& in = bins_[kind_of(state)];
    const unsigned bin = bin_of(span->page_count);
    link(in.head[bin], span);
    in.filled[bin / 64] |= uint64_t{1} << (bin % 64);
    if (state == SpanState::dirty) dirty_pages_ += span->page_count;
  }
  static void remove(Span* span) {
    Bins& in = bins_[kind_of(span->state)];
    const unsigned bin = bin_of(span->page_count);
    unlink(in.head[bin], span);
    if (!in.head[bin]) in.filled[bin / 64] &= ~(uint64_t{1} << (bin % 64));
    if (span->state == SpanState::dirty) {
      dirty_pages_ -= span->page_count;
      if (span->age.older) {
        span->age.older->age.newer = span->age.newer;
      } else {
        oldest_ = span->age.newer;
      }
      if (span->age.newer) {
        span->age.newer->age.older = span->age.older;
      } else {
        newest_ = span->age.older;
      }
    }
  }

  // Joins a run that is in no list with free neighbours of the same kind.
  static Span* join(Span* span, SpanState state) {
    Span* before = Map::span_of(span->start - page_bytes);
    if (before && before->state == state && before->end() == span->start && mergeable(before, span)) {
      remove(before);
      before->page_count += span->page_count;
      before->zeroed = before->zeroed && span->zeroed;
      retire(span);
      span = before;
    }
    Span* after = Map::span_of(span->end());
    if (after && after->state == state && after->start == span->end() && mergeable(span, after)) {
      remove(after);
      span->page_count += after->page_count;
      span->zeroed = span->zeroed && after->zeroed;
      retire(after);
    }
    return span;
  }
  static bool mergeable(const Span* a, const Span* b) { return uint64_t{a->page_count} + b->page_count <= UINT32_MAX; }
  static void insert_free(Span* span, SpanState state) { insert(join(span, state), state); }
  static void insert_dirty(Span* span, uint64_t now_ms) {
    span = join(span, SpanState::dirty);
    span->age.freed_ms = now_ms;
    span->age.older = newest_;
    span->age.newer = nullptr;
    if (newest_) {
      newest_->age.newer = span;
    } else {
      oldest_ = span;
    }
    newest_ = span;
    insert(span, SpanState::dirty);
  }
  // A part of a run that was cut off goes back to where the run came from; a dirty one as young as it was.
  static void insert_remainder(Span* span, SpanState state, uint64_t freed_ms) {
    if (state == SpanState::dirty) {
      insert_dirty(span, freed_ms);
    } else {
      insert_free(span, state);
    }
  }

  static Span* find(Kind kind, size_t page_count) {
    const Bins& in = bins_[kind];
    unsigned bin = bin_of(page_count);
    if (bin >= exact_bins) {
      Span* best = nullptr;
      int looked_at = 0;
      for (Span* span = in.head[bin]; span && looked_at < 32; span = span->next, looked_at++)
        if (span->page_count >= page_count && (!best || span->page_count < best->page_count)) best = span;
      if (best) return best;
      bin++;
    }
    for (unsigned word = bin / 64; word < bin_words; word++) {
      uint64_t filled = in.filled[word];
      if (word == bin / 64) filled &= ~uint64_t{0} << (bin % 64);
      if (filled) return in.head[word * 64 + static_cast<unsigned>(__builtin_ctzll(filled))];
    }
    return nullptr;
  }

  // Cuts `page_count` pages at a multiple of `alignment` out of a free run, which it takes out of its list.
  static Span* carve(Span* run, size_t page_count, size_t alignment) {
    const SpanState state = run->state;
    const uint64_t freed_ms = state == SpanState::dirty ? run->age.freed_ms : 0;
    remove(run);
    const size_t lead_pages = (round_up(run->start, alignment) - run->start) >> page_shift;
    if (lead_pages > 0) {
      Span* aligned = new_span(run->start + (lead_pages << page_shift), run->page_count - lead_pages);
      if (!aligned) {
        insert_remainder(run, state, freed_ms);
        return nullptr;
      }
      run->page_count = static_cast<uint32_t>(lead_pages);
      aligned->zeroed = run->zeroed;
      aligned->state = SpanState::large;
      Map::set_ends(aligned);
      insert_remainder(run, state, freed_ms);
      run = aligned;
    }
    run->state = SpanState::large;
    cut_tail(run, page_count, state, freed_ms);
    run->zeroed = run->zeroed && state != SpanState::dirty;
    Map::set_ends(run);
    return run;
  }
  // Without memory for the description of the tail, the run stays as long as it is.
  static void cut_tail(Span* run, size_t page_count, SpanState state, uint64_t freed_ms) {
    if (run->page_count == page_count) return;
    const uintptr_t run_end = run->end();
    Span* tail = new_span(run->start + (page_count << page_shift), run->page_count - page_count);
    if (!tail) return;
    run->page_count = static_cast<uint32_t>(page_count);
    tail->zeroed = run->zeroed;
    Map::set_ends(run);
    if (state == SpanState::fresh) warm_rest(run, tail, run_end);
    if (tail) insert_remainder(tail, state, freed_ms);
  }
  // The kernel fills a huge page as a whole: with its first part the rest becomes resident, and is what should be
  // used next. One that is shared with what stands before the run is there already, or was taken apart.
  static void warm_rest(Span* span, Span*& tail, uintptr_t run_end) {
    const uintptr_t last = round_down(span->end() - 1, huge_page_bytes);
    const size_t warm_bytes = last + huge_page_bytes - span->end();
    if (last < span->start || last + huge_page_bytes > run_end || warm_bytes == 0) return;
    if (!Map::holds_huge(last, huge_page_bytes) || !pages_.take(warm_bytes)) return;
    Span* warm = tail;
    tail = nullptr;
    if (warm->bytes() > warm_bytes) {
      tail = new_span(warm->start + warm_bytes, warm->page_count - (warm_bytes >> page_shift));
      if (tail) {
        tail->zeroed = warm->zeroed;
        warm->page_count = static_cast<uint32_t>(warm_bytes >> page_shift);
        tail->state = SpanState::large;
        Map::set_ends(tail);
      } else {
        pages_.give_back(warm_bytes);
        tail = warm;
        return;
      }
    }
    warm->state = SpanState::large;
    Map::set_ends(warm);
    // Not all at once: only a program that goes on making its falls good shall keep as much.
    note_missed(warm->page_count / 16);
    insert_dirty(warm, Os::now_ms());
  }

  static Span* allocate_locked(size_t page_count, size_t alignment) {
    const size_t searched_pages = page_count + (alignment >> page_shift) - 1;
    if (Span* run = find(dirty, searched_pages)) {
      Span* span = carve(run, page_count, alignment);
      if (!span) return nullptr;
      live_pages_ += span->page_count;
      tide_.rise(live_pages_);
      return span;
    }
    if (page_count >= buffer_pages && alignment == page_bytes)
      if (Span* span = compose(page_count)) return span;
    Span* span = take_unused(page_count, alignment, page_count << page_shift);
    if (!span) return nullptr;
    live_pages_ += span->page_count;
    tide_.rise(live_pages_);
    hold_peak(span->page_count);
    pages_.touch(pointer_to(span->start), span->bytes());
    return span;
  }

  // A warm run that is too short may do together with the cold neighbour behind it: better than leaving it
  // idle.
  static Span* compose(size_t page_count) {
    const Bins& in = bins_[dirty];
    int looked_at = 0;
    for (unsigned bin = bin_of(page_count) + 1; bin-- > 0 && looked_at < 16;) {
      if (!(in.filled[bin / 64] >> (bin % 64) & 1)) {
        if (bin % 64 == 63 && in.filled[bin / 64] == 0) bin -= 63;
        continue;
      }
      for (Span* run = in.head[bin]; run && looked_at < 16; run = run->next, looked_at++) {
        if (size_t{run->page_count} * 4 < page_count) return nullptr;
        Span* after = Map::span_of(run->end());
        if (!after || after->start != run->end() || run->page_count >= page_count) continue;
        if (after->state != SpanState::clean || run->page_count + size_t{after->page_count} < page_count) continue;
        const size_t more_pages = page_count - run->page_count;
        if (!pages_.take(more_pages << page_shift)) return nullptr;
        remove(run);
        run->state = SpanState::large;
        take_front(after, run, more_pages);
        run->zeroed = false;
        live_pages_ += run->page_count;
        tide_.rise(live_pages_);
        hold_peak(more_pages);
        return run;
      }
    }
    return nullptr;
  }
  // Moves the first pages of a free run to the end of the span in use before it.
  static void take_front(Span* free_run, Span* span, size_t page_count) {
    const SpanState state = free_run->state;
    const uint64_t freed_ms = state == SpanState::dirty ? free_run->age.freed_ms : 0;
    remove(free_run);
    span->page_count += static_cast<uint32_t>(page_count);
    Map::set_ends(span);
    if (free_run->page_count == page_count) {
      retire(free_run);
      return;
    }
    free_run->start += page_count << page_shift;
    free_run->page_count -= static_cast<uint32_t>(page_count);
    free_run->state = SpanState::large;
    Map::set_ends(free_run);
    insert_remainder(free_run, state, freed_ms);
  }

  // Out of pages that are not resident; `taken_bytes` of them (more, where the run cannot be cut) count as
  // taken from the page policy.
  static Span* take_unused(size_t page_count, size_t alignment, size_t taken_bytes) {
    if (!pages_.take(taken_bytes)) {
      purge_locked(dirty_pages_);
      if (!pages_.take(taken_bytes)) return nullptr;
    }
    const size_t bytes = page_count << page_shift;
    const bool sparse = bytes >= sparse_from_bytes && !(PagePolicy::makes_huge && bytes <= dense_bytes());
    Span* span = nullptr;
    if (!sparse && bytes >= huge_page_bytes) {
      span = carve_unused(page_count, larger_of(alignment, huge_page_bytes), sparse);
      if (span) make_huge(span);
    }
    if (!span) span = carve_unused(page_count, alignment, sparse);
    if (span && span->page_count > page_count) {
      const size_t more = (span->page_count - page_count) << page_shift;
      if (pages_.take(more)) return span;
      insert_free(span, SpanState::clean);
      span = nullptr;
    }
    if (!span) pages_.give_back(taken_bytes);
    return span;
  }

  static Span* carve_unused(size_t page_count, size_t alignment, bool sparse) {
    const size_t searched_pages = page_count + (alignment >> page_shift) - 1;
    Span* run = sparse ? nullptr : find(fresh, searched_pages);
    if (!run) run = find(clean, searched_pages);
    if (!run) run = map_segment(searched_pages, !sparse);
    return run ? carve(run, page_count, alignment) : nullptr;
  }

  // A large block that will be filled takes one fault for each 2 MiB. It is aligned to that, and nothing beyond it
  // becomes resident.
  static void make_huge(Span* span) {
    const size_t bytes = round_down(span->bytes(), huge_page_bytes);
    if (span->start % huge_page_bytes != 0 || !pages_.make_huge(pointer_to(span->start), bytes)) return;
    Map::set_huge(span->start, bytes);
  }

  // Up to which size a large block is expected to be written in full: a few times what was seen to be. Anything larger
  // may be a table that stays empty for the most part.
  static size_t dense_bytes() { return 8 * seen_dense_bytes_; }
  // Whether a large block seems to have been written from one end to the other, as far as a few words tell.
  static bool is_filled(const Span* span) {
    constexpr size_t probes = 8;
    for (size_t i = 0; i < probes; i++) {
      const size_t at = round_down(span->bytes() / probes * i + span->bytes() / probes / 2, page_bytes);
      const auto* words = pointer_to<const volatile uint64_t>(span->start + at);
      uint64_t found = 0;
      for (size_t word = 0; word < 8; word++) found |= words[word];
      if (found == 0) return false;
    }
    return true;
  }
  static void learn_density(size_t bytes, bool filled) {
    const size_t seen = seen_dense_bytes_;
    store_relaxed(seen_dense_bytes_, filled ? larger_of(seen, bytes) : smaller_of(seen, bytes / 8));
  }

  static Span* map_segment(size_t page_count, bool for_blocks) {
    size_t needed = page_count << page_shift;
    if (for_blocks && needed >= huge_page_bytes) needed = round_up(needed, huge_page_bytes);
    constexpr size_t small_until_bytes = smaller_of(4_MiB, PagePolicy::huge_after_bytes);
    const size_t least_bytes =
        reserved_pages_ < (small_until_bytes >> page_shift) ? first_segment_bytes : huge_page_bytes;
    size_t bytes = larger_of(least_bytes, round_down(reserved_pages_ << (page_shift - 3), huge_page_bytes));
    bytes = larger_of(needed, smaller_of(bytes, largest_segment_bytes));
    Segment segment = pages_.map(bytes, for_blocks);
    if (!segment.start && bytes > needed) {
      bytes = needed;
      segment = pages_.map(bytes, for_blocks);
    }
    if (!segment.start) return nullptr;
    const uintptr_t start = address_of(segment.start);
    Span* span = Map::cover(start, bytes) ? new_span(start, bytes >> page_shift) : nullptr;
    if (!span) {
      pages_.release(segment.start, bytes);
      return nullptr;
    }
    reserved_pages_ += bytes >> page_shift;
    lowest_ = smaller_of(lowest_, start);
    highest_ = larger_of(highest_, start + bytes);
    const SpanState state = segment.huge ? SpanState::fresh : SpanState::clean;
    if (segment.huge) Map::set_huge(start, bytes);
    span->zeroed = true;
    // Written before `join` reads beside it: a page that is read first is faulted in twice.
    Map::set_ends(span);
    span = join(span, state);
    insert(span, state);
    return span;
  }

  static void free_locked(Span* span) {
    const uint64_t now_ms = Os::now_ms();
    tide_.fall(live_pages_, live_pages_ - span->page_count, now_ms);
    live_pages_ -= span->page_count;
    insert_dirty(span, now_ms);
    const bool is_ebb = tide_.is_ebb() && pages_.keep_ms() != ~uint64_t{0};
    const size_t kept = is_ebb ? rest_pages() : kept_pages();
    // In an ebb not for every span: half as much again may gather.
    if (dirty_pages_ > kept + (is_ebb ? kept / 2 : 0)) {
      purged_pages_ += purge_locked(dirty_pages_ - kept);
      purged_ms_ = now_ms;
    }
  }

  // What may stay warm: the page policy's share, and what was missed lately after it had been given back.
  static size_t kept_pages() {
    const size_t kept = pages_.keep_bytes(live_pages_ << page_shift) >> page_shift;
    return kept + missed_pages_ < kept ? kept : kept + missed_pages_;
  }

  // What may stay warm of a program at rest.
  static size_t rest_pages() { return pages_.rest_bytes(live_pages_ << page_shift) >> page_shift; }

  // Pages become resident that may have been given back too early: keep that many more for a while.
  static void note_missed(size_t page_count) {
    if (purged_pages_ == 0 || pages_.keep_ms() == ~uint64_t{0}) return;
    const uint64_t now_ms = Os::now_ms();
    if (now_ms - purged_ms_ >= missed_within_ms) {
      purged_pages_ = 0;
      return;
    }
    const size_t missed = smaller_of(page_count, purged_pages_);
    purged_pages_ -= missed;
    missed_pages_ += missed;
    missed_ms_ = now_ms;
  }

  // Before the program becomes larger than it ever was, pages that lie idle go back in exchange.
  static void hold_peak(size_t page_count) {
    note_missed(page_count);
    const size_t resident = live_pages_ + dirty_pages_;
    if (resident <= peak_pages_) return;
    const size_t slack = larger_of(1_MiB >> page_shift, live_pages_ / 3);
    if (dirty_pages_ > slack && pages_.keep_ms() != ~uint64_t{0})
      purge_locked(smaller_of(page_count, dirty_pages_ - slack));
    peak_pages_ = larger_of(peak_pages_, live_pages_ + dirty_pages_);
  }

  static void maintain_locked() {
    const uint64_t keep_ms = pages_.keep_ms();
    if (!oldest_ || keep_ms == ~uint64_t{0}) return;
    const uint64_t now_ms = Os::now_ms();
    if (now_ms < next_maintenance_ms_) return;
    next_maintenance_ms_ = now_ms + larger_of(keep_ms / 8, 4);
    if (missed_pages_ > 0 && now_ms - missed_ms_ >= missed_within_ms) {
      missed_pages_ = 0;
      const size_t kept = kept_pages();
      if (dirty_pages_ > kept) purge_locked(dirty_pages_ - kept);
    }
    if (missed_pages_ > 0) return;
    while (oldest_ && now_ms - oldest_->age.freed_ms >= keep_ms) purge_run(oldest_);
  }

  // The oldest runs first, at least `page_count` pages where there are as many; answers how many. Of huge pages only
  // whole ones: taking one apart costs more than it gives.
  static size_t purge_locked(size_t page_count) {
    size_t purged = purge_oldest(page_count, true);
    if (purged < page_count) purged += purge_oldest(page_count - purged, false);
    return purged;
  }
  static size_t purge_oldest(size_t page_count, bool whole_only) {
    size_t purged = 0;
    unsigned passed_over = 0;
    for (Span* run = oldest_; run && purged < page_count;) {
      const size_t wanted = page_count - purged;
      uintptr_t from = run->start;
      uintptr_t to = run->end();
      const bool huge = whole_only && Map::touches_huge(from, run->bytes());
      if (huge) {
        from = round_up(from, huge_page_bytes);
        to = round_down(to, huge_page_bytes);
        if (from >= to) {
          if (++passed_over == 64) break;
          run = run->age.newer;
          continue;
        }
      }
      // The front of a run is what is allocated next: of a long one, only as much of the end as must go.
      const size_t grain = huge ? huge_page_bytes : page_bytes;
      if (to - from > (wanted << page_shift) + 256_KiB) from = to - round_up(wanted << page_shift, grain);
      Span* part = cut_out(run, from, to);
      if (!part) break;
      purged += part->page_count;
      purge_unlisted(part);
      run = oldest_;
    }
    return purged;
  }
  // A part of a dirty run, out of every list; what is left of it stays where it is, as old as it was.
  static Span* cut_out(Span* run, uintptr_t from, uintptr_t to) {
    const uint64_t freed_ms = run->age.freed_ms;
    const uintptr_t end = run->end();
    Span* tail = to < end ? new_span(to, (end - to) >> page_shift) : nullptr;
    Span* part = from > run->start ? new_span(from, (to - from) >> page_shift) : run;
    if ((to < end && !tail) || !part) {
      if (tail) retire(tail);
      return nullptr;
    }
    remove(run);
    run->state = part->state = SpanState::large;
    if (part != run) run->page_count = static_cast<uint32_t>((from - run->start) >> page_shift);
    part->page_count = static_cast<uint32_t>((to - from) >> page_shift);
    Map::set_ends(part);
    if (tail) {
      tail->state = SpanState::large;
      Map::set_ends(tail);
      insert_dirty(tail, freed_ms);
    }
    if (part != run) {
      Map::set_ends(run);
      insert_dirty(run, freed_ms);
    }
    return part;
  }
  // As far as can be told: transparent huge pages are taken for reserved ones where there may be both.
  static bool is_reserved(const Span* run) {
    return pages_.may_hold_reserved() && Map::touches_huge(run->start, run->bytes());
  }
  static void purge_run(Span* run) {
    remove(run);
    purge_unlisted(run);
  }
  // The lock is free while the kernel works: others go on allocating.
  static void purge_unlisted(Span* run) {
    run->state = SpanState::purging;
    link(purging_, run);
    lock_.unlock();
    // Of a part of a reserved huge page the kernel says that it is gone, and keeps it.
    const bool is_part = ((run->start | run->bytes()) & (huge_page_bytes - 1)) != 0;
    const bool purged = !(is_part && is_reserved(run)) && pages_.purge(pointer_to(run->start), run->bytes());
    lock_.lock();
    unlink(purging_, run);
    if (purged) {
      pages_.give_back(run->bytes());
      run->zeroed = pages_.purged_reads_zero();
      insert_free(run, Map::holds_huge(run->start, run->bytes()) ? SpanState::fresh : SpanState::clean);
    } else {
      // Locked pages (mlockall) cannot be purged: they are used again, and not asked about again for a while.
      insert_dirty(run, Os::now_ms());
    }
  }

  static bool shrink_locked(Span* span, size_t page_count) {
    if (page_count == span->page_count) return true;
    Span* tail = new_span(span->start + (page_count << page_shift), span->page_count - page_count);
    if (!tail) return true;
    span->page_count = static_cast<uint32_t>(page_count);
    tail->state = SpanState::large;
    Map::set_ends(span);
    Map::set_ends(tail);
    free_locked(tail);
    return true;
  }
  static bool grow_locked(Span* span, size_t page_count) {
    const size_t more = page_count - span->page_count;
    Span* after = Map::span_of(span->end());
    if (!after || after->start != span->end() || after->page_count < more || page_count > UINT32_MAX) return false;
    const SpanState state = after->state;
    if (state != SpanState::dirty && state != SpanState::clean && state != SpanState::fresh) return false;
    if (state != SpanState::dirty && !pages_.take(more << page_shift)) return false;
    live_pages_ += more;
    tide_.rise(live_pages_);
    take_front(after, span, more);
    span->zeroed = false;
    return true;
  }

  // From here on a block counts as a buffer, of which programs tend to want the same again.
  static constexpr size_t buffer_pages = larger_of(256_KiB >> page_shift, 1);
  static constexpr size_t spans_at_once = 32;
  static constexpr uint64_t missed_within_ms = 1000;

  static inline LockPolicy lock_;
  static inline PagePolicy pages_;
  static inline Bins bins_[kinds];
  static inline Span* retired_;
  static inline Span* unused_spans_;
  static inline size_t unused_spans_left_;
  static inline Span* oldest_;
  static inline Span* newest_;
  static inline Span* purging_;
  // No segment was ever outside of these.
  static inline constinit uintptr_t lowest_ = ~uintptr_t{0};
  static inline uintptr_t highest_;
  static inline Tide tide_;
  static inline size_t live_pages_;
  static inline size_t dirty_pages_;
  static inline size_t reserved_pages_;
  static inline size_t peak_pages_;
  static inline size_t purged_pages_;
  static inline size_t missed_pages_;
  static inline size_t seen_dense_bytes_;
  static inline uint64_t purged_ms_;
  static inline uint64_t missed_ms_;
  static inline uint64_t next_maintenance_ms_;
};

}  // namespace hs

// The thread cache: per size class the blocks a thread can hand out without synchronising, and its slow
// paths.
//
//   refill    own spare magazine -> batch from the central heap
//   overflow  a larger magazine while the bound allows -> magazine becomes the spare -> old spare to the
//   central heap maintain  a few times a second: classes the thread has stopped using go back
//
// Invariants: blocks in a list == capacity - room; every list ends with a null link; what the two places that
// read a cache from outside (fork's child, statistics) see between two stores is a list, too.
#pragma once

#include <string.h>

#include "base/compiler.h"
#include "heap/central.h"
#include "os/die.h"
#include "policy/concepts.h"
#include "policy/lock/no_lock.h"

namespace hs {

// `room` counts down to the slow path, so that neither malloc nor free compares it with anything but zero.
struct FreeList {
  void* head;
  uint32_t room;
  uint32_t capacity;
};

template <class Parts>
struct ThreadCache {
  using Classes = typename Parts::Classes;
  using CentralType = Central<Parts>;
  using PageHeapType = typename Parts::PageHeapType;
  using Policy = typename Parts::Cache;
  using Links = typename Parts::Links;
  using LockType = typename Parts::LockType;
  using Os = typename Parts::Os;

  FreeList lists[Classes::index_count];
  Batch spares[Classes::index_count];
  uint32_t told_cached[Classes::index_count];  // blocks held here when the listener was last told
  bool used[Classes::index_count];             // since the last maintenance, as far as the slow paths can tell
  uint8_t class_set;                           // everybody's, or that of this thread's name
  bool set_by_call;                            // the name does not matter any more
  bool attached;
  bool busy;  // in a slow path: the lists may be between two states
  unsigned victim;
  uint32_t visits;
  uint32_t visits_before;  // when this thread began
  uint32_t ebbs_seen;
  size_t granted_bytes;
  uint64_t looked_ms;  // at the clock, in this slow path
  uint64_t maintained_ms;
  ThreadCache* next;
  ThreadCache* previous;

  static constexpr uint64_t maintenance_ms = 200;
  static constexpr uint32_t brief_visits = 64;
  static constexpr size_t ebb_magazine_bytes = 2_KiB;

  // The cache of this thread. Before its first block and after its end this is a cache without room, so that
  // the hot path need not ask.
  static inline constinit ThreadCache unattached{};
  static inline constinit ThreadCache ended{};
  static inline constinit thread_local ThreadCache* current = Policy::caches ? &unattached : &ended;

  // --- slow paths
  // -----------------------------------------------------------------------------------------------

  static HS_SLOW_PATH void* refill(unsigned class_index) {
    [[maybe_unused]] const bool is_first = !current->attached;
    ThreadCache* cache = attached_cache();
    if (!cache) return fetch_one(class_index);
    if constexpr (Classes::set_count > 1) {
      // The class was chosen before anybody knew whose thread this is.
      if (is_first) class_index = Classes::translations.of[cache->class_set][class_index];
    }
    cache->busy = true;
    FreeList& list = cache->lists[class_index];
    Batch& spare = cache->spares[class_index];
    cache->used[class_index] = true;
    Batch batch = spare;
    uint32_t came = 0;
    if (batch.count > 0) {
      spare = {nullptr, 0};
    } else if (Parts::admits(Classes::bytes_of(class_index))) {
      cache->visit();
      cache->grow(class_index);
      batch = CentralType::fetch(class_index, list.capacity ? list.capacity : 1, cache);
      came = batch.count;
    }
    if (batch.count > 0) {
      if (batch.count - 1 > list.capacity) cache->grant(class_index, batch.count);
      list.head = Links::next(batch.head);
      list.room = list.capacity - (batch.count - 1);
    }
    leave(cache, class_index, came);
    return batch.head;
  }
  static void* fetch_one(unsigned class_index) {
    const size_t bytes = Classes::bytes_of(class_index);
    void* block = Parts::admits(bytes) ? CentralType::fetch(class_index, 1, nullptr).head : nullptr;
    if (block) Parts::tell(bytes, 1);
    return block;
  }

  static HS_SLOW_PATH void overflow(unsigned class_index, void* block) {
    ThreadCache* cache = attached_cache();
    if (!cache) {
      Links::set_next(block, nullptr);
      CentralType::release_to_spans(class_index, {block, 1});
      Parts::tell(Classes::bytes_of(class_index), -1);
      return;
    }
    int64_t came = 0;
    cache->busy = true;
    FreeList& list = cache->lists[class_index];
    cache->used[class_index] = true;
    if (list.room == 0) {
      cache->visit();
      if (list.room == 0 && !cache->is_enough(class_index)) cache->grow(class_index);
    }
    if (list.room > 0) {
      Links::set_next(block, list.head);
      list.head = block;
      list.room--;
    } else if (list.capacity == 0 || CentralType::is_single(class_index)) {
      Links::set_next(block, nullptr);
      CentralType::release(class_index, {block, 1});
      came = -1;
    } else {
      Batch& spare = cache->spares[class_index];
      const Batch old = spare;
      spare = {list.head, list.capacity};
      Links::set_next(block, nullptr);
      list.head = block;
      list.room = list.capacity - 1;
      if (old.count > 0) CentralType::release(class_index, old);
      came = -int64_t{old.count};
    }
    leave(cache, class_index, came);
  }

  // Everything this thread holds goes back to the central heap; the cache itself waits for another thread.
  static void detach() {
    ThreadCache* cache = current;
    if (!cache->attached) return;
    current = &ended;
    // The next one of many brief threads finds what this one leaves.
    const bool was_brief = cache->visits - cache->visits_before < brief_visits;
    cache->flush(!was_brief);
    registry_lock_.lock();
    cache->unregister();
    const bool last_but_one = !registered_ || !registered_->next;
    registry_lock_.unlock();
    if (last_but_one && !was_brief) {
      CentralType::recycle(true);
      PageHeapType::settle();
    }
    PageHeapType::maintain();
  }

  // This thread allocates from the class set of that name from here on; "" is everybody's. False: there is
  // none.
  static bool use_set(const char* name) {
    ThreadCache* cache = attached_cache();
    for (unsigned set = 0; cache && set < Classes::set_count; set++)
      if (strcmp(Classes::Sets::names[set], name) == 0) {
        cache->class_set = static_cast<uint8_t>(set);
        cache->set_by_call = true;
        return true;
      }
    return false;
  }

  // What this thread holds goes back, and the thread goes on.
  static void flush_current() {
    if (current->attached) current->flush();
  }
  static void tell_current() {
    if (current->attached) current->tell_all();
  }

  // --- fork
  // -----------------------------------------------------------------------------------------------------

  static LockType& registry_lock() { return registry_lock_; }

  // In the child only this thread lives on: what others held is free again, unless they were in the middle of
  // moving it.
  static void adopt_all() {
    for (ThreadCache *cache = registered_, *next; cache; cache = next) {
      next = cache->next;
      if (cache == current || cache->busy) continue;
      for (unsigned index = 1; index < Classes::index_count; index++) {
        const Batch list = counted(cache->lists[index].head);
        const Batch spare = counted(cache->spares[index].head);
        if (list.count) CentralType::release_to_spans(index, list);
        if (spare.count) CentralType::release_to_spans(index, spare);
      }
      cache->forget_all();
      cache->unregister();
    }
  }

  // How far off what the listener was told can be by now: what all lists can take, in bytes.
  static size_t untold_bytes() { return load_relaxed(room_bytes_); }

  // Blocks waiting in the caches of all threads, in bytes: approximate while they work.
  static size_t cached_bytes() {
    size_t bytes = 0;
    registry_lock_.lock();
    for (ThreadCache* cache = registered_; cache; cache = cache->next)
      for (unsigned index = 1; index < Classes::index_count; index++) {
        const FreeList& list = cache->lists[index];
        const uint32_t blocks = load_relaxed(list.capacity) - load_relaxed(list.room);
        bytes += (size_t{blocks} + load_relaxed(cache->spares[index].count)) * Classes::bytes_of(index);
      }
    registry_lock_.unlock();
    return bytes;
  }

 private:
  // nullptr: this thread has no cache (any more, or for want of memory), and deals with the central heap
  // directly.
  static ThreadCache* attached_cache() {
    ThreadCache* cache = current;
    if (HS_LIKELY(cache->attached)) return cache;
    return cache == &unattached ? attach() : nullptr;
  }

  static HS_SLOW_PATH ThreadCache* attach() {
    if constexpr (!Policy::caches) return nullptr;
    if constexpr (same_type<LockType, NoLock>) {
      if (registered_) die("malloc()", "a second thread uses a heap that was forged without locks", registered_);
    }
    registry_lock_.lock();
    ThreadCache* cache = idle_;
    if (cache) {
      idle_ = cache->next;
    } else {
      cache = static_cast<ThreadCache*>(PageHeapType::Meta::allocate(sizeof(ThreadCache)));
    }
    if (cache) {
      cache->attached = true;
      cache->class_set = 0;
      cache->set_by_call = false;
      // The listener looks when a thread begins, too: the first look of all shows the heap.
      cache->maintained_ms = cache->looked_ms = Os::now_ms();
      cache->visits_before = cache->visits;
      cache->ebbs_seen = PageHeapType::ebbs();
      cache->previous = nullptr;
      cache->next = registered_;
      if (registered_) registered_->previous = cache;
      registered_ = cache;
      fetch_add_relaxed(room_bytes_, cache->capacity_bytes());
    }
    registry_lock_.unlock();
    if (!cache) return nullptr;
    if constexpr (Classes::set_count > 1) cache->choose_set_by_name();
    current = cache;
    // May allocate, which this thread now can.
    Parts::thread_attached();
    return cache;
  }

  void choose_set_by_name() {
    char name[16];
    Os::thread_name(name);
    for (unsigned set = 1; set < Classes::set_count; set++)
      if (strncmp(Classes::Sets::names[set], name, sizeof name - 1) == 0) class_set = static_cast<uint8_t>(set);
  }

  static void leave(ThreadCache* cache) {
    __asm__ volatile("" ::: "memory");
    cache->busy = false;
  }
  // The listener looks when everything is in its place again: it may flush this cache, and allocate.
  static void leave(ThreadCache* cache, unsigned class_index, int64_t came) {
    leave(cache);
    cache->tell(class_index, came);
    if (HS_LIKELY(cache->looked_ms == 0)) return;
    const uint64_t now_ms = cache->looked_ms;
    cache->looked_ms = 0;
    if (Parts::listener.visit) Parts::listener.visit(now_ms);
  }

  void unregister() {
    if (previous) {
      previous->next = next;
    } else {
      registered_ = next;
    }
    if (next) next->previous = previous;
    attached = false;
    next = idle_;
    idle_ = this;
    fetch_add_relaxed(room_bytes_, -capacity_bytes());
  }

  static uint32_t first_capacity(size_t class_bytes) {
    return static_cast<uint32_t>(class_bytes >= 512 ? 1 : 512 / class_bytes);
  }
  // A class of single blocks has no spare.
  static size_t bytes_for(unsigned class_index, uint32_t capacity) {
    return size_t{capacity} * Classes::bytes_of(class_index) * (CentralType::is_single(class_index) ? 1 : 2);
  }

  // A larger magazine for a class that has proved to need it, as long as the thread stays within its bound.
  void grow(unsigned class_index) {
    FreeList& list = lists[class_index];
    const uint32_t most = Policy::magazine_blocks(Classes::bytes_of(class_index), class_index);
    if (list.capacity >= most) return;
    const uint32_t doubled = list.capacity ? 2 * list.capacity : first_capacity(Classes::bytes_of(class_index));
    const uint32_t capacity = doubled < most ? doubled : most;
    const size_t more_bytes = bytes_for(class_index, capacity) - bytes_for(class_index, list.capacity);
    if (more_bytes > Policy::limit_bytes()) return;
    for (unsigned looked_at = 0; granted_bytes + more_bytes > Policy::limit_bytes(); looked_at++) {
      if (looked_at == Classes::index_count) return;
      if (++victim >= Classes::index_count) victim = 1;
      if (victim != class_index) take_away(victim);
    }
    grant(class_index, capacity);
  }
  // In an ebb what is freed is not wanted soon: a small magazine pins few spans.
  bool is_enough(unsigned class_index) const {
    return lists[class_index].capacity * Classes::bytes_of(class_index) >= ebb_magazine_bytes && PageHeapType::is_ebb();
  }
  void grant(unsigned class_index, uint32_t capacity) {
    FreeList& list = lists[class_index];
    granted_bytes += bytes_for(class_index, capacity) - bytes_for(class_index, list.capacity);
    fetch_add_relaxed(room_bytes_, (capacity - list.capacity) * Classes::bytes_of(class_index));
    list.room += capacity - list.capacity;
    list.capacity = capacity;
  }
  void take_away(unsigned class_index) {
    FreeList& list = lists[class_index];
    if (list.capacity == 0) return;
    flush_class(class_index, false);
    drop_capacity(class_index);
  }
  void drop_capacity(unsigned class_index) {
    FreeList& list = lists[class_index];
    granted_bytes -= bytes_for(class_index, list.capacity);
    fetch_add_relaxed(room_bytes_, -(list.capacity * Classes::bytes_of(class_index)));
    list.room = list.capacity = 0;
  }
  size_t capacity_bytes() const {
    size_t bytes = 0;
    for (unsigned index = 1; index < Classes::index_count; index++)
      bytes += lists[index].capacity * Classes::bytes_of(index);
    return bytes;
  }
  void flush_class(unsigned class_index, bool to_spans) {
    FreeList& list = lists[class_index];
    const Batch batches[] = {{list.head, list.capacity - list.room}, spares[class_index]};
    list.head = nullptr;
    list.room = list.capacity;
    spares[class_index] = {nullptr, 0};
    int64_t came = 0;
    for (const Batch& batch : batches) {
      if (batch.count == 0) continue;
      came -= batch.count;
      if (to_spans) {
        CentralType::release_to_spans(class_index, batch);
      } else {
        CentralType::release(class_index, batch);
      }
    }
    tell(class_index, came);
  }
  // `came` blocks came from the central heap; what changed beyond that went to the program or came from it.
  void tell(unsigned class_index, int64_t came) {
    if (HS_LIKELY(!Parts::listener.blocks)) return;
    const FreeList& list = lists[class_index];
    const uint32_t cached = list.capacity - list.room + spares[class_index].count;
    const int64_t change = came + told_cached[class_index] - cached;
    told_cached[class_index] = cached;
    if (change != 0) Parts::listener.blocks(Classes::bytes_of(class_index), change);
  }
  void tell_all() {
    for (unsigned index = 1; index < Classes::index_count; index++) tell(index, 0);
  }
  void flush(bool to_spans = true) {
    busy = true;
    for (unsigned index = 1; index < Classes::index_count; index++)
      if (lists[index].head || spares[index].count > 0) flush_class(index, to_spans);
    leave(this);
  }
  void forget_all() {
    fetch_add_relaxed(room_bytes_, -capacity_bytes());
    for (unsigned index = 1; index < Classes::index_count; index++) {
      lists[index] = {nullptr, 0, 0};
      spares[index] = {nullptr, 0};
      told_cached[index] = 0;
    }
    granted_bytes = 0;
  }
  static Batch counted(void* head) {
    Batch batch{head, 0};
    for (void* block = head; block; block = Links::next(block)) batch.count++;
    return batch;
  }

  // What this thread and the central heap keep at hand pins the spans that the program has left.
  HS_SLOW_PATH void ebb() {
    ebbs_seen = PageHeapType::ebbs();
    for (unsigned index = 1; index < Classes::index_count; index++) {
      if (lists[index].capacity == 0) continue;
      flush_class(index, true);
      drop_capacity(index);
    }
    CentralType::recycle(true);
  }

  // Every so often a slow path looks at the clock.
  void visit() {
    if (HS_UNLIKELY(ebbs_seen != PageHeapType::ebbs())) ebb();
    if (++visits % 4 != 0) return;
    const uint64_t now_ms = looked_ms = Os::now_ms();
    if (now_ms - maintained_ms < maintenance_ms) return;
    maintained_ms = now_ms;
    if constexpr (Classes::set_count > 1) {
      if (!set_by_call) choose_set_by_name();
    }
    for (unsigned index = 1; index < Classes::index_count; index++) {
      if (!used[index] && lists[index].capacity > 0) {
        flush_class(index, true);
        drop_capacity(index);
      }
      used[index] = false;
    }
    tell_all();
    if (now_ms - load_relaxed(recycled_ms_) >= maintenance_ms) {
      store_relaxed(recycled_ms_, now_ms);
      CentralType::recycle(false);
    }
    PageHeapType::maintain();
  }

  static inline LockType registry_lock_;
  static inline ThreadCache* registered_;
  static inline ThreadCache* idle_;
  static inline uint64_t recycled_ms_;
  // What the lists of all registered caches can take.
  static inline size_t room_bytes_;
};

}  // namespace hs

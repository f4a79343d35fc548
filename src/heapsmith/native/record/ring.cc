#include "record/ring.h"

#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/bounded_lock.h"
#include "os/process.h"
#include "os/system_call.h"
#include "record/modules.h"
#include "record/python_frames.h"
#include "record/stacks.h"
#include "record/texts.h"

namespace hs::record {

__thread ThreadRing this_ring;
uint32_t mode = kUnknown;
uint64_t sample_every_bytes = 0;
void (*on_recording_open)() = nullptr;

namespace {

enum : uint32_t { kNotOpen, kOpening, kOpen, kShut };
uint32_t state = kNotOpen;
bool is_forked = false;
BoundedLock rings_lock;
// A thread past its end still gives back what was its own, the table of its thread-local variables with it: into one ring of
// all such threads, one of them at a time.
ThreadRing ended_ring;
BoundedLock ended_lock;
constexpr char kEndedName[] = "ended threads";
// Which rings of this process are accessible, and their words.
uint64_t* words_of[wire::kRingCapacity];

pthread_key_t end_of_thread;
bool has_key = false;
// Destructors of other keys may still free: ours asks to be called again until the last round.
constexpr intptr_t kRounds = 3;
__thread intptr_t rounds_seen;

constexpr uint64_t kAddressMask = (uint64_t{1} << wire::kAddressBits) - 1;
constexpr uint64_t kWaitOnceNs = 2'000'000;
constexpr uint64_t kWaitAtMostNs = 5'000'000'000;

void begin_recording() {
  sample_every_bytes = recording.recorder->sample_every_bytes;
  constexpr Mode kModes[] = {kEvery, kSamples, kEveryWithStack};
  store_relaxed(mode, kModes[recording.recorder->stack_mode % 3]);
  if (on_recording_open != nullptr) on_recording_open();
}

wire::Ring* take_ring(uint32_t& index) {
  wire::RecordingHeader& header = *recording.header;
  const uint32_t used = load_relaxed(header.rings_used);
  for (index = 0; index < used; ++index) {
    wire::Ring& ring = recording.rings[index];
    if (load_acquire(ring.state) == static_cast<uint32_t>(wire::RingState::kFree)) return &ring;
  }
  if (used >= recording.ring_capacity) return nullptr;
  words_of[index] = reveal_ring(index);
  if (words_of[index] == nullptr) return nullptr;
  wire::Ring& ring = recording.rings[index];
  store_relaxed(ring.capacity_words, wire::kRingBytesFirst / sizeof(uint64_t));
  return &ring;
}

void thread_ends(void* value) {
  if (++rounds_seen < kRounds && pthread_setspecific(end_of_thread, value) == 0) return;
  ThreadRing& thread = this_ring;
  if (thread.ring == nullptr || thread.is_lost) return;
  const os::KeepErrno keep;
  os::thread_name(thread.ring->name);
  Record end = {{head_of(wire::RecordOperation::kThreadEnd, 0, false), 0}, 2};
  put_slowly(end, 0);
  drop_stack_memory();
  wire::Ring* ring = thread.ring;
  thread = {};
  thread.is_lost = thread.has_ended = true;
  store_release(ring->state, static_cast<uint32_t>(wire::RingState::kEnded));
}

void wait_for_room(wire::Ring& ring) {
  const uint32_t seen = load_acquire(ring.room_sequence);
  store_sequential(ring.is_waiting, 1u);
  wake_recorder();
  const timespec timeout = {0, kWaitOnceNs};
  system_call(SYS_futex, reinterpret_cast<long>(&ring.room_sequence), FUTEX_WAIT, seen,
              reinterpret_cast<long>(&timeout));
}

// The recorder has read everything: from here on the ring may be larger.
void grow(ThreadRing& thread) {
  const size_t bytes = (thread.mask + 1) * sizeof(uint64_t);
  if (bytes * 2 > wire::kRingBytesLargest || !back_ring(thread.words, bytes, bytes * 2)) return;
  store_relaxed(thread.ring->capacity_words, bytes * 2 / sizeof(uint64_t));
  thread.mask = bytes * 2 / sizeof(uint64_t) - 1;
}

bool make_room(ThreadRing& thread, uint32_t words) {
  wire::Ring& ring = *thread.ring;
  uint64_t read = load_acquire(ring.read_words);
  if (load_relaxed(recording.recorder->is_over) != 0) {
    shut();
    return false;
  }
  if (thread.at + words > read + thread.mask + 1) {
    if (static_cast<wire::OnFull>(load_relaxed(recording.recorder->on_full)) == wire::OnFull::kDrop ||
        os::is_restricted || thread.gave_up_at == read) {
      if (!is_recorder_alive()) shut();
      return false;
    }
    const uint64_t begun_ns = os::monotonic_ns();
    // Half of the ring, so that a wait is worth its system calls.
    while (thread.at - read > (thread.mask + 1) / 2) {
      wait_for_room(ring);
      read = load_acquire(ring.read_words);
      if (!is_recorder_alive() || load_relaxed(recording.recorder->is_over) != 0) {
        shut();
        return false;
      }
      if (os::monotonic_ns() - begun_ns > kWaitAtMostNs && thread.at + words > read + thread.mask + 1) {
        thread.gave_up_at = read;
        return false;
      }
    }
    store_relaxed(ring.waited_ns, ring.waited_ns + os::monotonic_ns() - begun_ns);
    if (read == thread.at) grow(thread);
  } else if (thread.at - read > (thread.mask + 1) / 2 && load_relaxed(recording.recorder->is_sleeping) != 0) {
    wake_recorder();
  }
  const uint64_t full_at = read + thread.mask + 1;
  const uint64_t look_up_at = thread.at + words + (thread.mask + 1) / 4;
  thread.limit = full_at < look_up_at ? full_at : look_up_at;
  return true;
}

}  // namespace

bool attach() {
  ThreadRing& thread = this_ring;
  if (thread.ring != nullptr) return true;
  if (thread.is_lost) return false;
  thread.is_lost = true;  // what is allocated on the way in is not recorded
  const os::KeepErrno keep;
  uint32_t seen = kNotOpen;
  if (compare_exchange_acquire(state, seen, uint32_t{kOpening})) {
    const bool is_open = open_recording(is_forked);
    if (is_open && !has_key) has_key = pthread_key_create(&end_of_thread, thread_ends) == 0;
    if (is_open) {
      write_modules();
      begin_recording();
    } else {
      store_relaxed(mode, kNothing);
    }
    store_release(state, is_open ? uint32_t{kOpen} : uint32_t{kShut});
  }
  while ((seen = load_acquire(state)) == kOpening) os::yield_processor();
  if (seen != kOpen || os::is_restricted) return false;
  if (!rings_lock.lock(os::yield_processor)) {
    thread.is_lost = false;  // its owner was not let run for long: the next event tries again
    return false;
  }
  uint32_t index = 0;
  wire::Ring* ring = take_ring(index);
  if (ring != nullptr) {
    ring->tid = thread.has_ended ? 0 : os::thread_id();
    if (thread.has_ended)
      memcpy(ring->name, kEndedName, sizeof kEndedName);
    else
      os::thread_name(ring->name);
    thread.words = words_of[index];
    thread.mask = ring->capacity_words - 1;
    thread.at = ring->written_words;
    thread.limit = thread.at;
    thread.index = index;
    thread.gave_up_at = UINT64_MAX;
    thread.stamping = {&recording.header->current_stamp, 0, 1, 0};
    if (index != 0 || thread.has_ended) become_threaded();
    store_release(ring->state, static_cast<uint32_t>(wire::RingState::kAlive));
    if (index == load_relaxed(recording.header->rings_used)) store_release(recording.header->rings_used, index + 1);
    thread.ring = ring;
  }
  rings_lock.unlock();
  if (ring == nullptr) return false;
  if (has_key && !thread.has_ended) pthread_setspecific(end_of_thread, ring);
  thread.is_lost = false;
  Record start = {{head_of(wire::RecordOperation::kThreadStart, 0, false), ring->tid}, 2};
  put_slowly(start, 0);
  return true;
}

void put_slowly(Record& record, uint32_t stamped) {
  ThreadRing& thread = this_ring;
  if (load_relaxed(state) == kShut) return;
  const os::KeepErrno keep;
  if (thread.has_ended && thread.is_lost && ended_lock.lock(os::yield_processor)) {
    const ThreadRing own = thread;
    thread = ended_ring;
    thread.has_ended = true;
    // A signal handler may have written after that was put by.
    if (thread.ring != nullptr) thread.at = load_relaxed(thread.ring->written_words);
    put_slowly(record, stamped);
    ended_ring = thread;
    thread = own;
    ended_lock.unlock();
    return;
  }
  if (thread.ring == nullptr && !attach()) {
    if (recording.header != nullptr) fetch_add_relaxed(recording.header->lost_events, 1u);
    return;
  }
  wire::Ring& ring = *thread.ring;
  // A signal came in the middle of a record, and its handler allocates.
  const bool is_interrupted = load_relaxed(ring.begun_words) > thread.at;
  if (is_interrupted || (thread.at + record.count > thread.limit && !make_room(thread, record.count))) {
    if (load_relaxed(state) != kShut) store_relaxed(ring.lost_events, ring.lost_events + 1);
    return;
  }
  const uint64_t at = thread.at;
  store_relaxed(ring.begun_words, at + 1);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  record.words[stamped] |= stamp_anew(thread.stamping, thread.index, record.words[stamped + 1] & kAddressMask);
  for (uint32_t word = 0; word < record.count; ++word) thread.words[(at + word) & thread.mask] = record.words[word];
  thread.at = at + record.count;
  store_release(ring.written_words, thread.at);
}

void put_birth_among_others(uint64_t head, const void* block, size_t requested_bytes, size_t usable_bytes,
                            uint64_t stack) {
  ThreadRing& thread = this_ring;
  if (!has_room(thread, 3) || !fits_in_three(requested_bytes, usable_bytes)) {
    return put_birth_slowly(head, block, requested_bytes, usable_bytes, stack);
  }
  const uint64_t at = thread.at;
  begin_record(thread, at);
  const uint64_t stamp = stamp_event(thread.stamping, thread.index, reinterpret_cast<uintptr_t>(block),
                                     requested_bytes >= kLargeBirthBytes);
  write_birth(thread, at, stamp | head, block, requested_bytes, usable_bytes, stack);
  end_record(thread, at + 3);
}

void put_death_among_others(uint64_t head, const void* block) {
  ThreadRing& thread = this_ring;
  if (!has_room(thread, 2)) return put_death_slowly(head, block);
  const uint64_t at = thread.at;
  begin_record(thread, at);
  const uint64_t stamp = stamp_event(thread.stamping, thread.index, reinterpret_cast<uintptr_t>(block), false);
  write_death(thread, at, stamp | head, block);
  end_record(thread, at + 2);
}

void put_birth_slowly(uint64_t head, const void* block, size_t requested_bytes, size_t usable_bytes, uint64_t stack) {
  const uint64_t slack = usable_bytes - requested_bytes;
  const uint64_t address = reinterpret_cast<uintptr_t>(block);
  if (slack < kSlackLimit && requested_bytes >> wire::kRequestedBits == 0) {
    Record record = {{head, address | slack << wire::kAddressBits, requested_bytes | stack << wire::kRequestedBits}, 3};
    put_slowly(record, 0);
  } else {
    Record record = {{head_of(wire::RecordOperation::kWide, 0, false), usable_bytes, requested_bytes, head, address,
                      stack << wire::kRequestedBits},
                     6};
    put_slowly(record, 3);
  }
}

void put_death_slowly(uint64_t head, const void* block) {
  Record record = {{head, reinterpret_cast<uintptr_t>(block)}, 2};
  put_slowly(record, 0);
}

void shut() {
  store_relaxed(mode, kNothing);
  store_relaxed(state, uint32_t{kShut});
}

bool begin_again() {
  ThreadRing& thread = this_ring;
  if (recording.header == nullptr) {
    store_relaxed(state, uint32_t{kNotOpen});
    store_relaxed(mode, kUnknown);
    thread.is_lost = false;
    return attach();
  }
  if (!reopen_recording()) return false;
  begin_recording();
  store_release(state, uint32_t{kOpen});
  return thread.ring != nullptr || attach();
}

bool is_recording() { return load_relaxed(state) == kOpen && load_relaxed(mode) != kNothing; }

void put_mark(const char* name) {
  if (load_relaxed(state) != kOpen) return;
  const auto bytes = static_cast<uint32_t>(strlen(name));
  const uint32_t at = put_text(name, bytes);
  if (at == UINT32_MAX) return;
  Record mark = {{head_of(wire::RecordOperation::kMark, 0, false), at | uint64_t{bytes} << 32}, 2};
  put_slowly(mark, 0);
}

void fork_child() {
  if (state == kNotOpen) return;
  rings_lock.reset();
  ended_lock.reset();
  forget_recording();
  this_ring = {};
  ended_ring = {};
  forget_stacks();
  forget_codes();
  texts_fork_child();
  sampled_fork_child();
  is_threaded = 0;
  is_forked = true;
  // The child's own file is made at its first record, so that one that only executes pays nothing.
  const bool goes_on = recording.recorder != nullptr && mode != kNothing;
  state = goes_on ? uint32_t{kNotOpen} : uint32_t{kShut};
  mode = goes_on ? kUnknown : kNothing;
}

void refresh_names() {
  const uint32_t used = load_acquire(recording.header->rings_used);
  for (uint32_t index = 0; index < used; ++index) {
    wire::Ring& ring = recording.rings[index];
    if (load_acquire(ring.state) == static_cast<uint32_t>(wire::RingState::kAlive)) {
      os::name_of_thread(ring.tid, ring.name);
    }
  }
}

}  // namespace hs::record

// One thread's records: words in a ring of shared memory that this thread alone writes and the recorder alone reads.
//
//   allocate    heap -> put_birth      or put_birth_among_others, or put_slowly: attach, full, a wide size, interrupted
//   deallocate  put_death -> heap      or put_death_among_others, or put_slowly
//
// Budget of the hot path of a thread that is alone: no lock, no atomic instruction, no call; a few loads, six stores, and now
// and then the processor's counter. Among others: a call, a note, and now and then an atomic instruction.
//
// Order: a birth is stamped after the heap answered and a death before the heap gets the block (record/stamps.h).
// `begun_words` runs ahead of `written_words` while a stamp has been taken and its record cannot be read yet: the recorder
// orders nothing after such a stamp.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "record/recording.h"
#include "record/sampled.h"
#include "record/stamps.h"
#include "wire/recording.h"

namespace hs::record {

struct ThreadRing {
  uint64_t* words;
  uint64_t mask;
  // Words written, and up to where they can be without looking up; zero sends every record the slow way.
  uint64_t at;
  uint64_t limit;
  wire::Ring* ring;
  uint32_t index;
  // No ring now: being attached, past its end, or none left.
  bool is_lost;
  // Past its end, or the ring of those that are.
  bool has_ended;
  Countdown countdown;
  Stamping stamping;
  // The last wait was in vain: until the recorder has read again, nobody waits.
  uint64_t gave_up_at;
};

// Initial-exec and trivially constructed: reading it never calls anything.
extern __thread ThreadRing this_ring;

// What is recorded. Values up to kEveryWithStack record every death.
enum Mode : uint32_t { kEvery, kEveryWithStack, kSamples, kUnknown, kNothing };
extern uint32_t mode;
extern uint64_t sample_every_bytes;

struct Record {
  uint64_t words[6];
  uint32_t count;
};

// Any record, on the slow way. The stamp is added to the first word of the record proper.
HS_SLOW_PATH void put_slowly(Record& record, uint32_t stamped);
HS_SLOW_PATH void put_birth_slowly(uint64_t head, const void* block, size_t requested_bytes, size_t usable_bytes,
                                   uint64_t stack);
HS_SLOW_PATH void put_death_slowly(uint64_t head, const void* block);

constexpr uint64_t kSlackLimit = (uint64_t{1} << (64 - wire::kAddressBits)) - 1;

HS_FAST_PATH uint64_t head_of(wire::RecordOperation operation, uint32_t alignment_bits, bool is_python) {
  return static_cast<uint64_t>(operation) | (is_python ? wire::kPythonBit : 0) |
         uint64_t{alignment_bits} << wire::kAlignmentShift;
}

// The recorder has read the lines that come next, so that another processor has them: to be asked for in time.
constexpr uint64_t kAheadWords = 64;

// Whether this thread can write so many words now, and is not in the middle of a record that a signal interrupted.
HS_FAST_PATH bool has_room(const ThreadRing& thread, uint32_t words) {
  return HS_LIKELY(thread.at + words <= thread.limit) && HS_LIKELY(load_relaxed(thread.ring->begun_words) <= thread.at);
}

HS_FAST_PATH void begin_record(ThreadRing& thread, uint64_t at) {
  store_relaxed(thread.ring->begun_words, at + 1);
  prefetch_for_writing(&thread.words[(at + kAheadWords) & thread.mask]);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}
HS_FAST_PATH void end_record(ThreadRing& thread, uint64_t end) {
  thread.at = end;
  store_release(thread.ring->written_words, end);
}

HS_FAST_PATH bool fits_in_three(size_t requested_bytes, size_t usable_bytes) {
  return HS_LIKELY(usable_bytes - requested_bytes < kSlackLimit) &&
         HS_LIKELY(requested_bytes >> wire::kRequestedBits == 0);
}
HS_FAST_PATH void write_birth(ThreadRing& thread, uint64_t at, uint64_t first, const void* block,
                              size_t requested_bytes, size_t usable_bytes, uint64_t stack) {
  const uint64_t slack = usable_bytes - requested_bytes;
  thread.words[at & thread.mask] = first;
  thread.words[(at + 1) & thread.mask] = reinterpret_cast<uintptr_t>(block) | slack << wire::kAddressBits;
  thread.words[(at + 2) & thread.mask] = requested_bytes | stack << wire::kRequestedBits;
}
HS_FAST_PATH void write_death(ThreadRing& thread, uint64_t at, uint64_t first, const void* block) {
  thread.words[at & thread.mask] = first;
  thread.words[(at + 1) & thread.mask] = reinterpret_cast<uintptr_t>(block);
}

// Where there are more threads than one, or this one has to look at the stamp.
void put_birth_among_others(uint64_t head, const void* block, size_t requested_bytes, size_t usable_bytes,
                            uint64_t stack);
void put_death_among_others(uint64_t head, const void* block);

HS_FAST_PATH void put_birth(uint64_t head, const void* block, size_t requested_bytes, size_t usable_bytes,
                            uint64_t stack) {
  ThreadRing& thread = this_ring;
  if (HS_LIKELY(has_room(thread, 3)) && fits_in_three(requested_bytes, usable_bytes) &&
      HS_LIKELY(may_stamp_alone(thread.stamping))) {
    const uint64_t at = thread.at;
    begin_record(thread, at);
    uint64_t stamp;
    if (HS_LIKELY(stamp_alone(thread.stamping, stamp))) {
      write_birth(thread, at, stamp | head, block, requested_bytes, usable_bytes, stack);
      return end_record(thread, at + 3);
    }
    store_relaxed(thread.ring->begun_words, at);
  }
  put_birth_among_others(head, block, requested_bytes, usable_bytes, stack);
}

HS_FAST_PATH void put_death(uint64_t head, const void* block) {
  ThreadRing& thread = this_ring;
  if (HS_LIKELY(has_room(thread, 2)) && HS_LIKELY(may_stamp_alone(thread.stamping))) {
    const uint64_t at = thread.at;
    begin_record(thread, at);
    uint64_t stamp;
    if (HS_LIKELY(stamp_alone(thread.stamping, stamp))) {
      write_death(thread, at, stamp | head, block);
      return end_record(thread, at + 2);
    }
    store_relaxed(thread.ring->begun_words, at);
  }
  put_death_among_others(head, block);
}

// Makes the file of this image on first use, then gives this thread a ring.
HS_SLOW_PATH bool attach();
void fork_child();
// The names of all threads, as they are now.
void refresh_names();
// Nothing more is recorded in this process.
void shut();
// Begins, or begins again, in a process where nothing is being recorded; answers whether it is now.
bool begin_again();
bool is_recording();
// Names this moment.
void put_mark(const char* name);

extern void (*on_recording_open)();

}  // namespace hs::record

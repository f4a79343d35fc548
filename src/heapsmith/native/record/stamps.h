// Stamps say in which order the events of all threads were.
//
// Reading the processor's counter for each event would hold the processor up each time, until all reads of memory before it
// are done. Events carry instead what the current stamp says, a word that all threads of the process and the recorder share.
// It follows the counter: a thread moves it on after some events, when it is old, and the recorder at each of its looks.
//
//   1. Of two events one of which happened before the other, as the program's and the heap's own synchronisation have it, the
//      earlier has no later stamp: both have read one word, which never goes back.
//   2. If they are of one address and of two threads, its stamp is earlier. Each event leaves a note at a place that its
//      address gives, and who finds another's note of the last few stamps there moves the stamp on for its own event.
//   3. A large birth has a later stamp than all that happened before it: the order within a stamp cannot make what is freed
//      and allocated in turn live at once.
//
// So, sorted by stamp and for each thread as it wrote them, no block dies before it is born, and no address is used twice at
// once. Notes are plain stores: a late one can hide a newer one of another address. kNearStamps covers the time until a store
// is seen. What is left is a thread that is interrupted for long just between reading a note and leaving its own, at the
// place of an address that is passed on within one stamp as it resumes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "record/recording.h"
#include "wire/recording.h"

namespace hs::record {

// More than one thread has attached: then events leave notes.
extern uint32_t is_threaded;

// After how many of its events a thread looks whether the stamp is old, and how many of those are to come.
struct Stamping {
  uint64_t* current;
  // What the counter was at the last look. While a thread is the only one, it moves no stamp on, which would wait for its
  // stores, but has this one where it is later.
  uint64_t looked_at;
  uint32_t of_one_stamp;
  uint32_t left;
};

constexpr uint32_t kMostOfOneStamp = 16;
// Where that many would take longer than some microseconds, fewer: counts for each of them.
#if defined(__x86_64__)
constexpr uint64_t kFastStamps = 512;
#else
constexpr uint64_t kFastStamps = 16;
#endif
// A stamp is not old before: where many threads move it on, it has to be fetched from another processor each time.
constexpr uint64_t kStampLasts = 4 * kFastStamps;
constexpr uint64_t kNearStamps = 8;
constexpr size_t kLargeBirthBytes = 4096;

// The lower bits of the current stamp count its changes.
constexpr uint64_t kChangesMask = (uint64_t{1} << wire::kStampShift) - 1;

// A note: what of the address its place does not say, the ring, the count of the current stamp.
constexpr uint32_t kPlaceBits = 14;
constexpr uint32_t kMixedBits = wire::kAddressBits - 3;
constexpr uint32_t kRestBits = kMixedBits - kPlaceBits;
constexpr uint32_t kRingBits = 12;
static_assert(wire::kRingCapacity <= 1u << kRingBits);
static_assert(kRestBits + kRingBits + wire::kStampShift <= 64);
extern uint64_t notes[size_t{1} << kPlaceBits];

// Several threads: what a thread that was the only one has taken for its stamp so far is earlier than the stamp is then.
void become_threaded();
HS_SLOW_PATH void look_at_counter(Stamping& stamping);
// Answers a stamp that is later than all that happened before, and leaves the note.
HS_SLOW_PATH uint64_t move_stamp_noting(uint64_t& current, uint64_t& place, uint64_t who);

// Whose a note is: one to one on addresses and rings.
HS_FAST_PATH uint64_t who_of(uint64_t mixed, uint32_t ring) {
  return ((mixed & ((uint64_t{1} << kRestBits) - 1)) << kRingBits | ring) << wire::kStampShift;
}
HS_FAST_PATH uint64_t mix(uint64_t address) {
  return (address >> 3) * 0x9E3779B97F4A7C15u & ((uint64_t{1} << kMixedBits) - 1);
}

// For the next record of a thread that is the only one.
HS_FAST_PATH bool may_stamp_alone(const Stamping& stamping) {
  return HS_LIKELY(stamping.left > 0) && HS_LIKELY(load_relaxed(is_threaded) == 0);
}
HS_FAST_PATH uint64_t later_of(uint64_t stamp, uint64_t looked_at) {
  const uint64_t own = looked_at << wire::kStampShift;
  return static_cast<int64_t>(own - stamp) > 0 ? own : stamp;
}
// Answers false where it is not the only one any more. Asked after the stamp was read: who reads one that another thread's
// first record made learns of that thread.
HS_FAST_PATH bool stamp_alone(Stamping& stamping, uint64_t& stamp) {
  stamp = later_of(load_acquire(*stamping.current), stamping.looked_at) & ~kChangesMask;
  if (HS_UNLIKELY(load_relaxed(is_threaded) != 0)) return false;
  --stamping.left;
  return true;
}

// For a record of this thread's ring: before the heap gets the block back, or after it gave it.
HS_FAST_PATH uint64_t stamp_event(Stamping& stamping, uint32_t ring, uint64_t address, bool is_large) {
  if (HS_LIKELY(stamping.left > 0)) {
    --stamping.left;
  } else {
    look_at_counter(stamping);
  }
  uint64_t stamp = load_acquire(*stamping.current);
  if (load_relaxed(is_threaded) == 0) {  // asked after the stamp was read, as above
    stamp = later_of(stamp, stamping.looked_at);
  } else {
    const uint64_t mixed = mix(address);
    const uint64_t who = who_of(mixed, ring);
    uint64_t& place = notes[mixed >> kRestBits];
    const uint64_t before = load_relaxed(place);
    const bool is_near = ((stamp - before + kNearStamps) & kChangesMask) < 2 * kNearStamps;
    if (HS_UNLIKELY(is_near && (before & ~kChangesMask) != who) || HS_UNLIKELY(is_large)) {
      stamp = move_stamp_noting(*stamping.current, place, who);
    } else {
      store_relaxed(place, who | (stamp & kChangesMask));
    }
  }
  return stamp & ~kChangesMask;
}

// For a record that is later than all that happened before it.
HS_SLOW_PATH uint64_t stamp_anew(Stamping& stamping, uint32_t ring, uint64_t address);

}  // namespace hs::record

#include "drain/process.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/stamp.h"

namespace hs::drain {

namespace {

using wire::RecordOperation;
using wire::RingState;

// A thread that stopped in the middle of a record holds the others up no longer than this.
constexpr uint64_t kStuckStamps = 1'000'000'000;
constexpr uint64_t kStampBits = 64 - wire::kStampShift;
constexpr uint64_t kStampMask = (uint64_t{1} << kStampBits) - 1;
constexpr uint64_t kAddressMask = (uint64_t{1} << wire::kAddressBits) - 1;
constexpr uint64_t kRequestedMask = (uint64_t{1} << wire::kRequestedBits) - 1;

constexpr uint32_t kWords[32] = {2, 3, 3, 3, 2, 2, 3, 2, 2, 3, 3, 2, 2, 3, 2, 2,
                                 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2};

RecordOperation operation_of(uint64_t word) { return static_cast<RecordOperation>(word & wire::kOperationBits); }

uint64_t tick_of(uint64_t stamp, const Clock& clock) {
  const auto since_first = static_cast<int64_t>(stamp - clock.first_stamp);
  return since_first < 0 ? 0 : static_cast<uint64_t>(static_cast<double>(since_first) * clock.ticks_per_stamp);
}

uint8_t with_flag(Operation operation, const Incoming& event) {
  return static_cast<uint8_t>(static_cast<uint8_t>(operation) | (event.is_python != 0 ? kPythonFlag : 0));
}

}  // namespace

bool Process::open(const char* path, const Clock& clock, uint64_t sample_every_bytes) {
  sample_every_bytes_ = sample_every_bytes;
  const int file = ::open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return false;
  struct stat status = {};
  void* mapped = MAP_FAILED;
  if (fstat(file, &status) == 0 && static_cast<size_t>(status.st_size) > wire::kDataOffsetBytes) {
    mapped_bytes_ = static_cast<size_t>(status.st_size);
    mapped = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  }
  ::close(file);
  if (mapped == MAP_FAILED) return false;
  header_ = static_cast<wire::RecordingHeader*>(mapped);
  rings_ = reinterpret_cast<wire::Ring*>(static_cast<char*>(mapped) + wire::kRingsOffsetBytes);
  const uint32_t capacity = header_->ring_capacity;
  readings_ = static_cast<Reading*>(calloc(capacity, sizeof(Reading)));
  heap_ = static_cast<uint32_t*>(calloc(capacity, sizeof(uint32_t)));
  heap_stamps_ = static_cast<uint64_t*>(calloc(capacity, sizeof(uint64_t)));
  if (load_acquire(header_->magic) != wire::kRecordingMagic || capacity > wire::kRingCapacity || readings_ == nullptr ||
      heap_ == nullptr || heap_stamps_ == nullptr || !table_.open() || !batch_.open()) {
    return false;
  }
  // Threads of an earlier recording of this process go on in their rings.
  const uint64_t tick = tick_of(header_->start_stamp, clock);
  for (uint32_t at = 0; at < load_acquire(header_->rings_used); ++at) {
    readings_[at].read = load_acquire(rings_[at].read_words);
    readings_[at].last_stamp = header_->start_stamp;
    const bool is_alive = load_acquire(rings_[at].state) == static_cast<uint32_t>(RingState::kAlive);
    if (readings_[at].read > 0 && is_alive) begin_life(at, rings_[at].tid, tick);
  }
  return true;
}

void Process::close() {
  if (header_ != nullptr) munmap(header_, mapped_bytes_);
  free(readings_);
  free(heap_);
  free(heap_stamps_);
  free(lives_);
  free(is_life_new_);
  free(file_stacks_);
  table_.close();
  ranges_.close();
  batch_.close();
}

uint64_t* Process::words_of(uint32_t ring) const {
  return reinterpret_cast<uint64_t*>(reinterpret_cast<char*>(header_) + wire::kDataOffsetBytes +
                                     ring * wire::kRingBytesLargest);
}

// The counter's upper bits, which a record has no room for, are those of the moment in which it is read.
uint64_t Process::stamp_of(uint64_t word, uint64_t last_stamp, const Clock& clock) {
  const uint64_t newest = clock.now_stamp + kStampMask / 4;
  const uint64_t stamp = newest - ((newest - (word >> wire::kStampShift)) & kStampMask);
  return stamp > last_stamp ? stamp : last_stamp;
}

uint64_t Process::next_stamp(uint32_t ring, const Clock& clock) const {
  const uint64_t mask = load_relaxed(rings_[ring].capacity_words) - 1;
  const Reading& reading = readings_[ring];
  return stamp_of(load_relaxed(words_of(ring)[reading.read & mask]), reading.last_stamp, clock);
}

bool Process::close_stamp(const Clock& clock) {
  const bool is_threaded = load_acquire(header_->rings_used) > 1;
  const uint64_t closing = move_on(header_->current_stamp, clock.now_stamp, wire::kStampShift);
  closed_stamp_ = is_threaded ? stamp_of(closing, 0, clock) - 1 : 0;
  return is_threaded;
}

uint64_t Process::look(const Clock& clock, bool is_dead, uint32_t used) {
  uint64_t bound = UINT64_MAX;
  uint32_t stuck = UINT32_MAX;
  for (uint32_t at = 0; at < used; ++at) {
    wire::Ring& ring = rings_[at];
    const uint64_t begun = load_acquire(ring.begun_words);
    const uint64_t written = load_acquire(ring.written_words);
    readings_[at].end = written;
    if (is_dead || used == 1) continue;
    const bool is_busy = begun > written;
    uint64_t ring_bound = closed_stamp_;
    if (is_busy) {
      // The stamp that it has taken is not before its last one.
      ring_bound = readings_[at].last_stamp;
      for (uint64_t read = readings_[at].read; read < written;) {
        const uint64_t mask = load_relaxed(ring.capacity_words) - 1;
        const uint64_t word = load_relaxed(words_of(at)[read & mask]);
        ring_bound = stamp_of(word, ring_bound, clock);
        read += kWords[word & wire::kOperationBits];
      }
    }
    if (ring_bound < bound) {
      bound = ring_bound;
      stuck = is_busy ? at : UINT32_MAX;
    }
  }
  if (stuck == UINT32_MAX) {
    stuck_since_stamp_ = 0;
  } else if (stuck_since_stamp_ == 0) {
    stuck_since_stamp_ = clock.now_stamp;
  } else if (clock.now_stamp - stuck_since_stamp_ > kStuckStamps) {
    return closed_stamp_;
  }
  // A thread may have begun meanwhile.
  if (used == 1 && load_acquire(header_->rings_used) > 1) return 0;
  return bound;
}

uint64_t Process::pass(const Clock& clock, bool is_dead) {
  const uint32_t used = load_acquire(header_->rings_used);
  if (used == 0 || used > wire::kRingCapacity) return 0;
  const uint64_t bound = look(clock, is_dead, used);
  // A heap of rings by their next stamps.
  uint32_t count = 0;
  const auto is_before = [&](uint32_t a, uint32_t b) { return heap_stamps_[a] < heap_stamps_[b]; };
  const auto sink = [&](uint32_t at) {
    for (;;) {
      uint32_t least = at;
      for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; ++child) {
        if (is_before(heap_[child], heap_[least])) least = child;
      }
      if (least == at) return;
      const uint32_t other = heap_[least];
      heap_[least] = heap_[at];
      heap_[at] = other;
      at = least;
    }
  };
  for (uint32_t ring = 0; ring < used; ++ring) {
    if (readings_[ring].read >= readings_[ring].end) {
      finish_ring(ring);
      continue;
    }
    heap_stamps_[ring] = next_stamp(ring, clock);
    if (heap_stamps_[ring] <= bound) heap_[count++] = ring;
  }
  for (uint32_t at = count / 2; at-- > 0;) sink(at);
  uint64_t records = 0;
  while (count > 0 && !is_full()) {
    const uint32_t ring = heap_[0];
    uint64_t until = bound;
    for (uint32_t child = 1; child <= 2 && child < count; ++child) {
      if (heap_stamps_[heap_[child]] < until) until = heap_stamps_[heap_[child]];
    }
    records += read_ring(ring, until, clock);
    const bool has_more = readings_[ring].read < readings_[ring].end;
    if (has_more) heap_stamps_[ring] = next_stamp(ring, clock);
    if (!has_more || heap_stamps_[ring] > bound) heap_[0] = heap_[--count];
    if (count > 0) sink(0);
  }
  apply_chunk();
  for (uint32_t ring = 0; ring < used; ++ring) {
    finish_ring(ring);
  }
  return records;
}

// Reads the records of one ring up to a stamp; stops early when the batch has no room.
uint64_t Process::read_ring(uint32_t number, uint64_t until_stamp, const Clock& clock) {
  Reading& reading = readings_[number];
  const uint64_t mask = load_relaxed(rings_[number].capacity_words) - 1;
  const uint64_t* words = words_of(number);
  uint64_t records = 0;
  uint64_t read = reading.read;
  while (read < reading.end) {
    const uint64_t word = words[read & mask];
    const uint64_t stamp = stamp_of(word, reading.last_stamp, clock);
    if (stamp > until_stamp) break;
    reading.last_stamp = stamp;
    const RecordOperation operation = operation_of(word);
    const uint64_t second = words[(read + 1) & mask];
    if (operation == RecordOperation::kWide) {
      reading.has_wide = true;
      reading.wide_usable_bytes = second;
      reading.wide_requested_bytes = words[(read + 2) & mask];
      read += 3;
      // What it belongs to was written with it, and is not stamped before it.
      continue;
    }
    Incoming& event = chunk_[chunk_count_];
    event.operation = static_cast<uint8_t>(operation);
    event.alignment_bits = static_cast<uint8_t>(word >> wire::kAlignmentShift & 63u);
    event.is_python = (word & wire::kPythonBit) != 0 ? 1 : 0;
    event.ring = number;
    const int64_t since_first = static_cast<int64_t>(stamp - clock.first_stamp);
    event.tick = since_first < 0 ? 0 : static_cast<uint64_t>(static_cast<double>(since_first) * clock.ticks_per_stamp);
    if (kWords[word & wire::kOperationBits] == 3) {
      const uint64_t third = words[(read + 2) & mask];
      event.address = second & kAddressMask;
      event.slack_bytes = second >> wire::kAddressBits;
      event.requested_bytes = third & kRequestedMask;
      event.stack = static_cast<uint32_t>(third >> wire::kRequestedBits);
      if (__builtin_expect(reading.has_wide, 0)) {
        event.requested_bytes = reading.wide_requested_bytes;
        event.slack_bytes = reading.wide_usable_bytes - reading.wide_requested_bytes;
        reading.has_wide = false;
      }
      read += 3;
    } else {
      event.address = second;
      event.stack = 0;
      read += 2;
    }
    table_.prefetch(event.address);
    ++records;
    if (++chunk_count_ == kChunk) {
      apply_chunk();
      if (is_full()) break;
    }
  }
  reading.read = read;
  return records;
}

void Process::finish_ring(uint32_t number) {
  wire::Ring& ring = rings_[number];
  const Reading& reading = readings_[number];
  // In one order with the waiting thread's, which says that it waits and then looks at this.
  if (load_relaxed(ring.read_words) != reading.read) store_sequential(ring.read_words, reading.read);
  if (load_sequential(ring.is_waiting) != 0) {
    store_relaxed(ring.is_waiting, 0u);
    __atomic_fetch_add(&ring.room_sequence, 1u, __ATOMIC_RELEASE);
    syscall(SYS_futex, &ring.room_sequence, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
  }
  if (load_acquire(ring.state) == static_cast<uint32_t>(RingState::kEnded) &&
      load_acquire(ring.written_words) == reading.read) {
    store_release(ring.state, static_cast<uint32_t>(RingState::kFree));
  }
}

void Process::apply_chunk() {
  for (uint32_t at = 0; at < chunk_count_; ++at) apply(chunk_[at]);
  chunk_count_ = 0;
}

void Process::bear(uint8_t operation, const Incoming& event, uint32_t thread) {
  batch_.add(operation, thread, event.tick);
  batch_.add_birth({event.requested_bytes, event.slack_bytes, event.alignment_bits}, event.stack);
  ++events_;
}

void Process::die(uint8_t operation, const Incoming& event, uint32_t thread, bool is_known, const Live& block) {
  batch_.add(operation, thread, event.tick);
  batch_.add_death(is_known ? next_object_ - block.object : 0);
  if (is_known) {
    live_bytes_ -= block.usable_bytes;
  } else {
    ++unknown_deaths_;
  }
  ++events_;
}

// A block at the address of a birth must have died unseen.
void Process::forget(const Incoming& event, uint32_t thread) {
  Live* before = table_.find(event.address);
  if (before == nullptr) return;
  ++inferred_deaths_;
  die(with_flag(Operation::kFree, event), event, thread, true, *before);
  table_.remove(before);
}

uint64_t Process::weight_of(const Incoming& event) const {
  const uint64_t usable_bytes = event.requested_bytes + event.slack_bytes;
  if (sample_every_bytes_ == 0) return usable_bytes;
  // A block of n bytes is sampled with the probability 1 - exp(-n/mean).
  const double requested = event.requested_bytes == 0 ? 1 : static_cast<double>(event.requested_bytes);
  const double probability = -expm1(-requested / static_cast<double>(sample_every_bytes_));
  return static_cast<uint64_t>(static_cast<double>(usable_bytes) / probability);
}

void Process::apply(const Incoming& event) {
  Reading& reading = readings_[event.ring];
  const uint32_t thread = reading.thread;
  last_tick_ = event.tick > last_tick_ ? event.tick : last_tick_;
  const auto keep = [&]() {
    const uint64_t usable_bytes = weight_of(event);
    if (!table_.insert({event.address, next_object_++, usable_bytes})) abort();
    live_bytes_ += usable_bytes;
    if (live_bytes_ > live_bytes_peak_) live_bytes_peak_ = live_bytes_;
  };
  Pending& pending = reading.pending[event.is_python];
  switch (static_cast<RecordOperation>(event.operation)) {
    case RecordOperation::kAllocate:
    case RecordOperation::kAllocateZeroed:
    case RecordOperation::kAllocateAligned: {
      forget(event, thread);
      const auto operation = static_cast<Operation>(event.operation - static_cast<uint8_t>(RecordOperation::kAllocate));
      bear(with_flag(operation, event), event, thread);
      keep();
      return;
    }
    case RecordOperation::kFree: {
      Live* block = table_.find(event.address);
      die(with_flag(Operation::kFree, event), event, thread, block != nullptr, block != nullptr ? *block : Live{});
      if (block != nullptr) table_.remove(block);
      return;
    }
    case RecordOperation::kMoveBegins: {
      Live* block = table_.find(event.address);
      pending = {true, block != nullptr, block != nullptr ? *block : Live{event.address, 0, 0}};
      if (block != nullptr) table_.remove(block);
      return;
    }
    case RecordOperation::kMoved: {
      forget(event, thread);
      const bool in_place = pending.is_valid && pending.block.address == event.address;
      const bool is_known = pending.is_valid && pending.is_known;
      die(with_flag(in_place ? Operation::kReallocateInPlace : Operation::kReallocateMoved, event), event, thread,
          is_known, pending.block);
      batch_.add_birth({event.requested_bytes, event.slack_bytes, event.alignment_bits}, event.stack);
      keep();
      pending.is_valid = false;
      return;
    }
    case RecordOperation::kMoveFailed:
      if (pending.is_valid && pending.is_known && table_.find(pending.block.address) == nullptr) {
        if (!table_.insert(pending.block)) abort();
      }
      pending.is_valid = false;
      return;
    case RecordOperation::kMovedAway:
      die(with_flag(Operation::kFree, event), event, thread, pending.is_valid && pending.is_known, pending.block);
      pending.is_valid = false;
      return;
    case RecordOperation::kMap:
    case RecordOperation::kUnmap: {
      const bool is_map = static_cast<RecordOperation>(event.operation) == RecordOperation::kMap;
      // A mapping that moved counts if its old place did.
      const bool is_move = event.alignment_bits != 0;
      if (is_map && is_move && !reading.cut_mapping) return;
      Incoming part = event;
      part.alignment_bits = 0;
      part.slack_bytes = 0;
      bool has_cut = false;
      ranges_.cut(
          event.address, event.address + event.requested_bytes,
          [&](const Range& range) {
            has_cut = true;
            batch_.add(static_cast<uint8_t>(Operation::kUnmap), thread, event.tick);
            batch_.add_death(next_object_ - range.object);
            ++events_;
          },
          [&](uint64_t left_bytes) {
            part.requested_bytes = left_bytes;
            bear(static_cast<uint8_t>(Operation::kMap), part, thread);
            return next_object_++;
          });
      reading.cut_mapping = !is_map && has_cut;
      if (!is_map) return;
      part.requested_bytes = event.requested_bytes;
      bear(static_cast<uint8_t>(Operation::kMap), part, thread);
      if (!ranges_.insert({event.address, event.address + event.requested_bytes, next_object_++})) abort();
      return;
    }
    case RecordOperation::kThreadStart:
      begin_life(event.ring, static_cast<uint32_t>(event.address), event.tick);
      return;
    case RecordOperation::kMark:
      if (mark_count_ < kMarkCapacity) {
        marks_[mark_count_++] = {event.tick, static_cast<uint32_t>(event.address),
                                 static_cast<uint32_t>(event.address >> 32)};
      }
      return;
    case RecordOperation::kThreadEnd: {
      ThreadLife& life = lives_[reading.life];
      life.end_tick = event.tick;
      life.has_ended = 1;
      memcpy(life.name, rings_[event.ring].name, sizeof life.name);
      is_life_new_[reading.life] = 1;
      batch_.add(static_cast<uint8_t>(Operation::kThreadEnd), thread, event.tick);
      ++events_;
      return;
    }
    default:
      return;
  }
}

void Process::begin_life(uint32_t ring, uint32_t tid, uint64_t tick) {
  if (!open_lives(life_count_ + 1)) abort();
  Reading& reading = readings_[ring];
  reading.thread = reading.life = life_count_;
  ThreadLife& life = lives_[life_count_];
  life = {life_count_, tid, {}, tick, 0, 0, 0};
  memcpy(life.name, rings_[ring].name, sizeof life.name);
  is_life_new_[life_count_++] = 1;
  batch_.add(static_cast<uint8_t>(Operation::kThreadStart), reading.thread, tick);
  ++events_;
}

uint32_t Process::take_marks(NamedMoment* into, uint32_t capacity) {
  const uint32_t count = mark_count_ < capacity ? mark_count_ : capacity;
  memcpy(into, marks_, count * sizeof *into);
  mark_count_ = 0;
  return count;
}

bool Process::open_lives(uint32_t capacity) {
  if (capacity <= life_capacity_) return true;
  const uint32_t wanted = capacity < 64 ? 64 : capacity * 2;
  auto* lives = static_cast<ThreadLife*>(realloc(lives_, wanted * sizeof(ThreadLife)));
  if (lives != nullptr) lives_ = lives;
  auto* news = static_cast<uint8_t*>(realloc(is_life_new_, wanted));
  if (news != nullptr) is_life_new_ = news;
  if (lives == nullptr || news == nullptr) return false;
  life_capacity_ = wanted;
  return true;
}

bool Process::number_stacks(uint32_t first, const uint32_t* numbers, uint32_t count) {
  if (first + count > file_stack_capacity_) {
    const uint32_t capacity = (first + count) * 2;
    auto* more = static_cast<uint32_t*>(realloc(file_stacks_, capacity * sizeof(uint32_t)));
    if (more == nullptr) return false;
    if (file_stacks_ == nullptr) more[0] = 0;  // the empty stack
    file_stacks_ = more;
    file_stack_capacity_ = capacity;
  }
  memcpy(file_stacks_ + first, numbers, count * sizeof(uint32_t));
  file_stack_count_ = first + count;
  return true;
}

void Process::batch_taken() {
  first_object_ += batch_.born();
  batch_.clear();
}

void Process::tell(Totals& totals) const {
  totals = {};
  totals.events = events_;
  totals.births = next_object_;
  totals.unknown_deaths = unknown_deaths_;
  totals.inferred_deaths = inferred_deaths_;
  totals.lost_events = load_relaxed(header_->lost_events);
  totals.live_bytes = live_bytes_;
  totals.live_blocks = table_.count();
  totals.live_bytes_peak = live_bytes_peak_;
  totals.last_tick = last_tick_;
  totals.first_object = first_object_;
  totals.threads = life_count_;
  const uint32_t used = load_acquire(header_->rings_used);
  for (uint32_t at = 0; at < used; ++at) {
    totals.lost_events += load_relaxed(rings_[at].lost_events);
    totals.waited_ns += load_relaxed(rings_[at].waited_ns);
    totals.rings_busy += load_relaxed(rings_[at].written_words) != readings_[at].read ? 1 : 0;
  }
}

uint32_t Process::take_threads(ThreadLife* into, uint32_t capacity) {
  const uint32_t used = load_acquire(header_->rings_used);
  for (uint32_t at = 0; at < used; ++at) {
    if (load_acquire(rings_[at].state) != static_cast<uint32_t>(RingState::kAlive)) continue;
    if (readings_[at].life >= life_count_) continue;
    ThreadLife& life = lives_[readings_[at].life];
    if (life.tid != load_relaxed(rings_[at].tid) || memcmp(life.name, rings_[at].name, sizeof life.name) == 0) continue;
    memcpy(life.name, rings_[at].name, sizeof life.name);
    is_life_new_[readings_[at].life] = 1;
  }
  uint32_t count = 0;
  for (uint32_t at = 0; at < life_count_ && count < capacity; ++at) {
    if (is_life_new_[at] == 0) continue;
    into[count++] = lives_[at];
    is_life_new_[at] = 0;
  }
  return count;
}

}  // namespace hs::drain

// One process image as the recorder sees it: its rings merged by stamp, its blocks paired, its events as a batch.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "drain/batch.h"
#include "drain/ranges.h"
#include "drain/table.h"
#include "wire/recording.h"

namespace hs::drain {

// From the processor's counter to ticks of the trace: a line through the recorder's first look and its last.
struct Clock {
  uint64_t first_stamp;
  uint64_t first_ns;
  double ticks_per_stamp;
  uint64_t now_stamp;
};

struct ThreadLife {
  uint32_t index;
  uint32_t tid;
  char name[16];
  uint64_t start_tick;
  uint64_t end_tick;
  uint32_t has_ended;
  uint32_t padding;
};

struct NamedMoment {
  uint64_t tick;
  uint32_t text_at;
  uint32_t text_bytes;
};

// What is told to the recorder's Python, as ctypes has it.
struct Totals {
  uint64_t events;
  uint64_t births;
  uint64_t unknown_deaths;
  uint64_t inferred_deaths;
  uint64_t lost_events;
  uint64_t waited_ns;
  uint64_t live_bytes;
  uint64_t live_blocks;
  uint64_t live_bytes_peak;
  uint64_t last_tick;
  uint64_t first_object;
  uint32_t threads;
  uint32_t rings_busy;
};

struct Incoming {
  uint64_t tick;
  uint64_t address;
  uint64_t requested_bytes;
  uint64_t slack_bytes;
  uint32_t stack;
  uint32_t ring;
  uint8_t operation;
  uint8_t alignment_bits;
  uint8_t is_python;
};

class Process {
 public:
  // `sample_every_bytes` is 0 where every event is recorded.
  bool open(const char* path, const Clock& clock, uint64_t sample_every_bytes);
  void close();

  // What happens from now on has a later stamp. Answers whether it has several threads: then the next pass has to be kStoreDelay
  // later, when whoever has taken an earlier stamp has written its record, or can be seen to be writing it.
  bool close_stamp(const Clock& clock);
  // Reads what can be ordered; `is_dead` reads everything. Answers how many records that was.
  uint64_t pass(const Clock& clock, bool is_dead);
  bool is_full() const { return batch_.room() < kChunk * 4; }
  Batch& batch() { return batch_; }
  uint64_t first_object() const { return first_object_; }
  void batch_taken();
  void tell(Totals& totals) const;
  // Threads that began, ended or changed their names since the last call.
  uint32_t take_threads(ThreadLife* into, uint32_t capacity);
  uint32_t take_marks(NamedMoment* into, uint32_t capacity);
  const wire::RecordingHeader& header() const { return *header_; }
  // What lies in the file at an offset.
  const void* at(size_t offset_bytes) const { return reinterpret_cast<const char*>(header_) + offset_bytes; }
  // Says what numbers stacks have in the trace file, in the order of their nodes from `first` on.
  bool number_stacks(uint32_t first, const uint32_t* numbers, uint32_t count);
  const uint8_t* encode(size_t& bytes) { return batch_.encode(first_object_, file_stacks_, file_stack_count_, bytes); }

 private:
  static constexpr uint32_t kChunk = 256;

  struct Pending {
    bool is_valid;
    bool is_known;
    Live block;
  };
  struct Reading {
    uint64_t read;
    uint64_t end;
    uint64_t last_tick;
    uint64_t last_stamp;
    uint32_t thread;
    uint32_t life;
    bool has_wide;
    uint64_t wide_usable_bytes;
    uint64_t wide_requested_bytes;
    Pending pending[2];
    bool cut_mapping;
  };

  uint64_t* words_of(uint32_t ring) const;
  // Up to which stamp the records of all rings can be ordered; fills in what each ring has to read.
  uint64_t look(const Clock& clock, bool is_dead, uint32_t used);
  static uint64_t stamp_of(uint64_t word, uint64_t last_stamp, const Clock& clock);
  uint64_t next_stamp(uint32_t ring, const Clock& clock) const;
  uint64_t read_ring(uint32_t ring, uint64_t until_stamp, const Clock& clock);
  void apply_chunk();
  void apply(const Incoming& event);
  void bear(uint8_t operation, const Incoming& event, uint32_t thread);
  void die(uint8_t operation, const Incoming& event, uint32_t thread, bool is_known, const Live& block);
  void forget(const Incoming& event, uint32_t thread);
  void finish_ring(uint32_t ring);
  void begin_life(uint32_t ring, uint32_t tid, uint64_t tick);
  bool open_lives(uint32_t capacity);
  // How many live bytes a birth stands for.
  uint64_t weight_of(const Incoming& event) const;

  wire::RecordingHeader* header_ = nullptr;
  wire::Ring* rings_ = nullptr;
  size_t mapped_bytes_ = 0;
  Reading* readings_ = nullptr;
  uint32_t* heap_ = nullptr;
  uint64_t* heap_stamps_ = nullptr;
  ThreadLife* lives_ = nullptr;
  uint8_t* is_life_new_ = nullptr;
  uint32_t life_count_ = 0;
  uint32_t life_capacity_ = 0;
  uint32_t* file_stacks_ = nullptr;
  uint32_t file_stack_count_ = 0;
  uint32_t file_stack_capacity_ = 0;
  static constexpr uint32_t kMarkCapacity = 256;
  NamedMoment marks_[kMarkCapacity];
  uint32_t mark_count_ = 0;
  LiveTable table_;
  Ranges ranges_;
  Batch batch_;
  Incoming chunk_[kChunk];
  uint32_t chunk_count_ = 0;
  uint64_t next_object_ = 0;
  uint64_t first_object_ = 0;
  uint64_t events_ = 0;
  uint64_t unknown_deaths_ = 0;
  uint64_t inferred_deaths_ = 0;
  uint64_t live_bytes_ = 0;
  uint64_t live_bytes_peak_ = 0;
  uint64_t last_tick_ = 0;
  // No record that is still to be begun has this stamp or an earlier one; 0 where that is not known.
  uint64_t closed_stamp_ = 0;
  uint64_t stuck_since_stamp_ = 0;
  uint64_t sample_every_bytes_ = 0;
};

}  // namespace hs::drain

// Events as columns, and their bytes in a trace file (docs/trace-format.md, "Events").
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::drain {

// As in heapsmith/trace/layout.py; a test compares.
enum class Operation : uint8_t {
  kAllocate = 0,
  kAllocateZeroed = 1,
  kAllocateAligned = 2,
  kFree = 3,
  kReallocateMoved = 4,
  kReallocateInPlace = 5,
  kMap = 6,
  kUnmap = 7,
  kThreadStart = 8,
  kThreadEnd = 9,
};
inline constexpr uint8_t kPythonFlag = 0x40;

struct Shape {
  uint64_t requested_bytes;
  uint64_t slack_bytes;
  uint64_t alignment_bits;
};

// Distinct rows with how often each came, numbered in the order of their first appearance.
struct Ranking {
  struct Row {
    Shape shape;
    uint64_t times;
  };
  Row* rows = nullptr;
  uint32_t* places = nullptr;  // row + 1 by hash; 0 is empty
  uint32_t count = 0;
  uint32_t capacity = 0;
  // The row that a small size had last, by size: most have one.
  static constexpr uint32_t kUsualSizes = 2048;
  uint32_t usual[kUsualSizes] = {};

  bool open();
  void close();
  // Answers the row's number, or UINT32_MAX where there is no memory.
  uint32_t number(const Shape& shape) {
    if (shape.requested_bytes >= kUsualSizes) return find(shape);
    uint32_t& at = usual[shape.requested_bytes];
    if (__builtin_expect(at < count && is_same(rows[at].shape, shape), 1)) {
      ++rows[at].times;
      return at;
    }
    return at = find(shape);
  }
  void clear();
  // `order[number]` is the row's place by falling frequency; `sorted` the rows so ordered.
  void rank(uint32_t* order, uint32_t* sorted) const;

 private:
  static bool is_same(const Shape& one, const Shape& other) {
    return one.requested_bytes == other.requested_bytes && one.slack_bytes == other.slack_bytes &&
           one.alignment_bits == other.alignment_bits;
  }
  uint32_t find(const Shape& shape);
  bool grow();
};

class Batch {
 public:
  static constexpr uint32_t kCapacity = 1u << 18;
  // One unmapping ends at most as many mappings as the kernel allows a process.
  static constexpr uint32_t kReserve = 1u << 17;

  bool open();
  void close();
  uint32_t count() const { return count_; }
  uint32_t born() const { return born_; }
  uint32_t room() const { return count_ < kCapacity ? kCapacity - count_ : 0; }

  void add(uint8_t operation, uint32_t thread, uint64_t tick) {
    if (tick < last_tick_) tick = last_tick_;
    if (count_ == 0) base_tick_ = last_tick_ = tick;
    operations_[count_] = operation;
    threads_[count_] = thread;
    ticks_[count_] = tick - last_tick_;
    last_tick_ = tick;
    ++count_;
  }
  // Of the event just added. Age 0: the object is not known.
  void add_death(uint64_t age) { ages_[died_++] = age; }
  void add_birth(const Shape& shape, uint32_t stack) {
    shape_numbers_[born_] = shapes_.number(shape);
    stacks_[born_] = stack;
    has_stacks_ |= stack;
    ++born_;
  }

  // The payload of an events chunk; valid until the next call. Null where there is no memory.
  // `file_stacks` says what number each of the process's stacks has in the file.
  const uint8_t* encode(uint64_t first_object, const uint32_t* file_stacks, uint32_t file_stack_count, size_t& bytes);
  void clear();

 private:
  template <class Value>
  uint8_t* put_column(uint8_t* to, const Value* values, uint32_t count);

  uint8_t* operations_ = nullptr;
  uint32_t* threads_ = nullptr;
  uint64_t* ticks_ = nullptr;
  uint64_t* ages_ = nullptr;
  uint32_t* shape_numbers_ = nullptr;
  uint32_t* stacks_ = nullptr;
  void* memory_ = nullptr;
  size_t memory_bytes_ = 0;
  uint8_t* payload_ = nullptr;
  size_t payload_capacity_ = 0;
  Ranking shapes_;
  uint64_t base_tick_ = 0;
  uint64_t last_tick_ = 0;
  uint32_t count_ = 0;
  uint32_t born_ = 0;
  uint32_t died_ = 0;
  uint32_t has_stacks_ = 0;
};

}  // namespace hs::drain

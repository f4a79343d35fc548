#include "drain/batch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

namespace hs::drain {

namespace {

struct Header {
  uint64_t base_tick;
  uint64_t first_object;
  uint32_t events;
  uint32_t shapes;
  uint32_t stacks;
  uint32_t flags;
};
static_assert(sizeof(Header) == 32);

constexpr uint8_t kWide16 = 253;
constexpr uint8_t kWide32 = 254;
constexpr uint8_t kWide64 = 255;
constexpr size_t kCountsBytes = 16;

const Ranking* sorted_ranking;

int by_falling_frequency(const void* left, const void* right) {
  const uint32_t a = *static_cast<const uint32_t*>(left);
  const uint32_t b = *static_cast<const uint32_t*>(right);
  const uint64_t a_times = sorted_ranking->rows[a].times;
  const uint64_t b_times = sorted_ranking->rows[b].times;
  if (a_times != b_times) return a_times > b_times ? -1 : 1;
  return a < b ? -1 : 1;
}

uint64_t scatter(const Shape& shape) {
  uint64_t hash = shape.requested_bytes * 0x9E3779B97F4A7C15u;
  hash ^= (shape.slack_bytes << 8 | shape.alignment_bits) * 0xC2B2AE3D27D4EB4Fu;
  return (hash ^ hash >> 29) * 0x9E3779B97F4A7C15u;
}

}  // namespace

bool Ranking::open() {
  count = 0;
  capacity = 1024;
  rows = static_cast<Row*>(malloc(capacity * sizeof(Row)));
  places = static_cast<uint32_t*>(calloc(capacity * 2, sizeof(uint32_t)));
  return rows != nullptr && places != nullptr;
}

void Ranking::close() {
  free(rows);
  free(places);
}

void Ranking::clear() {
  memset(places, 0, capacity * 2 * sizeof(uint32_t));
  count = 0;
}

bool Ranking::grow() {
  auto* more = static_cast<Row*>(realloc(rows, size_t{capacity} * 2 * sizeof(Row)));
  if (more == nullptr) return false;
  rows = more;
  auto* wider = static_cast<uint32_t*>(calloc(size_t{capacity} * 4, sizeof(uint32_t)));
  if (wider == nullptr) return false;
  free(places);
  places = wider;
  capacity *= 2;
  const uint32_t mask = capacity * 2 - 1;
  for (uint32_t row = 0; row < count; ++row) {
    uint64_t at = scatter(rows[row].shape) >> 32 & mask;
    while (places[at] != 0) at = (at + 1) & mask;
    places[at] = row + 1;
  }
  return true;
}

uint32_t Ranking::find(const Shape& shape) {
  const uint32_t mask = capacity * 2 - 1;
  uint64_t at = scatter(shape) >> 32 & mask;
  for (; places[at] != 0; at = (at + 1) & mask) {
    Row& row = rows[places[at] - 1];
    if (is_same(row.shape, shape)) {
      ++row.times;
      return places[at] - 1;
    }
  }
  if (count == capacity) {
    if (!grow()) abort();  // a recorder without a few bytes of memory cannot go on
    return find(shape);
  }
  rows[count] = {shape, 1};
  places[at] = ++count;
  return count - 1;
}

void Ranking::rank(uint32_t* order, uint32_t* sorted) const {
  for (uint32_t row = 0; row < count; ++row) sorted[row] = row;
  sorted_ranking = this;
  qsort(sorted, count, sizeof(uint32_t), by_falling_frequency);
  for (uint32_t place = 0; place < count; ++place) order[sorted[place]] = place;
}

bool Batch::open() {
  constexpr size_t kBytesPerEvent = 1 + 4 + 8 + 8 + 4 + 4;
  constexpr size_t kEvents = kCapacity + kReserve;
  memory_bytes_ = kEvents * kBytesPerEvent;
  memory_ = mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory_ == MAP_FAILED) return false;
  ticks_ = static_cast<uint64_t*>(memory_);
  ages_ = ticks_ + kEvents;
  threads_ = reinterpret_cast<uint32_t*>(ages_ + kEvents);
  shape_numbers_ = threads_ + kEvents;
  stacks_ = shape_numbers_ + kEvents;
  operations_ = reinterpret_cast<uint8_t*>(stacks_ + kEvents);
  return shapes_.open();
}

void Batch::close() {
  if (memory_ != nullptr && memory_ != MAP_FAILED) munmap(memory_, memory_bytes_);
  shapes_.close();
  free(payload_);
}

void Batch::clear() {
  count_ = born_ = died_ = has_stacks_ = 0;
  shapes_.clear();
}

template <class Value>
uint8_t* Batch::put_column(uint8_t* to, const Value* values, uint32_t count) {
  uint32_t counts[4] = {count, 0, 0, 0};
  uint8_t* codes = to + kCountsBytes;
  for (uint32_t at = 0; at < count; ++at) {
    const uint64_t value = values[at];
    if (__builtin_expect(value < kWide16, 1)) {
      codes[at] = static_cast<uint8_t>(value);
      continue;
    }
    const uint32_t width = value <= 0xffff ? 1 : value <= 0xffffffff ? 2 : 3;
    codes[at] = static_cast<uint8_t>(kWide16 + width - 1);
    ++counts[width];
  }
  memcpy(to, counts, sizeof counts);
  uint8_t* wide_16 = codes + count;
  uint8_t* wide_32 = wide_16 + counts[1] * 2;
  uint8_t* wide_64 = wide_32 + counts[2] * 4;
  uint8_t* end = wide_64 + counts[3] * 8;
  if (end == wide_16) return end;
  for (uint32_t at = 0; at < count; ++at) {
    if (__builtin_expect(codes[at] < kWide16, 1)) continue;
    const uint64_t value = values[at];  // little-endian, as the format is
    if (codes[at] == kWide16) {
      memcpy(wide_16, &value, 2);
      wide_16 += 2;
    } else if (codes[at] == kWide32) {
      memcpy(wide_32, &value, 4);
      wide_32 += 4;
    } else {
      static_assert(kWide64 == 255);
      memcpy(wide_64, &value, 8);
      wide_64 += 8;
    }
  }
  return end;
}

const uint8_t* Batch::encode(uint64_t first_object, const uint32_t* file_stacks, uint32_t file_stack_count,
                             size_t& bytes) {
  Ranking stack_ranking;
  if (has_stacks_ != 0) {
    if (!stack_ranking.open()) return nullptr;
    // In place: from here on a column of row numbers.
    for (uint32_t at = 0; at < born_; ++at) {
      const uint32_t stack = stacks_[at] < file_stack_count ? file_stacks[stacks_[at]] : 0;
      stacks_[at] = stack_ranking.number({stack, 0, 0});
    }
  }
  const size_t needed = sizeof(Header) + 10 * kCountsBytes + size_t{count_} * (9 + 5 + 9) + size_t{died_} * 9 +
                        size_t{born_} * 10 + size_t{shapes_.count} * 27 + size_t{stack_ranking.count} * 9;
  if (needed > payload_capacity_) {
    free(payload_);
    payload_ = static_cast<uint8_t*>(malloc(needed));
    payload_capacity_ = payload_ == nullptr ? 0 : needed;
  }
  const uint32_t most_rows = shapes_.count > stack_ranking.count ? shapes_.count : stack_ranking.count;
  auto* order = static_cast<uint32_t*>(malloc((size_t{most_rows} + 1) * 2 * sizeof(uint32_t)));
  auto* values = static_cast<uint64_t*>(malloc((size_t{most_rows} + 1) * sizeof(uint64_t)));
  uint8_t* to = payload_;
  if (payload_ != nullptr && order != nullptr && values != nullptr) {
    uint32_t* sorted = order + most_rows;
    const Header header = {base_tick_, first_object, count_, shapes_.count, stack_ranking.count, 0};
    memcpy(to, &header, sizeof header);
    to += sizeof header;
    to = put_column(to, operations_, count_);
    to = put_column(to, threads_, count_);
    to = put_column(to, ticks_, count_);
    to = put_column(to, ages_, died_);
    shapes_.rank(order, sorted);
    for (uint32_t at = 0; at < born_; ++at) shape_numbers_[at] = order[shape_numbers_[at]];
    to = put_column(to, shape_numbers_, born_);
    for (uint32_t at = 0; at < shapes_.count; ++at) values[at] = shapes_.rows[sorted[at]].shape.requested_bytes;
    to = put_column(to, values, shapes_.count);
    for (uint32_t at = 0; at < shapes_.count; ++at) values[at] = shapes_.rows[sorted[at]].shape.slack_bytes;
    to = put_column(to, values, shapes_.count);
    for (uint32_t at = 0; at < shapes_.count; ++at) values[at] = shapes_.rows[sorted[at]].shape.alignment_bits;
    to = put_column(to, values, shapes_.count);
    if (has_stacks_ != 0) {
      stack_ranking.rank(order, sorted);
      for (uint32_t at = 0; at < born_; ++at) stacks_[at] = order[stacks_[at]];
      for (uint32_t at = 0; at < stack_ranking.count; ++at) {
        values[at] = stack_ranking.rows[sorted[at]].shape.requested_bytes;
      }
    }
    to = put_column(to, stacks_, has_stacks_ != 0 ? born_ : 0);
    to = put_column(to, values, stack_ranking.count);
  }
  stack_ranking.close();
  free(order);
  free(values);
  bytes = static_cast<size_t>(to - payload_);
  return bytes == 0 ? nullptr : payload_;
}

}  // namespace hs::drain

#include "record/sampled.h"

#include <string.h>

#include "base/stamp.h"
#include "os/shared_memory.h"
#include "record/recording.h"

namespace hs::record {

uint16_t sampled_pages[kFilterPages];

namespace {

// The set: blocks by address, in buckets of a cache line.
constexpr uint32_t kWays = 8;
constexpr uint32_t kBucketBits = 15;
struct Bucket {
  uint64_t blocks[kWays];
};
Bucket* buckets = nullptr;

Bucket* bucket_of(const void* block) {
  Bucket* all = load_acquire(buckets);
  if (HS_UNLIKELY(all == nullptr)) {
    auto* fresh = static_cast<Bucket*>(map_own(sizeof(Bucket) << kBucketBits));
    if (fresh == nullptr) return nullptr;
    if (__atomic_compare_exchange_n(&buckets, &all, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      all = fresh;
    } else {
      unmap_own(fresh, sizeof(Bucket) << kBucketBits);
    }
  }
  return &all[(reinterpret_cast<uintptr_t>(block) >> 4) * 0x9E3779B97F4A7C15u >> (64 - kBucketBits)];
}

// Natural logarithm of what lies in (0, 1), without the mathematics library: exact to nine digits.
double logarithm(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  const auto exponent = static_cast<int64_t>(bits >> 52 & 0x7ff) - 1023;
  bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
  double mantissa;
  memcpy(&mantissa, &bits, sizeof mantissa);
  const double s = (mantissa - 1) / (mantissa + 1);
  const double square = s * s;
  double sum = 0;
  for (int term = 15; term >= 1; term -= 2) sum = sum * square + 1.0 / term;
  return static_cast<double>(exponent) * 0.693147180559945309 + 2 * s * sum;
}

}  // namespace

bool draw(Countdown& countdown, size_t requested_bytes, uint64_t mean_bytes) {
  const auto distance = [&] {
    uint64_t& random = countdown.random;
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    const double uniform = (static_cast<double>(random >> 11) + 0.5) * 0x1p-53;
    return static_cast<int64_t>(-logarithm(uniform) * static_cast<double>(mean_bytes)) + 1;
  };
  if (HS_UNLIKELY(countdown.random == 0)) {
    countdown.random = (read_stamp() ^ reinterpret_cast<uintptr_t>(&countdown)) * 0x9E3779B97F4A7C15u | 1;
    countdown.left_bytes = distance() - static_cast<int64_t>(requested_bytes);
    if (countdown.left_bytes >= 0) return false;
  }
  // However many samples fall into the block, behind it the distance to the next is as from anywhere.
  countdown.left_bytes = distance();
  return true;
}

bool remember_sampled(const void* block) {
  Bucket* bucket = bucket_of(block);
  if (bucket == nullptr) return false;
  const auto address = reinterpret_cast<uint64_t>(block);
  for (uint64_t& place : bucket->blocks) {
    uint64_t empty = 0;
    if (load_relaxed(place) == 0 && compare_exchange_acquire(place, empty, address)) {
      fetch_add_relaxed(page_of(block), 1);
      return true;
    }
  }
  return false;
}

bool forget_sampled(const void* block) {
  Bucket* bucket = bucket_of(block);
  if (bucket == nullptr) return false;
  for (uint64_t& place : bucket->blocks) {
    uint64_t address = reinterpret_cast<uint64_t>(block);
    if (load_relaxed(place) == address && compare_exchange_acquire(place, address, uint64_t{0})) {
      fetch_add_relaxed(page_of(block), -1);
      return true;
    }
  }
  return false;
}

void sampled_fork_child() {
  if (buckets == nullptr) return;
  unmap_own(buckets, sizeof(Bucket) << kBucketBits);
  buckets = nullptr;
  memset(sampled_pages, 0, sizeof sampled_pages);
}

}  // namespace hs::record

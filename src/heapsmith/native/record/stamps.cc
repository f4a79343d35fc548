#include "record/stamps.h"

#include "base/stamp.h"

namespace hs::record {

uint32_t is_threaded = 0;
HS_BULK uint64_t notes[size_t{1} << kPlaceBits];

void become_threaded() {
  if (load_relaxed(is_threaded) != 0) return;
  exchange_relaxed(is_threaded, 1u);
  // Whoever has not seen that has read the counter by then.
  const uint64_t now = read_stamp();
  while (read_stamp() - now < kStoreDelay) {
  }
}

void look_at_counter(Stamping& stamping) {
  const uint64_t now = read_stamp();
  const uint64_t passed = now - stamping.looked_at;
  stamping.looked_at = now;
  if (passed >= kFastStamps * stamping.of_one_stamp) {
    stamping.of_one_stamp = (stamping.of_one_stamp + 1) / 2;
  } else if (stamping.of_one_stamp < kMostOfOneStamp) {
    stamping.of_one_stamp *= 2;
  }
  stamping.left = stamping.of_one_stamp - 1;
  if (load_relaxed(is_threaded) == 0) return;
  const auto age = static_cast<int64_t>((now << wire::kStampShift) - load_relaxed(*stamping.current));
  if (age >= static_cast<int64_t>(kStampLasts << wire::kStampShift)) {
    move_on(*stamping.current, now, wire::kStampShift);
  }
}

uint64_t move_stamp_noting(uint64_t& current, uint64_t& place, uint64_t who) {
  const uint64_t stamp = move_on(current, read_stamp(), wire::kStampShift);
  store_relaxed(place, who | (stamp & kChangesMask));
  return stamp;
}

uint64_t stamp_anew(Stamping& stamping, uint32_t ring, uint64_t address) {
  const uint64_t stamp = move_on(*stamping.current, read_stamp(), wire::kStampShift);
  if (load_relaxed(is_threaded) != 0) {
    const uint64_t mixed = mix(address);
    store_relaxed(notes[mixed >> kRestBits], who_of(mixed, ring) | (stamp & kChangesMask));
  }
  return stamp & ~kChangesMask;
}

}  // namespace hs::record

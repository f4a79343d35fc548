// A number that nobody outside of the process can guess; the same for as long as the process lives.
#pragma once

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "os/system_call.h"

namespace hs {

namespace detail {
inline uint64_t secret;

HS_SLOW_PATH inline uint64_t make_secret() {
  uint64_t made = 0;
  if (system_call(SYS_getrandom, static_cast<long>(address_of(&made)), sizeof made, 1 /* GRND_NONBLOCK */) !=
      sizeof made)
    made = address_of(&made) * 0x9E3779B97F4A7C15u;  // before the kernel has entropy: where our stack is
  made |= uint64_t{1} << 63;                         // never 0, which is "not made yet"
  uint64_t none = 0;
  return compare_exchange_acquire(secret, none, made) ? made : none;
}
}  // namespace detail

HS_FAST_PATH uint64_t process_secret() {
  const uint64_t made = load_relaxed(detail::secret);
  return HS_LIKELY(made != 0) ? made : detail::make_secret();
}

// Cheap and without a promise of quality: mixes one number.
constexpr uint64_t mixed(uint64_t value) {
  value ^= value >> 32;
  value *= 0xD6E8FEB86659FD93u;
  value ^= value >> 32;
  value *= 0xD6E8FEB86659FD93u;
  return value ^ (value >> 32);
}

}  // namespace hs

// Arithmetic on sizes and addresses; everything is constexpr so that tables and checks cost nothing at run
// time.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs {

inline constexpr size_t operator""_KiB(unsigned long long count) { return count << 10; }
inline constexpr size_t operator""_MiB(unsigned long long count) { return count << 20; }
inline constexpr size_t operator""_GiB(unsigned long long count) { return count << 30; }

constexpr bool is_power_of_two(size_t value) { return value != 0 && (value & (value - 1)) == 0; }
constexpr size_t round_up(size_t value, size_t power_of_two) {
  return (value + power_of_two - 1) & ~(power_of_two - 1);
}
constexpr size_t round_down(size_t value, size_t power_of_two) { return value & ~(power_of_two - 1); }
constexpr size_t divide_up(size_t value, size_t by) { return (value + by - 1) / by; }
constexpr unsigned log2_floor(size_t value) { return 63 - static_cast<unsigned>(__builtin_clzll(value)); }
constexpr size_t greatest_common_divisor(size_t a, size_t b) { return b == 0 ? a : greatest_common_divisor(b, a % b); }
constexpr size_t smaller_of(size_t a, size_t b) { return a < b ? a : b; }
constexpr size_t larger_of(size_t a, size_t b) { return a > b ? a : b; }

inline uintptr_t address_of(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }
template <class T = void>
inline T* pointer_to(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace hs

// What the compiler is told that the language cannot say.
#pragma once

#define HS_EXPORT __attribute__((visibility("default")))
// What programs call most begins at a line of the instruction cache, wherever other code ends.
#define HS_HOT_EXPORT HS_EXPORT __attribute__((aligned(64)))
// For what is large and hardly touched: with pages of its own it lies apart (the linker sorts by alignment), and what is
// small, and touched by every program, lies together on few.
#define HS_BULK alignas(4096)
#define HS_FAST_PATH inline __attribute__((always_inline))
#define HS_SLOW_PATH __attribute__((noinline, cold))
#define HS_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define HS_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

namespace hs {

// The line that an address lies in, to be written soon.
HS_FAST_PATH void prefetch_for_writing(const void* address) {
#if defined(__x86_64__)
  __asm__ volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address)));
#else
  __builtin_prefetch(address, 1);
#endif
}

}  // namespace hs

// What the compiler is told that the language cannot say.
#pragma once

#define HS_EXPORT __attribute__((visibility("default")))
#define HS_FAST_PATH inline __attribute__((always_inline))
#define HS_SLOW_PATH __attribute__((noinline, cold))
#define HS_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define HS_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

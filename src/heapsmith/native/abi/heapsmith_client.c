/* Compile this file into a program or library to call heapsmith.h whether or not heapsmith is there: where it
 * is not loaded, every call answers HS_UNSUPPORTED. The names are hidden in the object that holds them, so
 * that two libraries may each have their own. Link with -ldl where the C library still wants it. */
#define HEAPSMITH_CLIENT 1
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dlfcn.h>

#include "heapsmith.h"

/* Looked up once, before main: afterwards the calls are safe wherever the real ones are. */
#define HS_FUNCTIONS(F)                                                                              \
  F(stats_get, (hs_stats_t * a, unsigned b), (a, b))                                                 \
  F(peak_reset, (hs_peak_t * a), (a))                                                                \
  F(peak_read, (const hs_peak_t* a, uint64_t* b, uint64_t* c), (a, b, c))                            \
  F(peak_end, (const hs_peak_t* a, uint64_t* b, uint64_t* c), (a, b, c))                             \
  F(limit_set, (uint64_t a, unsigned b), (a, b))                                                     \
  F(watch, (uint64_t a, uint64_t b, hs_crossing_fn c, void* d, uint32_t* e), (a, b, c, d, e))        \
  F(watch_wait, (uint32_t a, uint64_t b, hs_crossing_t* c), (a, b, c))                               \
  F(watch_end, (uint32_t a), (a))                                                                    \
  F(on_failure, (hs_failure_fn a, void* b), (a, b))                                                  \
  F(recycle, (void), ())                                                                             \
  F(pool_register, (const char* a, unsigned b, hs_pool_fn c, void* d, uint32_t* e), (a, b, c, d, e)) \
  F(pool_set, (uint32_t a, uint64_t b), (a, b))                                                      \
  F(pool_end, (uint32_t a), (a))

#define HS_STUB(name, parameters, arguments) \
  static int(*found_##name) parameters;      \
  int hs_##name parameters { return found_##name ? found_##name arguments : (int)HS_UNSUPPORTED; }
HS_FUNCTIONS(HS_STUB)

#define HS_FIND(name, parameters, arguments) *(void**)&found_##name = dlsym(RTLD_DEFAULT, "hs_" #name);

__attribute__((constructor(101))) static void find_heapsmith(void) { HS_FUNCTIONS(HS_FIND) }

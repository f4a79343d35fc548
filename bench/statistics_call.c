/* What one question about the heap costs, ns: medians of rounds that ask all ways in turn.
 *
 *   cc -O2 -I src/heapsmith/native/abi bench/statistics_call.c src/heapsmith/native/abi/heapsmith_client.c -o ask -pthread
 *   heapsmith run -- ./ask THREADS BLOCKS
 *
 * Also with LD_PRELOAD=libjemalloc.so.2 or libtcmalloc_minimal.so.4 in front, for their own ways of asking. */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "heapsmith.h"

enum { kRounds = 201, kAsks = 200 };

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static volatile uint64_t sink;
static hs_stats_t stats;
static void ask_fast(void) { hs_stats_get(&stats, HS_FAST), sink += stats.current_bytes; }
static void ask_exact(void) { hs_stats_get(&stats, HS_EXACT), sink += stats.current_bytes; }
static struct mallinfo2 (*glibc)(void);
static void ask_glibc(void) { sink += glibc().uordblks; }
static int (*jemalloc)(const char*, void*, size_t*, void*, size_t);
static void ask_jemalloc(void) {
  uint64_t epoch = 1;
  size_t value = 0, bytes = sizeof value;
  jemalloc("epoch", &epoch, &bytes, &epoch, sizeof epoch);
  jemalloc("stats.allocated", &value, &bytes, NULL, 0);
  sink += value;
}
static int (*tcmalloc)(const char*, size_t*);
static void ask_tcmalloc(void) {
  size_t value = 0;
  tcmalloc("generic.current_allocated_bytes", &value);
  sink += value;
}

static pthread_barrier_t meeting;
static void* sit(void* unused) {
  void* volatile block = malloc(1000);
  pthread_barrier_wait(&meeting);
  pthread_barrier_wait(&meeting);
  free(block);
  return unused;
}

static int compare(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int count, char** words) {
  const int threads = count > 1 ? atoi(words[1]) : 0;
  const int blocks = count > 2 ? atoi(words[2]) : 0;
  pthread_t all[256];
  stats = hs_stats_init();
  pthread_barrier_init(&meeting, NULL, (unsigned)threads + 1);
  for (int i = 0; i < threads; ++i) pthread_create(&all[i], NULL, sit, NULL);
  pthread_barrier_wait(&meeting);
  void** kept = malloc(sizeof(void*) * (size_t)(blocks + 1));
  for (int i = 0; i < blocks; ++i) kept[i] = malloc(1000);
  for (int i = 0; i < blocks; i += 2) free(kept[i]);
  *(void**)&glibc = dlsym(dlopen("libc.so.6", RTLD_LAZY), "mallinfo2");
  *(void**)&jemalloc = dlsym(RTLD_DEFAULT, "mallctl");
  *(void**)&tcmalloc = dlsym(RTLD_DEFAULT, "MallocExtension_GetNumericProperty");
  struct {
    const char* name;
    void (*ask)(void);
    int asks;
    double ns[kRounds];
  } ways[] = {{"hs_stats_get FAST", ask_fast, kAsks, {0}},
              {"hs_stats_get EXACT", ask_exact, 2, {0}},
              {"mallinfo2", jemalloc || tcmalloc ? NULL : ask_glibc, 2, {0}},
              {"mallctl epoch + stats.allocated", jemalloc ? ask_jemalloc : NULL, 2, {0}},
              {"generic.current_allocated_bytes", tcmalloc ? ask_tcmalloc : NULL, 20, {0}}};
  for (int round = 0; round < kRounds; ++round) {
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; ++way) {
      if (ways[way].ask == NULL) continue;
      const double begin = now_ns();
      for (int i = 0; i < ways[way].asks; ++i) ways[way].ask();
      ways[way].ns[round] = (now_ns() - begin) / ways[way].asks;
    }
  }
  double fast = 0;
  for (size_t way = 0; way < sizeof ways / sizeof ways[0]; ++way) {
    if (ways[way].ask == NULL) continue;
    qsort(ways[way].ns, kRounds, sizeof(double), compare);
    const double median = ways[way].ns[kRounds / 2];
    if (way == 0) fast = median;
    printf("%-34s %10.1f ns  (%.1f to %.1f)  %8.1f x FAST\n", ways[way].name, median, ways[way].ns[kRounds / 20],
           ways[way].ns[kRounds - kRounds / 20], median / fast);
  }
  pthread_barrier_wait(&meeting);
  for (int i = 0; i < threads; ++i) pthread_join(all[i], NULL);
  return 0;
}

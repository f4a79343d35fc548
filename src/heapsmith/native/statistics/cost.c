/* What one question about the heap costs, on whatever allocator answers malloc: `heapsmith bench stats` runs it.
 *
 *   heapsmith_statistics_cost THREADS BLOCKS    one line for each way of asking: name, tab, nanoseconds
 *   heapsmith_statistics_cost hold THREADS      says "ready" and stays, until standard input ends
 *
 * Medians of rounds in which all ways take their turn; every second of the blocks is free. */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "abi/heapsmith.h"

enum { kRounds = 61, kAsks = 200, kMostThreads = 256 };

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

static pthread_t sitting[kMostThreads];

static void seat(int threads) {
  pthread_barrier_init(&meeting, NULL, (unsigned)threads + 1);
  for (int i = 0; i < threads; ++i) pthread_create(&sitting[i], NULL, sit, NULL);
  pthread_barrier_wait(&meeting);
}

static void rise(int threads) {
  pthread_barrier_wait(&meeting);
  for (int i = 0; i < threads; ++i) pthread_join(sitting[i], NULL);
}

struct way {
  const char* name;
  void (*ask)(void);
  int asks;
  double ns[kRounds];
};

static void measure(struct way* ways, size_t count) {
  for (int round = 0; round < kRounds; ++round) {
    for (size_t way = 0; way < count; ++way) {
      if (ways[way].ask == NULL) continue;
      const double begin = now_ns();
      for (int i = 0; i < ways[way].asks; ++i) ways[way].ask();
      ways[way].ns[round] = (now_ns() - begin) / ways[way].asks;
    }
  }
}

static int read_threads(const char* word) {
  const int threads = atoi(word);
  return threads < 0 ? 0 : threads > kMostThreads ? kMostThreads : threads;
}

int main(int count, char** words) {
  if (count > 2 && strcmp(words[1], "hold") == 0) {
    const int threads = read_threads(words[2]);
    seat(threads);
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) continue;
    rise(threads);
    return 0;
  }
  const int threads = read_threads(count > 1 ? words[1] : "0");
  const int blocks = count > 2 ? atoi(words[2]) : 0;
  seat(threads);
  void** kept = malloc(sizeof(void*) * (size_t)(blocks + 1));
  if (kept == NULL) return 1;
  for (int i = 0; i < blocks; ++i) kept[i] = malloc(1000);
  for (int i = 0; i < blocks; i += 2) free(kept[i]);
  stats = hs_stats_init();
  *(void**)&glibc = dlsym(dlopen("libc.so.6", RTLD_LAZY), "mallinfo2");
  *(void**)&jemalloc = dlsym(RTLD_DEFAULT, "mallctl");
  *(void**)&tcmalloc = dlsym(RTLD_DEFAULT, "MallocExtension_GetNumericProperty");
  const int is_watched = hs_stats_get(&stats, HS_FAST) == HS_OK;
  hs_stats_get(&stats, HS_EXACT);
  const int is_glibc = strcmp(stats.allocator, "glibc") == 0 && glibc != NULL;
  struct way ways[] = {{"FAST", is_watched ? ask_fast : NULL, kAsks, {0}},
                       {"EXACT", is_watched ? ask_exact : NULL, 2, {0}},
                       {"mallinfo2", is_glibc ? ask_glibc : NULL, 2, {0}},
                       {"epoch, stats.allocated", jemalloc ? ask_jemalloc : NULL, 2, {0}},
                       {"generic.current_allocated_bytes", tcmalloc ? ask_tcmalloc : NULL, 20, {0}}};
  const size_t all = sizeof ways / sizeof ways[0];
  measure(ways, all);
  for (size_t way = 0; way < all; ++way) {
    if (ways[way].ask == NULL) continue;
    qsort(ways[way].ns, kRounds, sizeof(double), compare);
    printf("%s\t%.2f\n", ways[way].name, ways[way].ns[kRounds / 2]);
  }
  for (int i = 1; i < blocks; i += 2) free(kept[i]);
  free(kept);
  rise(threads);
  return 0;
}

/* Every call of heapsmith.h, used as a program would; says on the first line that does not hold, and why. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heapsmith.h"

#define MUST(condition)                                                     \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "line %d does not hold: %s\n", __LINE__, #condition); \
      exit(1);                                                              \
    }                                                                       \
  } while (0)

enum { MIB = 1 << 20 };

static hs_stats_t look(unsigned flags) {
  hs_stats_t stats = HS_STATS_INIT;
  MUST(hs_stats_get(&stats, flags) == HS_OK);
  return stats;
}

static volatile int told_failures;
static size_t told_bytes;
static int told_refused;
static void note_failure(size_t bytes, int refused, void* argument) {
  free(malloc(100)); /* it may allocate */
  ++*(volatile int*)argument;
  told_bytes = bytes;
  told_refused = refused;
}

static volatile int crossings;
static pthread_t crossing_thread;
static void note_crossing(const hs_crossing_t* crossing, void* argument) {
  (void)argument;
  crossing_thread = pthread_self();
  free(malloc(100));
  __atomic_fetch_add(&crossings, (int)crossing->count, __ATOMIC_SEQ_CST);
}
static void wait_for_crossings(int wanted) {
  for (int i = 0; i < 400 && __atomic_load_n(&crossings, __ATOMIC_SEQ_CST) < wanted; ++i) usleep(5000);
}

static void* sleep_on_a_block(void* argument) {
  void* block = malloc(8 * MIB);
  pthread_barrier_wait(argument); /* allocated */
  pthread_barrier_wait(argument); /* looked at */
  free(block);
  return NULL;
}

static volatile sig_atomic_t seen_in_handler;
static void in_handler(int number) {
  hs_stats_t stats = HS_STATS_INIT;
  (void)number;
  if (hs_stats_get(&stats, HS_FAST) == HS_OK && (stats.valid & HS_F_CURRENT)) seen_in_handler = 1;
}

static void numbers(void) {
  const hs_stats_t before = look(HS_EXACT);
  MUST(before.version == HS_STATS_VERSION && before.count_unit == HS_UNIT_USABLE && before.mode == HS_MODE_WATCHED);
  MUST(before.valid & HS_F_CURRENT && before.valid & HS_F_PEAK && before.valid & HS_F_LIMIT);
  char* block = malloc(10 * MIB);
  MUST(block);
  const hs_stats_t with = look(HS_EXACT);
  MUST(with.current_bytes >= before.current_bytes + 10 * MIB && with.current_bytes < before.current_bytes + 11 * MIB);
  MUST(with.peak_bytes >= with.current_bytes && with.limit_bytes >= with.current_bytes);
  MUST(with.live_blocks == before.live_blocks + 1 && with.allocations == before.allocations + 1);
  MUST(with.sequence > before.sequence && with.time_ns >= before.time_ns);
  const hs_stats_t fast = look(HS_FAST);
  MUST(fast.current_bytes == with.current_bytes && fast.error_bound_bytes == 0 && fast.exact & HS_F_CURRENT);
  MUST(fast.valid & HS_F_LIMIT && fast.limit_bytes == with.limit_bytes);
  free(block);
  const hs_stats_t after = look(HS_EXACT);
  MUST(after.current_bytes == before.current_bytes && after.peak_bytes >= with.current_bytes);
  MUST(look(HS_EXACT | HS_RAW_LIMIT).limit_bytes > 0);
}

static void bad_arguments(void) {
  hs_stats_t stats = HS_STATS_INIT;
  uint32_t watch = 0;
  MUST(hs_stats_get(NULL, HS_FAST) == HS_INVALID_PARAMETER);
  MUST(hs_stats_get(&stats, 1u << 20) == HS_INVALID_PARAMETER);
  stats.size = 4;
  MUST(hs_stats_get(&stats, HS_FAST) == HS_INVALID_PARAMETER);
  MUST(hs_peak_reset(NULL) == HS_INVALID_PARAMETER);
  MUST(hs_watch(0, 0, NULL, NULL, &watch) == HS_INVALID_PARAMETER);
  MUST(hs_watch(1, 0, NULL, NULL, NULL) == HS_INVALID_PARAMETER);
  MUST(hs_watch_end(77777) == HS_INVALID_PARAMETER);
  MUST(hs_limit_set(1, 128) == HS_INVALID_PARAMETER);
  MUST(hs_pool_register(NULL, 0, NULL, NULL, &watch) == HS_INVALID_PARAMETER);
  MUST(hs_pool_set(77777, 1) == HS_INVALID_PARAMETER);
}

/* A caller built against a shorter structure gets what it knows, and nothing beyond it is touched. */
static void older_caller(void) {
  union {
    hs_stats_t stats;
    unsigned char bytes[sizeof(hs_stats_t)];
  } old;
  const size_t size = offsetof(hs_stats_t, available_bytes);
  memset(&old, 0xA5, sizeof old);
  old.stats.size = (uint32_t)size;
  MUST(hs_stats_get(&old.stats, HS_EXACT) == HS_OK);
  MUST(old.stats.size == size && old.stats.current_bytes > 0);
  for (size_t at = size; at < sizeof old; ++at) MUST(old.bytes[at] == 0xA5);
}

static void scopes(void) {
  hs_peak_t outer, inner;
  uint64_t outer_bytes = 0, inner_bytes = 0, bound = 0;
  void* high = malloc(64 * MIB); /* the peak of the process is above all that follows */
  free(high);
  const uint64_t base = look(HS_EXACT).current_bytes;
  MUST(hs_peak_reset(&outer) == HS_OK);
  void* first = malloc(10 * MIB);
  free(first);
  MUST(hs_peak_reset(&inner) == HS_OK);
  void* second = malloc(5 * MIB);
  free(second);
  MUST(hs_peak_read(&inner, &inner_bytes, &bound) == HS_OK);
  MUST(inner_bytes >= base + 5 * MIB && inner_bytes < base + 6 * MIB && bound == 0);
  MUST(hs_peak_end(&inner, &inner_bytes, NULL) == HS_OK);
  MUST(hs_peak_end(&outer, &outer_bytes, NULL) == HS_OK);
  MUST(outer_bytes >= base + 10 * MIB && outer_bytes < base + 11 * MIB);
  MUST(hs_peak_end(&outer, &outer_bytes, NULL) == HS_INVALID_PARAMETER);
  MUST(look(HS_EXACT).peak_bytes >= base + 64 * MIB);
  /* small blocks, which take the way without a look */
  MUST(hs_peak_reset(&outer) == HS_OK);
  static void* many[1000];
  for (int i = 0; i < 1000; ++i) many[i] = malloc(1000);
  for (int i = 0; i < 1000; ++i) free(many[i]);
  MUST(hs_peak_end(&outer, &outer_bytes, &bound) == HS_OK);
  MUST(outer_bytes >= base + 1000000 && outer_bytes < base + 1100000 && bound == 0);
  hs_peak_t all[65];
  for (int i = 0; i < 64; ++i) MUST(hs_peak_reset(&all[i]) == HS_OK);
  MUST(hs_peak_reset(&all[64]) == HS_OUT_OF_MEMORY);
  for (int i = 0; i < 64; ++i) MUST(hs_peak_end(&all[i], NULL, NULL) == HS_OK);
}

static void limits(void) {
  const uint64_t current = look(HS_EXACT).current_bytes;
  int failures = 0;
  MUST(hs_limit_set(1, 0) == HS_FAILURE);
  MUST(look(HS_FAST).limit_source != HS_SOURCE_CAP);
  MUST(hs_limit_set(current + 10 * MIB, 0) == HS_OK);
  hs_stats_t stats = look(HS_EXACT);
  MUST(stats.limit_source == HS_SOURCE_CAP && stats.limit_effect == HS_EFFECT_NULL);
  MUST(stats.limit_bytes == current + 10 * MIB && stats.exact & HS_F_LIMIT && stats.available_bytes <= 10 * MIB);
  MUST(hs_on_failure(note_failure, &failures) == HS_OK);
  errno = 0;
  MUST(malloc(20 * MIB) == NULL && errno == ENOMEM);
  MUST(failures == 1 && told_bytes == 20 * MIB && told_refused == 1);
  void* block = malloc(8 * MIB);
  MUST(block && realloc(block, 20 * MIB) == NULL && failures == 2);
  MUST(look(HS_FAST).available_bytes < 2 * MIB + 65536);
  free(block);
  MUST(hs_on_failure(NULL, NULL) == HS_OK);
  MUST(malloc(20 * MIB) == NULL && failures == 2);
  stats = look(HS_FAST);
  MUST(stats.failures == 3 && stats.last_failed_bytes == 20 * MIB);
  /* 99 % of what is said to be there is there, in one block; the whole of what is not is not */
  stats = look(HS_EXACT);
  MUST(stats.valid & HS_F_LARGEST_BLOCK);
  block = malloc((size_t)stats.largest_block_bytes);
  MUST(block && malloc((size_t)stats.largest_block_bytes) == NULL);
  free(block);
  MUST(hs_limit_set(1, HS_LIMIT_FORCE) == HS_OK);
  MUST(malloc(100) == NULL);
  MUST(hs_limit_set(0, 0) == HS_OK);
  block = malloc(20 * MIB);
  MUST(block);
  free(block);
  /* what the allocator itself cannot give is told as well */
  MUST(hs_on_failure(note_failure, &failures) == HS_OK);
  MUST(malloc((size_t)1 << 60) == NULL && failures == 3 && told_refused == 0);
  MUST(hs_on_failure(NULL, NULL) == HS_OK);
}

static void watches(void) {
  uint32_t watch = 0, quiet = 0;
  hs_crossing_t crossing;
  const uint64_t base = look(HS_EXACT).current_bytes;
  MUST(hs_watch(base + 4 * MIB, 2 * MIB, note_crossing, NULL, &watch) == HS_OK);
  MUST(hs_watch(base + 4 * MIB, 2 * MIB, NULL, NULL, &quiet) == HS_OK);
  MUST(hs_watch_wait(quiet, 1000000, &crossing) == HS_FAILURE);
  char* block = malloc(5 * MIB);
  wait_for_crossings(1);
  MUST(crossings == 1 && !pthread_equal(crossing_thread, pthread_self()));
  MUST(hs_watch_wait(quiet, 1000000, &crossing) == HS_OK);
  MUST(crossing.count == 1 && crossing.threshold_bytes == base + 4 * MIB && crossing.current_bytes > base + 5 * MIB);
  block = realloc(block, 3 * MIB); /* within the hysteresis: the next is not a new crossing */
  block = realloc(block, 5 * MIB);
  usleep(20000);
  MUST(crossings == 1);
  block = realloc(block, 1 * MIB);
  block = realloc(block, 5 * MIB);
  wait_for_crossings(2);
  MUST(crossings == 2);
  MUST(hs_watch_end(watch) == HS_OK && hs_watch_end(watch) == HS_INVALID_PARAMETER);
  block = realloc(block, 1 * MIB);
  block = realloc(block, 5 * MIB);
  usleep(20000);
  MUST(crossings == 2);
  MUST(hs_watch_end(quiet) == HS_OK && hs_watch_wait(quiet, 0, &crossing) == HS_INVALID_PARAMETER);
  free(block);
}

static uint64_t pool_says(void* argument) { return *(uint64_t*)argument; }

static void pools(void) {
  uint32_t pushed = 0, asked = 0, own = 0;
  uint64_t bytes = 777;
  MUST(!(look(HS_EXACT).valid & HS_F_POOLS));
  MUST(hs_pool_register("device", 0, NULL, NULL, &pushed) == HS_OK);
  MUST(hs_pool_register("arena", 0, pool_says, &bytes, &asked) == HS_OK);
  MUST(hs_pool_register("cache", HS_POOL_IN_HEAP, NULL, NULL, &own) == HS_OK);
  MUST(hs_pool_set(pushed, 5000) == HS_OK && hs_pool_set(own, 9999) == HS_OK);
  MUST(look(HS_EXACT).pool_bytes == 5777);
  MUST(hs_pool_end(pushed) == HS_OK && hs_pool_set(pushed, 1) == HS_INVALID_PARAMETER);
  MUST(look(HS_EXACT).pool_bytes == 777);
  MUST(hs_pool_end(asked) == HS_OK && hs_pool_end(own) == HS_OK);
}

static void threads(void) {
  enum { COUNT = 8 };
  pthread_t all[COUNT];
  pthread_barrier_t barrier;
  void* mine = malloc(100 * MIB); /* allocated while alone, and then this thread only sleeps */
  const hs_stats_t before = look(HS_EXACT);
  pthread_barrier_init(&barrier, NULL, COUNT + 1);
  for (int i = 0; i < COUNT; ++i) pthread_create(&all[i], NULL, sleep_on_a_block, &barrier);
  pthread_barrier_wait(&barrier);
  const hs_stats_t fast = look(HS_FAST), exact = look(HS_EXACT);
  MUST(exact.exact & HS_F_CURRENT && exact.threads == before.threads + COUNT);
  MUST(exact.current_bytes >= before.current_bytes + 8 * 8 * MIB);
  const uint64_t off = fast.current_bytes > exact.current_bytes ? fast.current_bytes - exact.current_bytes
                                                                : exact.current_bytes - fast.current_bytes;
  MUST(off <= fast.error_bound_bytes && fast.error_bound_bytes <= (COUNT + 2) * 32768);
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < COUNT; ++i) pthread_join(all[i], NULL);
  free(mine);
  pthread_barrier_destroy(&barrier);
  MUST(look(HS_EXACT).peak_bytes + (COUNT + 2) * 32768 >= exact.current_bytes);
}

static void handlers(void) {
  signal(SIGUSR1, in_handler);
  raise(SIGUSR1);
  MUST(seen_in_handler);
}

static void child_of_fork(void) {
  uint32_t watch = 0, pool = 0;
  hs_peak_t scope;
  uint64_t peak = 0;
  void* block = malloc(10 * MIB);
  MUST(hs_watch(1 << 20, 0, NULL, NULL, &watch) == HS_OK);
  MUST(hs_pool_register("shared", 0, NULL, NULL, &pool) == HS_OK);
  MUST(hs_peak_reset(&scope) == HS_OK);
  const pid_t child = fork();
  if (child == 0) {
    hs_crossing_t crossing;
    hs_stats_t stats = HS_STATS_INIT;
    MUST(hs_stats_get(&stats, HS_FAST) == HS_OK); /* before anything was allocated here */
    MUST(stats.current_bytes >= 10 * MIB);
    MUST(hs_watch_wait(watch, 0, &crossing) == HS_INVALID_PARAMETER);
    MUST(hs_pool_set(pool, 4711) == HS_OK && look(HS_EXACT).pool_bytes == 4711);
    void* more = malloc(10 * MIB);
    MUST(hs_peak_end(&scope, &peak, NULL) == HS_OK && peak >= 20 * MIB);
    free(more);
    free(block);
    MUST(look(HS_EXACT).current_bytes < 10 * MIB);
    _exit(0);
  }
  int status = 1;
  waitpid(child, &status, 0);
  MUST(status == 0);
  MUST(hs_peak_end(&scope, &peak, NULL) == HS_OK && peak < 20 * MIB);
  MUST(hs_watch_end(watch) == HS_OK && hs_pool_end(pool) == HS_OK);
  free(block);
}

int main(int count, char** words) {
  if (count > 1 && strcmp(words[1], "absent") == 0) {
    hs_stats_t stats = HS_STATS_INIT;
    uint32_t number = 0;
    MUST(hs_stats_get(&stats, HS_FAST) == HS_UNSUPPORTED && hs_stats_get(&stats, HS_EXACT) == HS_UNSUPPORTED);
    MUST(hs_limit_set(1, 0) == HS_UNSUPPORTED && hs_on_failure(note_failure, NULL) == HS_UNSUPPORTED);
    MUST(hs_pool_register("x", 0, NULL, NULL, &number) == HS_UNSUPPORTED);
    puts("absent");
    return 0;
  }
  bad_arguments();
  older_caller();
  numbers();
  scopes();
  limits();
  watches();
  pools();
  handlers();
  child_of_fork();
  threads();
  puts("all of it holds");
  return 0;
}

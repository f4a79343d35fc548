// Threads: blocks freed elsewhere, threads that end, threads that come by the thousand.
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "check.h"

enum { shared_slots = 4096, stress_threads = 8 };
typedef struct {
  unsigned char* block;
  size_t bytes;
  unsigned number;
} slot;
static slot shared[shared_slots];
static pthread_mutex_t locks[64];

static size_t any_size(uint64_t* state) {
  const uint64_t random = next_random(state);
  return 1 + (random >> 20) % (random % 64 == 0 ? 300000 : random % 8 == 0 ? 9000 : 500);
}
static size_t looked_at(size_t bytes) { return bytes < 96 ? bytes : 96; }
static void stress(unsigned index) {
  uint64_t state = index * 977 + 3;
  for (unsigned i = 0; i < 60000; i++) {
    const unsigned at = next_random(&state) % shared_slots;
    slot mine = {NULL, any_size(&state), (unsigned)next_random(&state)};
    mine.block = i % 7 == 0 ? calloc(1, mine.bytes) : malloc(mine.bytes);
    HOLDS(mine.block, "malloc(%zu) gave nothing", mine.bytes);
    if (i % 7 == 0)
      for (size_t b = 0; b < looked_at(mine.bytes); b++) HOLDS(mine.block[b] == 0, "calloc gave dirt");
    write_pattern(mine.block, looked_at(mine.bytes), mine.number);
    pthread_mutex_lock(&locks[at % 64]);
    slot other = shared[at];
    shared[at] = mine;
    pthread_mutex_unlock(&locks[at % 64]);
    if (!other.block) continue;
    HOLDS(has_pattern(other.block, looked_at(other.bytes), other.number), "a block of %zu bytes changed", other.bytes);
    if (i % 5 == 0) {
      const size_t bytes = any_size(&state);
      other.block = realloc(other.block, bytes);
      const size_t kept = looked_at(other.bytes) < bytes ? looked_at(other.bytes) : bytes;
      HOLDS(other.block && has_pattern(other.block, kept, other.number), "realloc lost contents");
    }
    free(other.block);
  }
}
static void threads_share(void) {
  for (unsigned i = 0; i < 64; i++) pthread_mutex_init(&locks[i], NULL);
  run_threads(stress_threads, stress);
  for (unsigned i = 0; i < shared_slots; i++) free(shared[i].block);
}

static long resident_kib(void) {
  FILE* file = fopen("/proc/self/statm", "r");
  long whole, resident;
  HOLDS(file && fscanf(file, "%ld %ld", &whole, &resident) == 2, "no /proc/self/statm");
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void use_and_end(unsigned index) {
  void* blocks[200];
  for (unsigned i = 0; i < 200; i++) memset(blocks[i] = malloc(20 + i * 13 + index % 7), 1, 20);
  for (unsigned i = 0; i < 200; i++) free(blocks[i]);
}
static void threads_come_and_go(void) {
  for (unsigned i = 0; i < 500; i++) run_threads(1, use_and_end);
  const long before_kib = resident_kib();
  for (unsigned i = 0; i < 10000; i++) run_threads(1, use_and_end);
  const long grown_kib = resident_kib() - before_kib;
  HOLDS(grown_kib < 4096, "10,000 threads that freed everything left %ld KiB", grown_kib);
}

static void* left[1000];
static void leave_blocks(unsigned index) {
  (void)index;
  for (unsigned i = 0; i < 1000; i++) write_pattern(left[i] = malloc(64 + i % 1000), 64, i);
}
static void blocks_outlive_threads(void) {
  for (unsigned round = 0; round < 50; round++) {
    run_threads(1, leave_blocks);
    for (unsigned i = 0; i < 1000; i++) {
      HOLDS(has_pattern(left[i], 64, i), "a block changed after its thread had ended");
      free(left[i]);
    }
  }
  HOLDS(resident_kib() < 64 * 1024, "50 rounds of blocks freed after their thread ended left %ld KiB", resident_kib());
}

enum { queue_slots = 1024 };
static _Atomic(void*) queue[queue_slots];
static void produce_or_consume(unsigned index) {
  for (unsigned i = 0; i < 1500000; i++) {
    _Atomic(void*)* at = &queue[i % queue_slots];
    if (index == 0) {
      void* none = NULL;
      void* block = malloc(100);
      *(char*)block = 1;
      unsigned tries = 0;
      while (!atomic_compare_exchange_weak(at, &none, block)) {
        none = NULL;
        if (++tries % 64 == 0) sched_yield();
      }
    } else {
      void* block;
      unsigned tries = 0;
      while (!(block = atomic_exchange(at, NULL)))
        if (++tries % 64 == 0) sched_yield();
      free(block);
    }
  }
}
static void remote_frees_come_back(void) {
  run_threads(2, produce_or_consume);
  HOLDS(resident_kib() < 48 * 1024, "150 MB passed from one thread to another left %ld KiB", resident_kib());
}

static void at_once(unsigned index) {
  for (unsigned i = 0; i < 200; i++) {
    char* block = malloc(1000 + index);
    block[0] = 1;
    free(block);
  }
}
static void many_threads_at_once(void) { run_threads(200, at_once); }

static pthread_key_t key;
static void free_late(void* value) {
  free(value);
  void* more = malloc(300);
  memset(more, 1, 300);
  static __thread unsigned rounds;
  if (++rounds < 3) {
    pthread_setspecific(key, more);
  } else {
    free(more);
  }
}
static void hold_until_end(unsigned index) {
  pthread_setspecific(key, malloc(500 + index));
  free(malloc(10));
}
static void destructors_may_allocate(void) {
  HOLDS(pthread_key_create(&key, free_late) == 0, "no key");
  for (unsigned round = 0; round < 200; round++) run_threads(4, hold_until_end);
}

const check thread_checks[] = {
    {"threads", "eight threads swap blocks of all sizes, every content verified", threads_share, false},
    {"thread-exit", "10,000 threads leave no memory behind", threads_come_and_go, false},
    {"thread-exit-live", "blocks outlive their thread, and their memory comes back when freed", blocks_outlive_threads,
     false},
    {"remote-frees", "blocks freed by another thread are used again", remote_frees_come_back, false},
    {"many-threads", "200 threads at once", many_threads_at_once, false},
    {"thread-destructors", "destructors of a thread may allocate and free", destructors_may_allocate, false},
    {0}};

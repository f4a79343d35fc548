// What servers do: threads that share blocks, come and go, and hold memory for random times.
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "workload.h"

enum { server_threads = 4, server_slots = 5000 };
static void* slots[server_threads][server_slots];
static unsigned server_generation;

// Each generation of threads inherits the blocks of the one before and replaces random ones.
static void serve(unsigned index) {
  uint64_t state = index * 7919 + server_generation + 1;
  for (unsigned i = 0; i < 200000; i++) {
    const uint64_t random = next_random(&state);
    const unsigned slot = random % server_slots;
    free(slots[index][slot]);
    const size_t bytes = 8 + (random >> 24) % 992;
    char* block = must(malloc(bytes));
    block[0] = block[bytes - 1] = (char)i;
    slots[index][slot] = block;
  }
}
static void server(unsigned scale) {
  for (server_generation = 0; server_generation < 10 * scale; server_generation++) run_threads(server_threads, serve);
  for (unsigned i = 0; i < server_threads; i++)
    for (unsigned j = 0; j < server_slots; j++) {
      free(slots[i][j]);
      slots[i][j] = NULL;
    }
}

// Two threads make batches of blocks, two others free them.
enum { queue_batches = 256, batch_blocks = 120 };
typedef struct {
  void* blocks[batch_blocks];
} batch;
static batch queue[queue_batches];
static unsigned queue_head, queue_tail;
static unsigned queue_left_to_make, queue_left_to_take;
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queue_changed = PTHREAD_COND_INITIALIZER;

static void hand_over(unsigned index) {
  uint64_t state = index + 99;
  batch carried;
  if (index % 2 == 0) {
    for (;;) {
      for (unsigned i = 0; i < batch_blocks; i++) {
        const size_t bytes = 16 + next_random(&state) % 240;
        char* block = must(malloc(bytes));
        block[0] = (char)i;
        carried.blocks[i] = block;
      }
      pthread_mutex_lock(&queue_lock);
      while (queue_left_to_make > 0 && queue_head - queue_tail == queue_batches)
        pthread_cond_wait(&queue_changed, &queue_lock);
      const int done = queue_left_to_make == 0;
      if (!done) {
        queue_left_to_make--;
        queue[queue_head++ % queue_batches] = carried;
      }
      pthread_cond_broadcast(&queue_changed);
      pthread_mutex_unlock(&queue_lock);
      if (done) {
        for (unsigned i = 0; i < batch_blocks; i++) free(carried.blocks[i]);
        return;
      }
    }
  }
  for (;;) {
    pthread_mutex_lock(&queue_lock);
    while (queue_left_to_take > 0 && queue_head == queue_tail) pthread_cond_wait(&queue_changed, &queue_lock);
    const int done = queue_left_to_take == 0;
    if (!done) {
      queue_left_to_take--;
      carried = queue[queue_tail++ % queue_batches];
    }
    pthread_cond_broadcast(&queue_changed);
    pthread_mutex_unlock(&queue_lock);
    if (done) return;
    for (unsigned i = 0; i < batch_blocks; i++) free(carried.blocks[i]);
  }
}
static void producers(unsigned scale) {
  queue_left_to_make = queue_left_to_take = 60000 * scale;
  run_threads(4, hand_over);
}

// Threads that live for a moment: create, allocate a little, free it, end.
static void brief(unsigned index) {
  void* blocks[20];
  for (unsigned i = 0; i < 20; i++) *(volatile char*)(blocks[i] = must(malloc(16 + 40 * i + index))) = 1;
  for (unsigned i = 0; i < 20; i++) free(blocks[i]);
}
static void brief_threads(unsigned scale) {
  for (unsigned i = 0; i < 10000 * scale; i++) run_threads(1, brief);
}

// Random sizes with random lifetimes in several threads that swap blocks, in rounds that end with everything
// freed.
enum { mixed_shared = 1024 };
static _Atomic(void*) swapped[mixed_shared];
static void mix(unsigned index) {
  uint64_t state = index * 31 + 17;
  void* kept[512] = {0};
  for (unsigned i = 0; i < 400000; i++) {
    const uint64_t random = next_random(&state);
    const unsigned slot = (random >> 8) % 512;
    size_t bytes = 16 + (random >> 20) % 240;
    if (random % 32 == 0) bytes *= 32;
    if (random % 1024 == 1) bytes *= 256;
    free(kept[slot]);
    char* block = must(malloc(bytes));
    block[0] = (char)i;
    kept[slot] = block;
    if (random % 10 == 3) kept[slot] = atomic_exchange(&swapped[(random >> 40) % mixed_shared], kept[slot]);
  }
  for (unsigned i = 0; i < 512; i++) free(kept[i]);
}
static void mixed(unsigned scale) {
  for (unsigned round = 0; round < 3 * scale; round++) {
    run_threads(4, mix);
    for (unsigned i = 0; i < mixed_shared; i++) free(atomic_exchange(&swapped[i], NULL));
  }
}

const workload server_workloads[] = {
    {"server", "4 threads replace random blocks of 8 to 1000 bytes and hand them to the next generation", server, NULL},
    {"producers", "2 threads allocate batches of small blocks, 2 others free them", producers, NULL},
    {"brief-threads", "threads that live for twenty blocks", brief_threads, NULL},
    {"mixed", "4 threads, random sizes to 2 MiB, random lifetimes, blocks swapped", mixed, NULL},
    {0}};

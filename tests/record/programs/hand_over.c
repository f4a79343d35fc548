// Two threads hand blocks to each other through one slot, so that an address is used again as soon as it can be.
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

static _Atomic(void*) slot;
enum { kRounds = 20000 };

static void* give(void* unused) {
  (void)unused;
  for (int round = 0; round < kRounds; ++round) {
    void* block = malloc(2000);
    void* none = NULL;
    while (!atomic_compare_exchange_weak(&slot, &none, block)) none = NULL, sched_yield();
  }
  return NULL;
}

int main(void) {
  pthread_t giver;
  pthread_create(&giver, NULL, give, NULL);
  for (int round = 0; round < kRounds; ++round) {
    void* block;
    while ((block = atomic_exchange(&slot, NULL)) == NULL) sched_yield();
    free(block);
  }
  pthread_join(giver, NULL);
  return 0;
}

// So many threads, a few at a time; each allocates its share, and the next one frees it.
#include <pthread.h>
#include <stdlib.h>

enum { kAtOnce = 8, kBlocks = 50 };
static void* passed[kAtOnce][kBlocks];

static void* work(void* argument) {
  void** blocks = argument;
  for (int at = 0; at < kBlocks; ++at) {
    free(blocks[at]);
    blocks[at] = malloc(3000 + at);
  }
  return NULL;
}

int main(int count, char** words) {
  const int threads = count > 1 ? atoi(words[1]) : 100;
  for (int started = 0; started < threads; started += kAtOnce) {
    pthread_t running[kAtOnce];
    for (int at = 0; at < kAtOnce; ++at) pthread_create(&running[at], NULL, work, passed[at]);
    for (int at = 0; at < kAtOnce; ++at) pthread_join(running[at], NULL);
  }
  return 0;
}

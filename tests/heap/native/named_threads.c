// Threads named `worker` allocate from a heap of their own: its class is 4000 bytes, whatever they ask for.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void* work(void* named) {
  if (named) pthread_setname_np(pthread_self(), "worker");
  void* block = malloc(100);
  printf("%s %zu\n", named ? "worker" : "other", malloc_usable_size(block));
  return block;
}

int main(void) {
  for (int named = 0; named < 2; named++) {
    pthread_t thread;
    void* block;
    pthread_create(&thread, NULL, work, named ? "x" : NULL);
    pthread_join(thread, &block);
    free(block);
  }
  int (*use_heap)(const char*) = (int (*)(const char*))dlsym(RTLD_DEFAULT, "heapsmith_use_heap");
  free(malloc(1));
  printf("marked %d", use_heap("worker"));
  void* block = malloc(100);
  printf(" %zu", malloc_usable_size(block));
  printf(" unmarked %d", use_heap(""));
  void* after = malloc(100);
  printf(" %zu unknown %d\n", malloc_usable_size(after), use_heap("nobody") != 0);
  free(block);
  free(after);
}

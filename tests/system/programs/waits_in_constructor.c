// A library whose constructor starts a thread and waits for it, while the linker holds its lock.
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

static void* work(void* unused) {
  free(malloc(100));
  // As large as an arena of CPython's.
  void* mapping = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping != MAP_FAILED) munmap(mapping, 1 << 20);
  return unused;
}

__attribute__((constructor)) static void begin(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, work, NULL);
  pthread_join(thread, NULL);
}

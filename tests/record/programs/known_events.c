// A known sequence of every call, so that a recording of it can be compared event by event.
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void* volatile keep;

int main(void) {
  // The marker: nothing else asks for these sizes.
  free(malloc(7001));
  void* plain = malloc(100);
  void* zeroed = calloc(10, 30);
  void* aligned = aligned_alloc(256, 512);
  void* posix = NULL;
  if (posix_memalign(&posix, 64, 1000) != 0) return 1;
  plain = realloc(plain, 5000);
  plain = realloc(plain, 5001);
  free(NULL);
  free(zeroed);
  free(aligned);
  free(posix);
  keep = realloc(NULL, 48);
  void* none = realloc(malloc(60), 0);
  if (none != NULL) return 2;
  char* pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(pages + 4096, 4096);
  munmap(pages, 3 * 4096);
  void* large = malloc((size_t)3 << 30);
  free(large);
  free(plain);
  free(malloc(7002));
  _exit(7);
}

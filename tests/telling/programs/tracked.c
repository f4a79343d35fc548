/* Each way in which Heap Tracker counted wrong; says on the first line that does not hold. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "heap_tracker_lib.h"

#define MUST(condition)                                                                  \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      printf("line %d does not hold: %s (%zd)\n", __LINE__, #condition, heap_allocated); \
      exit(1);                                                                           \
    }                                                                                    \
  } while (0)

static void* volatile kept;
static int lines;
static void sink(const char* line, void* argument) {
  (void)line;
  free(malloc(50)); /* a logger that allocates */
  ++*(int*)argument;
}

static void* work(void* unused) {
  for (int i = 0; i < 20000; ++i) {
    char* volatile block = malloc(10 + (size_t)i % 500);
    block = realloc(block, 700);
    free(block);
  }
  return unused;
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  const ssize_t base = heap_allocated;
  /* realloc counts no byte too many */
  char* block = NULL;
  for (size_t bytes = 1024; bytes <= 256000; bytes += 1024) {
    block = _realloc(block, bytes - 1024, bytes);
    MUST(heap_allocated == base + (ssize_t)bytes);
  }
  _free(block, 1); /* and what the caller believes of the size does no harm */
  MUST(heap_allocated == base);
  /* native realloc and free are as good */
  block = malloc(100);
  block = realloc(block, 200);
  MUST(heap_allocated == base + 200);
  free(block);
  MUST(heap_allocated == base);
  /* calloc: number times size */
  kept = calloc(10, 20);
  MUST(heap_allocated == base + 200);
  free(kept);
  /* aligned blocks, whoever gives them */
  kept = aligned_alloc(64, 640);
  MUST(heap_allocated == base + 640);
  _free(kept, 640);
  void* aligned = NULL;
  MUST(posix_memalign(&aligned, 64, 96) == 0 && heap_allocated == base + 96);
  _free(aligned, 96);
  MUST(heap_allocated == base);
  /* what the C library gives from inside */
  kept = strdup("hello");
  MUST(heap_allocated == base + 6);
  _free(kept, 6);
  kept = strndup("hello world", 4);
  MUST(heap_allocated >= base + 5);
  free(kept);
  MUST(heap_allocated == base);
  char* text = NULL;
  MUST(asprintf(&text, "%d numbers", 42) == 10 && heap_allocated > base);
  free(text);
  MUST(heap_allocated == base);
  /* realloc to nothing gives the block back, where the C library does that */
  kept = malloc(300);
  void* nothing = realloc(kept, 0);
  free(nothing);
  MUST(heap_allocated == base);
  /* a failure changes nothing and is no SUCCESS */
  const size_t huge = (size_t)1 << 60;
  kept = malloc(50);
  errno = 0;
  void* volatile none = malloc(huge);
  MUST(none == NULL && errno == ENOMEM && heap_allocated == base + 50);
  none = _realloc(kept, 50, huge);
  MUST(none == NULL && heap_allocated == base + 50);
  free(kept);
  MUST(heap_allocated == base);
  /* a threshold that can be set, a sink of one's own */
  heap_threshold = 10;
  heap_track_level = HEAP_TRACK_WARNINGS;
  heap_track_set_sink(sink, &lines);
  kept = malloc(1000);
  free(kept);
  heap_track_set_sink(NULL, NULL);
  MUST(lines >= 1);
  MUST(heap_track_peak() >= 256000 && heap_track_lost() == 0);
  /* threads */
  heap_track_level = HEAP_TRACK_NONE;
  const ssize_t before = heap_allocated;
  pthread_t all[4];
  for (int i = 0; i < 4; ++i) pthread_create(&all[i], NULL, work, NULL);
  for (int i = 0; i < 4; ++i) {
    MUST(heap_allocated >= 0);
    pthread_join(all[i], NULL);
  }
  MUST(heap_allocated >= before && heap_allocated < before + 4096);
  /* many blocks */
  static void* many[100000];
  const ssize_t start = heap_allocated;
  for (int i = 0; i < 100000; ++i) many[i] = malloc(16);
  MUST(heap_allocated == start + 1600000 && heap_track_blocks() >= 100000);
  for (int i = 0; i < 100000; ++i) free(many[(i * 7919) % 100000]);
  MUST(heap_allocated == start);
  puts("all of it holds");
  return 0;
}

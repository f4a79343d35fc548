/* How much heap can be had up to a threshold: by ever larger blocks, or by growing one block.
 *
 *   heapsmith track --log all -- ./main malloc
 *   heapsmith track --log all -- ./main realloc
 *
 * or, where nothing can be preloaded:
 *
 *   cc main.c $(heapsmith track flags) -o main && HEAP_TRACK_LOG=all ./main malloc
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heap_tracker_lib.h"

static size_t consumeHeap_malloc(void) {
  size_t bytes = 0;
  printf("consumeHeap_malloc --> Heap status: max available(%zu bytes), allocated (%zd bytes)\n", heap_threshold,
         heap_allocated);
  const ssize_t before = heap_allocated;
  for (ssize_t reached = before; reached <= (ssize_t)heap_threshold;) {
    void* block = malloc(bytes + 1024);
    if (block == NULL || heap_allocated == before) break; /* nothing to be had, or nobody counts */
    bytes += 1024;
    memset(block, 1, bytes); /* untouched, it would not be there yet */
    reached = heap_allocated;
    _free(block, bytes);
  }
  return bytes;
}

static size_t consumeHeap_realloc(void) {
  size_t bytes = 0;
  char* block = NULL;
  printf("consumeHeap_realloc --> Heap status: max available(%zu bytes), allocated (%zd bytes)\n", heap_threshold,
         heap_allocated);
  while (heap_allocated <= (ssize_t)heap_threshold) {
    char* grown = _realloc(block, bytes, bytes + 1024);
    if (grown == NULL) break;
    block = grown;
    if (heap_allocated == 0) break; /* nobody counts */
    memset(block + bytes, 1, 1024);
    bytes += 1024;
  }
  _free(block, bytes);
  return bytes;
}

int main(int count, char** words) {
  const int by_realloc = count > 1 && strcmp(words[1], "realloc") == 0;
  setvbuf(stdout, NULL, _IONBF, 0); /* its buffer would be heap, too */
  heap_track_init();
  printf("Starting Heap Tracker test application...\n");
  const size_t bytes = by_realloc ? consumeHeap_realloc() : consumeHeap_malloc();
  printf("%s --> Currently available heap up to given heap_threshold: %zuKb (%zu bytes)\n",
         by_realloc ? "consumeHeap_realloc" : "consumeHeap_malloc", bytes / 1024, bytes);
  return 0;
}

/* Open Enclave's declarations as its own headers have them, and a program that relies on them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef OWN_DECLARATIONS
typedef enum _oe_result { OE_OK = 0, OE_FAILURE = 1, OE_INVALID_PARAMETER = 3, OE_UNSUPPORTED = 16 } oe_result_t;
typedef struct _oe_mallinfo {
  size_t max_total_heap_size;
  size_t current_allocated_heap_size;
  size_t peak_allocated_heap_size;
} oe_mallinfo_t;
oe_result_t oe_allocator_mallinfo(oe_mallinfo_t* info);
oe_result_t oe_set_allocation_failure_callback(void (*callback)(const char*, size_t, const char*, size_t));
#else
#include "oe_mallinfo.h"
#endif

static size_t failed_bytes;
static void note(const char* file, size_t line, const char* func, size_t size) {
  (void)file, (void)line, (void)func;
  failed_bytes = size;
}

int main(int count, char** words) {
  oe_mallinfo_t info;
  if (oe_allocator_mallinfo(NULL) != OE_INVALID_PARAMETER) return 10;
  if (count > 1 && strcmp(words[1], "unwatched") == 0) return oe_allocator_mallinfo(&info) == OE_UNSUPPORTED ? 0 : 11;
  if (oe_allocator_mallinfo(&info) != OE_OK) return 12;
  const oe_mallinfo_t before = info;
  char* volatile block = malloc(1 << 20);
  if (oe_allocator_mallinfo(&info) != OE_OK) return 13;
  if (info.current_allocated_heap_size < before.current_allocated_heap_size + (1 << 20)) return 14;
  if (info.peak_allocated_heap_size < info.current_allocated_heap_size) return 15;
  if (info.max_total_heap_size < info.peak_allocated_heap_size) return 16;
  const size_t with = info.current_allocated_heap_size;
  free(block);
  if (oe_allocator_mallinfo(&info) != OE_OK || info.peak_allocated_heap_size < with) return 17;
  if (info.current_allocated_heap_size != before.current_allocated_heap_size) return 18;
  if (oe_set_allocation_failure_callback(note) != OE_OK) return 19;
  volatile size_t huge = (size_t)1 << 60;
  errno = 0;
  block = malloc(huge);
  if (block != NULL || errno != ENOMEM || failed_bytes != huge) return 20;
  puts("compatible");
  return 0;
}

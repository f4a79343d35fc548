/* Open Enclave's question about the heap, source and ABI compatible: the same names, values, order and sizes.
 */
#ifndef HEAPSMITH_OE_MALLINFO_H
#define HEAPSMITH_OE_MALLINFO_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Those of Open Enclave's oe_result_t that an allocator can answer. */
typedef enum _oe_result {
  OE_OK = 0,
  OE_FAILURE = 1,
  OE_INVALID_PARAMETER = 3,
  OE_OUT_OF_MEMORY = 5,
  OE_UNEXPECTED = 7,
  OE_UNSUPPORTED = 16,
  OE_MEMORY_LEAK = 31,
  __OE_RESULT_MAX = 0x7fffffff
} oe_result_t;

typedef struct _oe_mallinfo {
  size_t max_total_heap_size;         /* the most that can be allocated in total, by the tightest bound */
  size_t current_allocated_heap_size; /* usable bytes of live blocks */
  size_t peak_allocated_heap_size;    /* the highest current_allocated_heap_size so far */
} oe_mallinfo_t;

/* OE_INVALID_PARAMETER for NULL; OE_UNSUPPORTED where not all three are known (hs_stats_get tells those that
 * are). */
oe_result_t oe_allocator_mallinfo(oe_mallinfo_t* info);

/* Called in the thread whose allocation has failed, before it gets NULL. The C library's callers pass no file
 * and no line: `file` is "" and `line` 0. OE_UNSUPPORTED where nobody counts. NULL takes the callback away.
 */
typedef void (*oe_allocation_failure_callback_t)(const char* file, size_t line, const char* func, size_t size);
oe_result_t oe_set_allocation_failure_callback(oe_allocation_failure_callback_t callback);

#ifdef __cplusplus
}
#endif

#endif

/* Open Enclave's Pluggable Allocator Interface, source and ABI compatible, over a heap in one fixed region.
 *
 * Link -lheapsmith_enclave (before any other allocator of this interface): malloc of the C library stays what it is. */
#ifndef HEAPSMITH_OE_ALLOCATOR_H
#define HEAPSMITH_OE_ALLOCATOR_H

#include <stddef.h>

#include "oe_mallinfo.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Once, before anything else; the range is fixed for life. */
void oe_allocator_init(void* heap_start_address, void* heap_end_address);
/* After the last use; from then on there is no memory. */
void oe_allocator_cleanup(void);
void oe_allocator_thread_init(void);
void oe_allocator_thread_cleanup(void);
void* oe_allocator_malloc(size_t size);
void oe_allocator_free(void* ptr);
void* oe_allocator_calloc(size_t nmemb, size_t size);
void* oe_allocator_realloc(void* ptr, size_t size);
void* oe_allocator_aligned_alloc(size_t alignment, size_t size);
int oe_allocator_posix_memalign(void** memptr, size_t alignment, size_t size);
size_t oe_allocator_malloc_usable_size(void* ptr);

#ifdef __cplusplus
}
#endif

#endif

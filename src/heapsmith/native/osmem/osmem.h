/* The teaching allocator: malloc, calloc, realloc and free over brk, mmap and munmap.
 *
 * A block is a header followed by its payload; every size and address is a multiple of 8. Requests are served
 * from the heap (brk) unless they are large, in which case each gets a mapping of its own (mmap).
 */
#ifndef OSMEM_H
#define OSMEM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `size` bytes of uninitialised memory; NULL for a size of 0, and NULL with errno = ENOMEM where there is
 * none. Mapped when header and payload together reach 128 KiB. */
void* os_malloc(size_t size);

/* An array of `nmemb` elements of `size` bytes, all zero; NULL when either is 0 or their product overflows.
 * Mapped when header and payload together reach one page. */
void* os_calloc(size_t nmemb, size_t size);

/* The block resized to `size` bytes, in place where that is possible, else moved with its content.
 * A `ptr` of NULL is os_malloc(size), a `size` of 0 is os_free(ptr); a block that is already free answers
 * NULL. Where there is no memory the answer is NULL with errno = ENOMEM, and the block stays as it was. */
void* os_realloc(void* ptr, size_t size);

/* Give a block back. NULL and a heap block that is already free do nothing; a pointer that no block has ends
 * the program with a message. The heap never shrinks; a mapped block goes back to the system at once. */
void os_free(void* ptr);

#ifdef __cplusplus
}
#endif

#endif

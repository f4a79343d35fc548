/* Local heaps for C, and for whatever reaches C: a heap of its own, freed as a whole, with a limit and figures.
 *
 * A heap may be used from several threads; each call takes its lock. Link -lheapsmith_local. */
#ifndef HEAPSMITH_LOCAL_HEAP_H
#define HEAPSMITH_LOCAL_HEAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hs_local_heap hs_local_heap_t;

enum {
  HS_HUGE_PAGES_NEVER = 0,
  HS_HUGE_PAGES_LARGE = 1,  /* blocks of 4 MiB and more */
  HS_HUGE_PAGES_ALWAYS = 2, /* everything; a small heap then takes 2 MiB */
};

typedef struct {
  uint32_t size;               /* sizeof(hs_local_options_t), as the caller knows it */
  uint32_t class_count;        /* of class_bytes; 1 to 250 */
  const uint32_t* class_bytes; /* multiples of 8, rising; those above 32 KiB are not used */
  uint64_t limit_bytes;        /* of live usable bytes; UINT64_MAX: none */
  uint64_t retain_bytes;       /* of freed large blocks kept; UINT64_MAX: up to the peak of live ones */
  uint64_t retain_ms;          /* how long they are kept; UINT64_MAX: until they are wanted or trimmed */
  uint32_t huge_pages;
  uint32_t prefault; /* pages are populated when they are taken */
} hs_local_options_t;

typedef struct {
  uint32_t size;
  uint32_t reserved_word;
  uint64_t live_bytes; /* usable */
  uint64_t live_bytes_peak;
  uint64_t live_blocks;
  uint64_t allocations;
  uint64_t frees;
  uint64_t failures;
  uint64_t limit_bytes; /* UINT64_MAX: none */
  uint64_t committed_bytes;
  uint64_t kept_bytes; /* of the committed ones, freed large blocks that wait to be used again */
} hs_local_stats_t;

/* NULL where there is no memory or an option cannot be. */
hs_local_heap_t* hs_local_create(const hs_local_options_t* options);
/* Everything allocated from it is gone. */
void hs_local_destroy(hs_local_heap_t* heap);
/* Nothing is allocated from it any more; it ends with its last block. */
void hs_local_retire(hs_local_heap_t* heap);

/* NULL beyond the limit, and where there is no memory. `alignment` is a power of two up to 2 MiB. */
void* hs_local_allocate(hs_local_heap_t* heap, size_t bytes, size_t alignment);
void hs_local_free(void* block);
size_t hs_local_usable_bytes(const void* block);
/* Gives back all pages that hold no live block; answers how many bytes. */
size_t hs_local_trim(hs_local_heap_t* heap);
void hs_local_stats(hs_local_heap_t* heap, hs_local_stats_t* stats);

/* For Python, whose objects own blocks by capsules: PyCapsule_GetPointer, told before the two below are used. */
void hs_local_bind(void* (*get_pointer)(void* capsule, const char* name));
/* Destructor of a capsule "heapsmith.block", whose pointer is a block: frees it. */
void hs_local_block_ended(void* capsule);

/* NumPy's data allocations from a heap (NEP 49): a PyDataMem_Handler, which lives as long as the heap. */
void* hs_local_numpy_handler(hs_local_heap_t* heap);
/* Destructor of a capsule "mem_handler", whose pointer is that handler: destroys the heap. */
void hs_local_numpy_ended(void* capsule);

#ifdef __cplusplus
}
#endif

#endif

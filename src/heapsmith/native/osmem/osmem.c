/* The teaching allocator, in the order a reader needs it: the block, the list of blocks, growing the heap,
 * the three block operations (split, merge, find), and the four functions of osmem.h on top.
 *
 * OSMEM_LAYOUT chooses the header: 1 (24 bytes, linked forwards) or 2 (32 bytes, linked both ways). Nothing
 * else differs.
 */
#define _DEFAULT_SOURCE /* sbrk, MAP_ANON */

#include "osmem.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef OSMEM_LAYOUT
#define OSMEM_LAYOUT 1
#endif

#define EXPORT __attribute__((visibility("default")))

enum {
  ALIGNMENT = 8,
  MMAP_THRESHOLD = 128 * 1024, /* of malloc and realloc, header included */
  PAGE = 4096,                 /* the same limit for calloc */
  PREALLOCATION = 128 * 1024,  /* the first growth of the heap, header included */
};

/* ---- The block --------------------------------------------------------------------------------------- */

enum status { FREE = 0, ALLOCATED = 1, MAPPED = 2 };

typedef struct block {
  size_t size; /* of the payload, a multiple of 8 */
  int status;
#if OSMEM_LAYOUT == 2
  struct block* prev;
#endif
  struct block* next; /* the next block of the heap, by address */
} block;

enum { META = sizeof(block) };
_Static_assert(META == (OSMEM_LAYOUT == 2 ? 32 : 24), "the layouts are 24 and 32 bytes");
_Static_assert(META % ALIGNMENT == 0, "a payload behind an aligned header is aligned");

static size_t align(size_t bytes) { return (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1); }
static void* payload_of(block* b) { return b + 1; }
static block* block_of(void* payload) { return (block*)payload - 1; }
static char* end_of(block* b) { return (char*)(b + 1) + b->size; }

/* ---- The list: every block of the heap by address; mapped blocks are not in it ----------------------- */

static block *first, *last;

static void link_after(block* left, block* b) {
  b->next = left ? left->next : NULL;
#if OSMEM_LAYOUT == 2
  b->prev = left;
  if (b->next) b->next->prev = b;
#endif
  if (left)
    left->next = b;
  else
    first = b;
  if (last == left) last = b;
}

static void unlink_next(block* b) {
  block* gone = b->next;
  b->next = gone->next;
#if OSMEM_LAYOUT == 2
  if (b->next) b->next->prev = b;
#endif
  if (last == gone) last = b;
}

/* ---- Growing the heap -------------------------------------------------------------------------------- */

/* `bytes` more of heap, at an aligned address; NULL if the system has no more. Others move the break too (the
 * C library's own malloc does), so the new memory need not follow our last block, and need not be aligned. */
static char* grow(size_t bytes) {
  void* old_break = sbrk((intptr_t)bytes);
  if (old_break == (void*)-1) return NULL;
  size_t padding = -(uintptr_t)old_break % ALIGNMENT;
  if (padding && sbrk((intptr_t)padding) != (char*)old_break + bytes) {
    errno = ENOMEM;
    return NULL;
  }
  return (char*)old_break + padding;
}

static block* append(size_t payload_bytes, enum status status) {
  block* b = (block*)grow(META + payload_bytes);
  if (!b) return NULL;
  b->size = payload_bytes;
  b->status = status;
  link_after(last, b);
  return b;
}

/* Whether the heap ends where our last block ends. sbrk(0) asks the C library, not the kernel: no system
 * call. */
static int last_is_at_break(void) { return last && end_of(last) == sbrk(0); }

/* Make the last block `payload_bytes` long. It is at the break, but somebody else may get there first: what
 * we are then given is apart, and becomes a block of its own if it can hold one. */
static int extend_last(size_t payload_bytes) {
  size_t more = payload_bytes - last->size;
  char* end = end_of(last);
  char* fresh = grow(more);
  if (!fresh) return 0;
  if (fresh == end) {
    last->size = payload_bytes;
    return 1;
  }
  if (more >= META + ALIGNMENT) {
    block* apart = (block*)fresh;
    apart->size = more - META;
    apart->status = FREE;
    link_after(last, apart);
  }
  errno = ENOMEM;
  return 0;
}

/* ---- Split, merge, find ------------------------------------------------------------------------------ */

/* Cut the block down to `payload_bytes` if the rest can hold a header and at least one (aligned) byte. */
static void split(block* b, size_t payload_bytes) {
  if (b->size - payload_bytes < META + ALIGNMENT) return;
  block* rest = (block*)((char*)payload_of(b) + payload_bytes);
  rest->size = b->size - payload_bytes - META;
  rest->status = FREE;
  b->size = payload_bytes;
  link_after(b, rest);
}

static int next_is_free_and_adjacent(block* b) {
  return b->next && b->next->status == FREE && (char*)b->next == end_of(b);
}

static void merge_next(block* b) {
  b->size += META + b->next->size;
  unlink_next(b);
}

static void coalesce_all(void) {
  for (block* b = first; b; b = b->next)
    while (b->status == FREE && next_is_free_and_adjacent(b)) merge_next(b);
}

/* The smallest free block that fits; of equal ones the lowest. */
static block* find_best(size_t payload_bytes) {
  block* best = NULL;
  for (block* b = first; b; b = b->next)
    if (b->status == FREE && b->size >= payload_bytes && (!best || b->size < best->size)) best = b;
  return best;
}

/* ---- Allocate and release ---------------------------------------------------------------------------- */

static void* allocate_mapped(size_t payload_bytes) {
  block* b = mmap(NULL, META + payload_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (b == MAP_FAILED) return NULL;
  memset(b, 0, META);
  b->size = payload_bytes;
  b->status = MAPPED;
  return payload_of(b);
}

static void* allocate_on_heap(size_t payload_bytes) {
  if (!first && !append(PREALLOCATION - META, FREE)) return NULL;
  coalesce_all();
  block* b = find_best(payload_bytes);
  if (!b && last->status == FREE && last_is_at_break() && extend_last(payload_bytes)) b = last;
  if (!b) b = append(payload_bytes, ALLOCATED);
  if (!b) return NULL;
  b->status = ALLOCATED;
  split(b, payload_bytes);
  return payload_of(b);
}

/* Heap or mapping: whichever `limit_bytes` says for header and payload together. */
static void* allocate(size_t bytes, size_t limit_bytes) {
  if (bytes == 0) return NULL;
  if (bytes > PTRDIFF_MAX - META - ALIGNMENT) {
    errno = ENOMEM;
    return NULL;
  }
  size_t payload_bytes = align(bytes);
  return META + payload_bytes >= limit_bytes ? allocate_mapped(payload_bytes) : allocate_on_heap(payload_bytes);
}

static void die(const char* message) {
  ssize_t written = write(STDERR_FILENO, message, strlen(message));
  (void)written;
  abort();
}

/* The block of a pointer that a caller hands in. A header that no block can have means that the pointer is
 * none of ours. */
static block* block_of_caller(void* payload) {
  if ((uintptr_t)payload % ALIGNMENT) die("osmem: this pointer is no block: it is not a multiple of 8\n");
  block* b = block_of(payload);
  if (b->status != FREE && b->status != ALLOCATED && b->status != MAPPED)
    die("osmem: this pointer is no block, or its header was overwritten\n");
  return b;
}

static void release(block* b) {
  if (b->status != MAPPED)
    b->status = FREE;
  else if (munmap(b, META + b->size) != 0)
    die("osmem: munmap failed: the header of a mapped block was overwritten\n");
}

static void* move(block* b, size_t bytes) {
  void* fresh = allocate(bytes, MMAP_THRESHOLD);
  if (!fresh) return NULL;
  memcpy(fresh, payload_of(b), b->size < bytes ? b->size : bytes);
  release(b);
  return fresh;
}

static void* reallocate(block* b, size_t bytes) {
  if (b->status == FREE) return NULL;
  if (b->status == MAPPED || bytes > PTRDIFF_MAX - META - ALIGNMENT) return move(b, bytes);

  size_t payload_bytes = align(bytes);
  if (payload_bytes > b->size) {
    if (META + payload_bytes >= MMAP_THRESHOLD) return move(b, bytes);
    /* Asked before merging: a block that merging makes the last one moves rather than grow the heap. */
    if (b == last && last_is_at_break() && extend_last(payload_bytes)) return payload_of(b);
    while (b->size < payload_bytes && next_is_free_and_adjacent(b)) merge_next(b);
    if (b->size < payload_bytes) return move(b, bytes);
  }
  split(b, payload_bytes);
  return payload_of(b);
}

/* ---- The four functions, one at a time --------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

EXPORT void* os_malloc(size_t size) {
  pthread_mutex_lock(&lock);
  void* payload = allocate(size, MMAP_THRESHOLD);
  pthread_mutex_unlock(&lock);
  return payload;
}

EXPORT void* os_calloc(size_t nmemb, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(nmemb, size, &bytes)) {
    errno = ENOMEM;
    return NULL;
  }
  pthread_mutex_lock(&lock);
  void* payload = allocate(bytes, PAGE);
  pthread_mutex_unlock(&lock);
  /* A fresh mapping is zero already: writing to it would only make its pages resident. */
  if (payload && block_of(payload)->status != MAPPED) memset(payload, 0, bytes);
  return payload;
}

EXPORT void* os_realloc(void* ptr, size_t size) {
  void* payload = NULL;
  pthread_mutex_lock(&lock);
  if (!ptr)
    payload = allocate(size, MMAP_THRESHOLD);
  else if (size == 0)
    release(block_of_caller(ptr));
  else
    payload = reallocate(block_of_caller(ptr), size);
  pthread_mutex_unlock(&lock);
  return payload;
}

EXPORT void os_free(void* ptr) {
  if (!ptr) return;
  pthread_mutex_lock(&lock);
  release(block_of_caller(ptr));
  pthread_mutex_unlock(&lock);
}

/* An allocator as people write them: one lock, free lists by powers of two, and functions that call each other by
 * their exported names. It says how much it has, by the names of Doug Lea's malloc. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

struct block {
  size_t bytes; /* of the whole chunk, a power of two */
  void* chunk;  /* where it begins */
  struct block* next;
  size_t unused;
};
_Static_assert(sizeof(struct block) == 32, "blocks stay at multiples of 16");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block* freed[64];
static size_t footprint;

void* malloc(size_t bytes) {
  if (bytes > PTRDIFF_MAX - 8192) return errno = ENOMEM, NULL;
  int order = 6;
  while (((size_t)1 << order) < bytes + sizeof(struct block)) ++order;
  const size_t whole = (size_t)1 << order;
  pthread_mutex_lock(&lock);
  struct block* block = freed[order];
  if (block != NULL) {
    freed[order] = block->next;
  } else {
    const size_t step = whole < 65536 ? 65536 : whole;
    char* more = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (more == MAP_FAILED) {
      pthread_mutex_unlock(&lock);
      return errno = ENOMEM, NULL;
    }
    footprint += step;
    block = (struct block*)more;
    for (size_t at = whole; at + whole <= step; at += whole) {
      struct block* other = (struct block*)(more + at);
      other->next = freed[order];
      freed[order] = other;
    }
  }
  pthread_mutex_unlock(&lock);
  block->bytes = whole;
  block->chunk = block;
  return block + 1;
}

void free(void* memory) {
  if (memory == NULL) return;
  const struct block* front = (struct block*)memory - 1;
  struct block* block = front->chunk;
  const int order = __builtin_ctzll(front->bytes);
  pthread_mutex_lock(&lock);
  block->next = freed[order];
  freed[order] = block;
  pthread_mutex_unlock(&lock);
}

size_t malloc_usable_size(void* memory) {
  if (memory == NULL) return 0;
  const struct block* front = (struct block*)memory - 1;
  return front->bytes - (size_t)((char*)memory - (char*)front->chunk);
}

void* calloc(size_t count, size_t bytes) {
  size_t whole;
  if (__builtin_mul_overflow(count, bytes, &whole)) return errno = ENOMEM, NULL;
  void* memory = malloc(whole);
  return memory != NULL ? memset(memory, 0, whole) : NULL;
}

void* realloc(void* memory, size_t bytes) {
  if (memory == NULL) return malloc(bytes);
  const size_t before = malloc_usable_size(memory);
  if (bytes <= before) return memory;
  void* moved = malloc(bytes);
  if (moved == NULL) return NULL;
  memcpy(moved, memory, before);
  free(memory);
  return moved;
}

void* memalign(size_t alignment, size_t bytes) {
  char* memory = malloc(bytes + alignment + sizeof(struct block));
  if (memory == NULL || (uintptr_t)memory % alignment == 0) return memory;
  struct block* front = (struct block*)memory - 1;
  const uintptr_t at = ((uintptr_t)memory + sizeof(struct block) + alignment - 1) / alignment * alignment;
  struct block* second = (struct block*)at - 1;
  *second = *front;
  return second + 1;
}

void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void** into, size_t alignment, size_t bytes) {
  if (alignment % sizeof(void*) != 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
  if (bytes > PTRDIFF_MAX - 8192 - alignment) return ENOMEM;
  void* memory = memalign(alignment, bytes);
  if (memory == NULL) return ENOMEM;
  *into = memory;
  return 0;
}

size_t malloc_footprint(void) { return footprint; }

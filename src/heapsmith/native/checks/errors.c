// What happens when there is no memory, or the arguments make no sense.
#include <errno.h>
#include <sys/resource.h>

#include "check.h"

void* memalign(size_t, size_t);
void* reallocarray(void*, size_t, size_t);
static volatile size_t huge = SIZE_MAX;

static void enomem(void) {
  const size_t impossible[] = {
      huge, huge / 2, huge / 2 + 1, huge - 4096, (size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX - 16};
  for (unsigned i = 0; i < sizeof impossible / sizeof *impossible; i++) {
    errno = 0;
    HOLDS(!malloc(impossible[i]) && errno == ENOMEM, "malloc(%zu): errno %d", impossible[i], errno);
    errno = 0;
    HOLDS(!calloc(1, impossible[i]) && errno == ENOMEM, "calloc(1, %zu): errno %d", impossible[i], errno);
    errno = 0;
    HOLDS(!realloc(NULL, impossible[i]) && errno == ENOMEM, "realloc(NULL, %zu): errno %d", impossible[i], errno);
    errno = 0;
    HOLDS(!aligned_alloc(64, impossible[i] & ~(size_t)63) && errno == ENOMEM, "aligned_alloc: errno %d", errno);
  }
}

static void calloc_overflow(void) {
  errno = 0;
  HOLDS(!calloc(huge / 2, 4) && errno == ENOMEM, "calloc(SIZE_MAX/2, 4) gave memory");
  HOLDS(!calloc(((huge & 1) << 32) + 1, (size_t)1 << 32), "calloc(2^32+1, 2^32) gave memory");
  errno = 0;
  void* block = malloc(10);
  HOLDS(!reallocarray(block, huge / 2, 4) && errno == ENOMEM, "reallocarray(SIZE_MAX/2, 4) gave memory");
  free(block);
}

static void failed_realloc_keeps(void) {
  for (size_t bytes = 20; bytes < 4000000; bytes *= 11) {
    void* block = malloc(bytes);
    write_pattern(block, bytes, 5);
    HOLDS(!realloc(block, huge / 2), "realloc to SIZE_MAX/2 gave memory");
    HOLDS(has_pattern(block, bytes, 5), "a realloc that failed changed the block of %zu bytes", bytes);
    free(block);
  }
}

static void posix_memalign_arguments(void) {
  void* const before = (void*)&huge;
  const size_t wrong[] = {0, 1, 2, 4, 3, 12, 24, 48, 100};
  for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    void* block = before;
    HOLDS(posix_memalign(&block, wrong[i], 64) == EINVAL, "posix_memalign with alignment %zu succeeded", wrong[i]);
    HOLDS(block == before, "posix_memalign failed and changed the pointer");
  }
  void* block = before;
  errno = 123;
  HOLDS(posix_memalign(&block, 64, huge / 2) == ENOMEM, "posix_memalign(SIZE_MAX/2) is not ENOMEM");
  HOLDS(block == before, "posix_memalign failed and changed the pointer");
}

static void free_keeps_errno(void) {
  static void* blocks[2000];
  for (unsigned i = 0; i < 2000; i++) blocks[i] = malloc(i * 97);
  for (unsigned i = 0; i < 2000; i++) {
    errno = 4711;
    free(blocks[i]);
    HOLDS(errno == 4711, "free of %u bytes set errno to %d", i * 97, errno);
  }
}

static void success_keeps_errno(void) {
  for (unsigned i = 0; i < 2000; i++) {
    errno = 4711;
    void* block = malloc(i * 97);
    HOLDS(block && errno == 4711, "malloc of %u bytes succeeded and set errno to %d", i * 97, errno);
    free(block);
  }
}

static void address_limit(void) {
  const struct rlimit limit = {256u << 20, 256u << 20};
  HOLDS(setrlimit(RLIMIT_AS, &limit) == 0, "the limit cannot be set");
  enum { most = 4096 };
  static void* blocks[most];
  for (unsigned round = 0; round < 3; round++) {
    unsigned count = 0;
    errno = 0;
    while (count < most && (blocks[count] = malloc(1 << 20)) != NULL) {
      memset(blocks[count], 1, 1 << 20);
      count++;
    }
    HOLDS(count < most, "four times the address space was handed out");
    HOLDS(errno == ENOMEM, "errno is %d when memory ends", errno);
    HOLDS(count >= 100, "only %u of 256 MiB could be had", count);
    // Small blocks and frees go on working, then everything does.
    for (unsigned i = 0; i < count; i++) free(blocks[i]);
    void* again = malloc(1 << 20);
    HOLDS(again, "after everything was freed there is still no memory");
    free(again);
  }
}

static void address_limit_small(void) {
  const struct rlimit limit = {200u << 20, 200u << 20};
  HOLDS(setrlimit(RLIMIT_AS, &limit) == 0, "the limit cannot be set");
  typedef struct link {
    struct link* next;
    char rest[104];
  } link;
  for (unsigned round = 0; round < 2; round++) {
    link* list = NULL;
    size_t count = 0;
    for (link* l; (l = malloc(sizeof *l)) != NULL; count++) {
      l->next = list;
      list = l;
    }
    HOLDS(errno == ENOMEM, "errno is %d when memory ends", errno);
    HOLDS(count > 500000, "only %zu small blocks in 200 MiB", count);
    while (list) {
      link* next = list->next;
      free(list);
      list = next;
    }
  }
}

const check error_checks[] = {
    {"enomem", "what cannot be had is NULL with ENOMEM, up to the end of the address space", enomem, false},
    {"overflow", "calloc and reallocarray refuse products that overflow", calloc_overflow, false},
    {"realloc-failure", "a realloc that fails leaves the block alone", failed_realloc_keeps, false},
    {"memalign-arguments", "posix_memalign refuses odd alignments and leaves the pointer alone",
     posix_memalign_arguments, false},
    {"free-errno", "free keeps errno", free_keeps_errno, false},
    {"malloc-errno", "malloc keeps errno when it succeeds", success_keeps_errno, false},
    {"exhaustion", "memory can run out and come back, in large blocks", address_limit, false},
    {"exhaustion-small", "memory can run out and come back, in small blocks", address_limit_small, false},
    {0}};

/* Heap Tracker, counted right. The size of each block is kept beside it in a table, so that no block needs a
 * header, a block of somebody else's is recognised, and the count cannot become negative.
 *
 * Compiled with HEAP_TRACK_PRELOAD the functions below are malloc and its family; without, they are the
 * __wrap_ functions that the linker puts in their place (-Wl,--wrap=malloc ...). */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "heap_tracker_lib.h"

#ifdef HEAP_TRACK_PRELOAD
#include <dlfcn.h>
#define TRACKED(name) name
#else
#define TRACKED(name) __wrap_##name
#endif
#define SHOWN __attribute__((visibility("default")))

SHOWN size_t heap_threshold = 250 * 1024;
SHOWN volatile ssize_t heap_allocated = 0;
#if defined(HEAP_TRACK_PRELOAD)
SHOWN int heap_track_level = HEAP_TRACK_NONE;
#elif !defined(DEBUG_LOGS_ON)
SHOWN int heap_track_level = HEAP_TRACK_WARNINGS;
#else
SHOWN int heap_track_level = (DEBUG_LOGS_ON) ? HEAP_TRACK_ALL : HEAP_TRACK_NONE;
#endif

/* ---- the table: block to requested bytes, in shards with a lock each ---- */

enum { kShards = 64, kFirstPlaces = 256 };

struct place {
  uintptr_t block; /* 0 is empty */
  size_t bytes;
};
static struct shard {
  int taken;
  size_t capacity; /* a power of two, or 0 */
  size_t used;
  struct place* places;
} shards[kShards];

static size_t live_blocks;
static size_t lost_blocks;
static size_t highest_bytes;

static uint64_t scatter(uintptr_t block) { return (uint64_t)(block >> 4) * 0x9E3779B97F4A7C15u; }
static struct shard* shard_of(uintptr_t block) { return &shards[scatter(block) >> 58]; }
static size_t home_of(const struct shard* shard, uintptr_t block) {
  return (size_t)(scatter(block) >> 20) & (shard->capacity - 1);
}

static void lock(struct shard* shard) {
  while (__atomic_exchange_n(&shard->taken, 1, __ATOMIC_ACQUIRE) != 0) sched_yield();
}
static void unlock(struct shard* shard) { __atomic_store_n(&shard->taken, 0, __ATOMIC_RELEASE); }

static size_t find(const struct shard* shard, uintptr_t block) {
  size_t at = home_of(shard, block);
  while (shard->places[at].block != 0 && shard->places[at].block != block) at = (at + 1) & (shard->capacity - 1);
  return at;
}

static int grow(struct shard* shard) {
  const size_t capacity = shard->capacity == 0 ? kFirstPlaces : shard->capacity * 2;
  struct place* places =
      mmap(NULL, capacity * sizeof *places, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (places == MAP_FAILED) return 0;
  const struct shard before = *shard;
  shard->places = places;
  shard->capacity = capacity;
  for (size_t at = 0; at < before.capacity; ++at) {
    if (before.places[at].block != 0) places[find(shard, before.places[at].block)] = before.places[at];
  }
  if (before.capacity != 0) munmap(before.places, before.capacity * sizeof *places);
  return 1;
}

static void count(ssize_t bytes) {
  const ssize_t now = __atomic_add_fetch(&heap_allocated, bytes, __ATOMIC_RELAXED);
  size_t seen = __atomic_load_n(&highest_bytes, __ATOMIC_RELAXED);
  while (now > 0 && (size_t)now > seen &&
         !__atomic_compare_exchange_n(&highest_bytes, &seen, (size_t)now, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

/* A block that is in the table already (an inner function of the C library put it there) is counted once. */
static void put(const void* block, size_t bytes) {
  const uintptr_t address = (uintptr_t)block;
  if (address == 0) return;
  struct shard* shard = shard_of(address);
  lock(shard);
  if ((shard->used + 1) * 4 > shard->capacity * 3 && !grow(shard) && shard->used + 1 >= shard->capacity) {
    unlock(shard);
    __atomic_add_fetch(&lost_blocks, 1, __ATOMIC_RELAXED);
    return;
  }
  struct place* place = &shard->places[find(shard, address)];
  const ssize_t before = place->block != 0 ? (ssize_t)place->bytes : 0;
  if (place->block == 0) {
    ++shard->used;
    __atomic_add_fetch(&live_blocks, 1, __ATOMIC_RELAXED);
  }
  place->block = address;
  place->bytes = bytes;
  count((ssize_t)bytes - before);
  unlock(shard);
}

/* Answers whether the block was in the table, and with how many bytes. */
static int take(const void* block, size_t* bytes) {
  const uintptr_t address = (uintptr_t)block;
  struct shard* shard = shard_of(address);
  lock(shard);
  size_t at = shard->capacity == 0 ? 0 : find(shard, address);
  const int found = shard->capacity != 0 && shard->places[at].block != 0;
  if (found) {
    *bytes = shard->places[at].bytes;
    --shard->used;
    __atomic_sub_fetch(&live_blocks, 1, __ATOMIC_RELAXED);
    count(-(ssize_t)*bytes);
    /* What follows moves up, so that no search ends too early. */
    const size_t mask = shard->capacity - 1;
    for (size_t next = (at + 1) & mask; shard->places[next].block != 0; next = (next + 1) & mask) {
      const size_t home = home_of(shard, shard->places[next].block);
      if (((next - home) & mask) < ((next - at) & mask)) continue;
      shard->places[at] = shard->places[next];
      at = next;
    }
    shard->places[at].block = 0;
  }
  unlock(shard);
  return found;
}

SHOWN size_t heap_track_peak(void) { return __atomic_load_n(&highest_bytes, __ATOMIC_RELAXED); }
SHOWN size_t heap_track_blocks(void) { return __atomic_load_n(&live_blocks, __ATOMIC_RELAXED); }
SHOWN size_t heap_track_lost(void) { return __atomic_load_n(&lost_blocks, __ATOMIC_RELAXED); }

/* ---- the log ---- */

static int log_file = STDERR_FILENO;
static heap_track_sink log_sink;
static void* log_argument;
static __thread int is_logging; /* what a sink allocates is counted and not logged */

SHOWN void heap_track_set_sink(heap_track_sink sink, void* argument) {
  log_sink = NULL;
  log_argument = argument;
  __atomic_store_n(&log_sink, sink, __ATOMIC_RELEASE);
}

SHOWN void heap_track_init(void) {
  const char* level = getenv("HEAP_TRACK_LOG");
  if (level != NULL) {
    heap_track_level = strcmp(level, "all") == 0        ? HEAP_TRACK_ALL
                       : strcmp(level, "warnings") == 0 ? HEAP_TRACK_WARNINGS
                                                        : HEAP_TRACK_NONE;
  }
  const char* threshold = getenv("HEAP_TRACK_THRESHOLD");
  if (threshold != NULL && *threshold >= '0' && *threshold <= '9') heap_threshold = strtoull(threshold, NULL, 10);
  const char* file = getenv("HEAP_TRACK_FILE");
  if (file == NULL || *file == '\0' || log_file != STDERR_FILENO) return;
  char* end = NULL;
  const long number = strtol(file, &end, 10);
  const int opened = *end == '\0' ? (int)number : open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (opened >= 0) log_file = opened;
}

__attribute__((constructor(102))) static void begin(void) { heap_track_init(); }

static void say(const char* line, size_t length) {
  const heap_track_sink sink = __atomic_load_n(&log_sink, __ATOMIC_ACQUIRE);
  is_logging = 1;
  if (sink != NULL) {
    sink(line, log_argument);
  } else {
    while (length > 0) { /* a line is one write: those of two threads never mix */
      const ssize_t written = write(log_file, line, length);
      if (written <= 0) break;
      line += written;
      length -= (size_t)written;
    }
  }
  is_logging = 0;
}

/* %p is "(nil)" or "0x0" or "0" depending on the C library; Heap Tracker's device printed 0. */
struct pointer_text {
  char text[24];
};
static struct pointer_text show(const void* block) {
  struct pointer_text shown = {"0"};
  if (block != NULL) snprintf(shown.text, sizeof shown.text, "0x%lx", (unsigned long)(uintptr_t)block);
  return shown;
}

enum outcome { kDone, kFailed, kNotOurs };

/* One line: the call as it was made, and what became of it. */
static void log_call(const char* call, enum outcome outcome) {
  const int level = heap_track_level;
  if (level == HEAP_TRACK_NONE || is_logging) return;
  const ssize_t allocated = heap_allocated;
  const size_t threshold = heap_threshold;
  const int is_warning = outcome != kDone || (size_t)allocated > threshold;
  if (!is_warning && level < HEAP_TRACK_ALL) return;
  const int error = errno;
  char line[320];
  int length = 0;
  if (outcome == kFailed) {
    length = snprintf(line, sizeof line, "Heap-Tracker lib: %s... FAILED: out of memory, heap_allocated (%zd bytes)\n",
                      call, allocated);
  } else if (outcome == kNotOurs) {
    length = snprintf(line, sizeof line, "Heap-Tracker lib: WARNING: %s was called for a non-tracked pointer.\n", call);
  } else if (is_warning) {
    length =
        snprintf(line, sizeof line,
                 "Heap-Tracker lib: %s... WARNING: heap_allocated (%zd bytes) is above heap_threshold (%zu bytes)\n",
                 call, allocated, threshold);
  } else {
    length = snprintf(line, sizeof line,
                      "Heap-Tracker lib: %s... SUCCESS: heap_allocated (%zd bytes) - delta with "
                      "heap_threshold(%zd bytes)\n",
                      call, allocated, (ssize_t)(threshold - (size_t)allocated));
  }
  if (length > 0) say(line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
  errno = error;
}

/* Formats the call only if somebody reads it. */
#define LOG(outcome, ...)                                     \
  do {                                                        \
    if (heap_track_level != HEAP_TRACK_NONE && !is_logging) { \
      char call[160];                                         \
      const int error_before = errno;                         \
      snprintf(call, sizeof call, __VA_ARGS__);               \
      errno = error_before;                                   \
      log_call(call, outcome);                                \
    }                                                         \
  } while (0)

/* ---- the functions behind ---- */

#ifdef HEAP_TRACK_PRELOAD
static struct {
  void* (*malloc)(size_t);
  void* (*calloc)(size_t, size_t);
  void* (*realloc)(void*, size_t);
  void* (*aligned_alloc)(size_t, size_t);
  void* (*memalign)(size_t, size_t);
  int (*posix_memalign)(void**, size_t, size_t);
  void* (*valloc)(size_t);
  void* (*pvalloc)(size_t);
  void (*free)(void*);
} next;
#define REAL(name) (find_next(), next.name)

/* Looking a name up may itself allocate: from here, for good. */
static _Alignas(16) char early[32 * 1024];
static size_t early_used;
static int is_early(const void* block) {
  return (const char*)block >= early && (const char*)block < early + sizeof early;
}
static void* early_block(size_t bytes) {
  const size_t at = __atomic_fetch_add(&early_used, (bytes + 31) / 16 * 16, __ATOMIC_RELAXED);
  if (at + bytes + 16 > sizeof early) return NULL;
  memcpy(early + at, &bytes, sizeof bytes);
  return early + at + 16;
}
static void* early_malloc(size_t bytes) { return early_block(bytes); }
static void* early_calloc(size_t number, size_t bytes) { return early_block(number * bytes); }

static void find_next(void) {
  if (next.free != NULL) return;
  next.malloc = early_malloc;
  next.calloc = early_calloc;
#define FIND(name) *(void**)&found_##name = dlsym(RTLD_NEXT, #name)
  void* (*found_malloc)(size_t);
  void* (*found_calloc)(size_t, size_t);
  void (*found_free)(void*);
  void* (*found_realloc)(void*, size_t);
  FIND(malloc);
  FIND(calloc);
  FIND(free);
  FIND(realloc);
  *(void**)&next.aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
  *(void**)&next.memalign = dlsym(RTLD_NEXT, "memalign");
  *(void**)&next.posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
  *(void**)&next.valloc = dlsym(RTLD_NEXT, "valloc");
  *(void**)&next.pvalloc = dlsym(RTLD_NEXT, "pvalloc");
  next.malloc = found_malloc;
  next.calloc = found_calloc;
  next.realloc = found_realloc;
  __atomic_store_n(&next.free, found_free, __ATOMIC_RELEASE);
#undef FIND
}
#else
void* __real_malloc(size_t bytes);
void* __real_calloc(size_t number, size_t bytes);
void* __real_realloc(void* block, size_t bytes);
void* __real_aligned_alloc(size_t alignment, size_t bytes);
void* __real_memalign(size_t alignment, size_t bytes);
int __real_posix_memalign(void** into, size_t alignment, size_t bytes);
/* Not every C library has these. */
__attribute__((weak)) void* __real_valloc(size_t bytes);
__attribute__((weak)) void* __real_pvalloc(size_t bytes);
void __real_free(void* block);
#define REAL(name) __real_##name
static int is_early(const void* block) {
  (void)block;
  return 0;
}
#endif

static enum outcome outcome_of(const void* block, size_t bytes) {
  return block == NULL && bytes != 0 ? kFailed : kDone;
}

static void* noted(void* block, size_t bytes) {
  if (!is_early(block)) put(block, bytes);
  return block;
}

/* ---- the family ---- */

SHOWN void* TRACKED(malloc)(size_t bytes) {
  void* block = noted(REAL(malloc)(bytes), bytes);
  LOG(outcome_of(block, bytes), "malloc(%zu)=%s", bytes, show(block).text);
  return block;
}

SHOWN void* TRACKED(calloc)(size_t number, size_t bytes) {
  size_t whole = 0;
  if (__builtin_mul_overflow(number, bytes, &whole)) whole = SIZE_MAX; /* the real one refuses it */
  void* block = noted(REAL(calloc)(number, bytes), whole);
  LOG(outcome_of(block, whole), "calloc(%zu,%zu)=%s", number, bytes, show(block).text);
  return block;
}

static void* move(void* block, size_t bytes) {
  size_t before = 0;
  if (is_early(block)) {
    memcpy(&before, (const char*)block - 16, sizeof before);
    void* moved = noted(REAL(malloc)(bytes), bytes);
    if (moved != NULL) memcpy(moved, block, before < bytes ? before : bytes);
    return moved;
  }
  /* Out of the table first: once it has moved, its address is anybody's. */
  const int found = block != NULL && take(block, &before);
  void* moved = REAL(realloc)(block, bytes);
  if (moved != NULL) {
    put(moved, bytes);
  } else if (found && bytes != 0) {
    put(block, before);
  }
  return moved;
}

SHOWN void* TRACKED(realloc)(void* block, size_t bytes) {
  const struct pointer_text was = show(block);
  void* moved = move(block, bytes);
  LOG(outcome_of(moved, bytes), "realloc(%s, %zu)=%s", was.text, bytes, show(moved).text);
  return moved;
}

SHOWN void* TRACKED(reallocarray)(void* block, size_t number, size_t bytes) {
  const struct pointer_text was = show(block);
  size_t whole = 0;
  void* moved = NULL;
  if (__builtin_mul_overflow(number, bytes, &whole)) {
    errno = ENOMEM;
    whole = SIZE_MAX;
  } else {
    moved = move(block, whole);
  }
  LOG(outcome_of(moved, whole), "reallocarray(%s, %zu, %zu)=%s", was.text, number, bytes, show(moved).text);
  return moved;
}

SHOWN void* TRACKED(aligned_alloc)(size_t alignment, size_t bytes) {
  void* block = noted(REAL(aligned_alloc)(alignment, bytes), bytes);
  LOG(outcome_of(block, bytes), "aligned_alloc(%zu,%zu)=%s", alignment, bytes, show(block).text);
  return block;
}

SHOWN void* TRACKED(memalign)(size_t alignment, size_t bytes) {
  void* block = noted(REAL(memalign)(alignment, bytes), bytes);
  LOG(outcome_of(block, bytes), "memalign(%zu,%zu)=%s", alignment, bytes, show(block).text);
  return block;
}

SHOWN int TRACKED(posix_memalign)(void** into, size_t alignment, size_t bytes) {
  const int error = REAL(posix_memalign)(into, alignment, bytes);
  void* block = error == 0 ? noted(*into, bytes) : NULL;
  LOG(error == 0 ? kDone : kFailed, "posix_memalign(%zu,%zu)=%s", alignment, bytes, show(block).text);
  return error;
}

SHOWN void* TRACKED(valloc)(size_t bytes) {
  void* block = noted(REAL(valloc)(bytes), bytes);
  LOG(outcome_of(block, bytes), "valloc(%zu)=%s", bytes, show(block).text);
  return block;
}

SHOWN void* TRACKED(pvalloc)(size_t bytes) {
  void* block = noted(REAL(pvalloc)(bytes), bytes);
  LOG(outcome_of(block, bytes), "pvalloc(%zu)=%s", bytes, show(block).text);
  return block;
}

/* Answers whether it was ours; the block is gone either way. */
static int give_back(void* block) {
  size_t bytes = 0;
  const int error = errno;
  const int found = block == NULL || is_early(block) || take(block, &bytes);
  if (!is_early(block)) REAL(free)(block);
  errno = error;
  return found;
}

SHOWN void TRACKED(free)(void* block) {
  const struct pointer_text was = show(block);
  const int found = give_back(block);
  if (block != NULL) LOG(found ? kDone : kNotOurs, "free(%s)", was.text);
}

/* ---- Heap Tracker's own names ---- */

SHOWN void _free(void* block, size_t bytes) {
  const struct pointer_text was = show(block);
  const int found = give_back(block);
  LOG(found ? kDone : kNotOurs, "_free(%s,%zu)", was.text, bytes);
}

SHOWN void* _realloc(void* block, size_t old_bytes, size_t new_bytes) {
  const struct pointer_text was = show(block);
  void* moved = move(block, new_bytes);
  LOG(outcome_of(moved, new_bytes), "_realloc(%s,%zu,%zu)=%s", was.text, old_bytes, new_bytes, show(moved).text);
  return moved;
}

#ifndef HEAP_TRACK_PRELOAD
/* ---- functions of the C library that hand out blocks from inside, where the linker replaces nothing ---- */

char* __real_strdup(const char* text);
char* TRACKED(strdup)(const char* text) {
  char* copy = __real_strdup(text);
  if (copy != NULL) put(copy, strlen(copy) + 1);
  LOG(copy == NULL ? kFailed : kDone, "strdup(%s)=%s", show(text).text, show(copy).text);
  return copy;
}

char* __real_strndup(const char* text, size_t most);
char* TRACKED(strndup)(const char* text, size_t most) {
  char* copy = __real_strndup(text, most);
  if (copy != NULL) put(copy, strlen(copy) + 1);
  LOG(copy == NULL ? kFailed : kDone, "strndup(%s,%zu)=%s", show(text).text, most, show(copy).text);
  return copy;
}

ssize_t __real_getdelim(char** line, size_t* bytes, int end, FILE* file);
ssize_t TRACKED(getdelim)(char** line, size_t* bytes, int end, FILE* file) {
  size_t before = 0;
  if (line != NULL && *line != NULL) take(*line, &before);
  const ssize_t length = __real_getdelim(line, bytes, end, file);
  if (line != NULL && *line != NULL && bytes != NULL) put(*line, *bytes);
  return length;
}

ssize_t TRACKED(getline)(char** line, size_t* bytes, FILE* file) { return TRACKED(getdelim)(line, bytes, '\n', file); }

int __real_vasprintf(char** into, const char* format, va_list arguments);
SHOWN int TRACKED(vasprintf)(char** into, const char* format, va_list arguments) {
  const int length = __real_vasprintf(into, format, arguments);
  if (length >= 0) put(*into, (size_t)length + 1);
  return length;
}

SHOWN int TRACKED(asprintf)(char** into, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = TRACKED(vasprintf)(into, format, arguments);
  va_end(arguments);
  return length;
}

#ifdef HEAP_TRACK_CPP
/* C++: called for every `new` and `delete` in what is linked. */
#define NEW(name, parameters, arguments)                                   \
  void* __real_##name parameters;                                          \
  void* TRACKED(name) parameters {                                         \
    void* block = __real_##name arguments;                                 \
    put(block, bytes);                                                     \
    LOG(outcome_of(block, bytes), "new(%zu)=%s", bytes, show(block).text); \
    return block;                                                          \
  }
#define DELETE(name, parameters, arguments)                \
  void __real_##name parameters;                           \
  void TRACKED(name) parameters {                          \
    const struct pointer_text was = show(block);           \
    size_t bytes_before = 0;                               \
    if (block != NULL) take(block, &bytes_before);         \
    __real_##name arguments;                               \
    if (block != NULL) LOG(kDone, "delete(%s)", was.text); \
  }
NEW(_Znwm, (size_t bytes), (bytes))
NEW(_Znam, (size_t bytes), (bytes))
NEW(_ZnwmRKSt9nothrow_t, (size_t bytes, const void* tag), (bytes, tag))
NEW(_ZnamRKSt9nothrow_t, (size_t bytes, const void* tag), (bytes, tag))
NEW(_ZnwmSt11align_val_t, (size_t bytes, size_t alignment), (bytes, alignment))
NEW(_ZnamSt11align_val_t, (size_t bytes, size_t alignment), (bytes, alignment))
DELETE(_ZdlPv, (void* block), (block))
DELETE(_ZdaPv, (void* block), (block))
DELETE(_ZdlPvm, (void* block, size_t bytes), (block, bytes))
DELETE(_ZdaPvm, (void* block, size_t bytes), (block, bytes))
DELETE(_ZdlPvSt11align_val_t, (void* block, size_t alignment), (block, alignment))
DELETE(_ZdaPvSt11align_val_t, (void* block, size_t alignment), (block, alignment))
DELETE(_ZdlPvmSt11align_val_t, (void* block, size_t bytes, size_t alignment), (block, bytes, alignment))
DELETE(_ZdaPvmSt11align_val_t, (void* block, size_t bytes, size_t alignment), (block, bytes, alignment))
#endif
#endif
